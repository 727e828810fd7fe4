"""Reaching Postgres, and what its errors mean to the platform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import psycopg2.errors
from psycopg2 import extensions

from feature_platform.errors import LedgerConflictError, LedgerUnavailableError, NotDeployedError

_CONNECT_TIMEOUT_SECONDS = 10
# One lock orders all appends, another holds off deploys. A client that hangs inside an append, or whose machine went
# away without a word, would keep everybody waiting: the server ends its session.
_OPTIONS = (
    "-c TimeZone=UTC -c idle_in_transaction_session_timeout=60s"
    " -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
)


def open_connection(url: str) -> extensions.connection:
    """A connection in autocommit mode whose instants are UTC.

    Raises:
        LedgerUnavailableError: Postgres cannot be reached.
    """
    try:
        connection = psycopg2.connect(
            url,
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            application_name="feature_platform",
            options=_OPTIONS,
            keepalives_idle=30,
        )
    except psycopg2.OperationalError as error:
        raise LedgerUnavailableError(
            "cannot connect to the ledger's Postgres",
            found=str(error).strip(),
            hint="start it with `feature-platform up`, or check FEATURE_PLATFORM_LEDGER_URL",
        ) from error
    connection.autocommit = True
    return connection


@contextmanager
def translated() -> Iterator[None]:
    """Turn what psycopg2 raises into the platform's errors."""
    try:
        yield
    except psycopg2.errors.UndefinedTable as error:
        raise NotDeployedError(
            "the ledger has no such table", found=str(error).strip(), hint="run `feature-platform deploy`"
        ) from error
    except (psycopg2.IntegrityError, psycopg2.errors.RaiseException) as error:
        raise LedgerConflictError(
            "the ledger refused a record that contradicts an earlier one",
            found=str(error).strip(),
            hint="`feature-platform ledger events` shows what is recorded; nothing was changed",
        ) from error
    except (
        psycopg2.OperationalError,
        psycopg2.InterfaceError,
        psycopg2.errors.IdleInTransactionSessionTimeout,
    ) as error:
        raise LedgerUnavailableError(
            "the connection to the ledger's Postgres failed",
            found=str(error).strip(),
            hint="the append was not committed, or its commit was not confirmed; try again",
        ) from error
