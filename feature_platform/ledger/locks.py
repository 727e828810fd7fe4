"""The advisory locks of the ledger's database.

`APPEND` orders the ledger's appends and lives only inside their transactions. `DEPLOYMENT` separates the runs, which
only append to the lake and hold it shared, from deploy and maintenance, which change tables and hold it exclusively:
in DuckLake creating a table, adding a column or deleting rows aborts every open append. Postgres releases both when the
process that holds them dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import psycopg2
import psycopg2.errors
from psycopg2 import extensions

from feature_platform.errors import LockBusyError
from feature_platform.ledger.postgres import translated

# "fplt" in ASCII, then a number: advisory locks share one space per database
APPEND = 0x66706C74_0001
DEPLOYMENT = 0x66706C74_0002
MIGRATION = 0x66706C74_0003
CANARY = 0x66706C74_0004
# "fplg": with two keys it lies apart from those above
_DRAINS = 0x66706C67

DEFAULT_WAIT = timedelta(seconds=60)


@contextmanager
def deployment_lock(
    connection: extensions.connection, *, exclusive: bool, wait: timedelta = DEFAULT_WAIT
) -> Iterator[None]:
    """Hold the DEPLOYMENT lock for the block, on a connection in autocommit mode.

    A waiting exclusive request is served before later shared ones, so a stream of runs cannot starve a deploy.

    Raises:
        LockBusyError: the lock was not free within `wait`.
    """
    suffix = "" if exclusive else "_shared"
    with translated(), connection.cursor() as cursor:
        cursor.execute("begin")
        try:
            cursor.execute(
                "select set_config('lock_timeout', %s, true)", (f"{int(wait.total_seconds() * 1000) or 1}ms",)
            )
            cursor.execute(f"select pg_advisory_lock{suffix}(%s)", (DEPLOYMENT,))
            cursor.execute("commit")
        except psycopg2.errors.LockNotAvailable as error:
            cursor.execute("rollback")
            raise LockBusyError(
                f"the {'exclusive' if exclusive else 'shared'} deployment lock was not free within {wait}",
                found="runs are going on" if exclusive else "a deploy or maintenance is going on",
                hint="try again when they have ended; `feature-platform ledger unfinished` lists their batches",
            ) from error
    try:
        yield
    finally:
        # a broken connection has released the lock already
        with suppress(psycopg2.Error), connection.cursor() as cursor:
            cursor.execute(f"select pg_advisory_unlock{suffix}(%s)", (DEPLOYMENT,))


@contextmanager
def drain_lock(connection: extensions.connection, store: str) -> Iterator[None]:
    """Hold the right to drain a store's feature log; the death of the process gives it free.

    Raises:
        LockBusyError: another process drains it.
    """
    busy = f"the feature log of store {store!r} is being drained by another process"
    with _at_once(connection, "(%s, hashtext(%s))", (_DRAINS, store), busy=busy):
        yield


@contextmanager
def canary_lock(connection: extensions.connection) -> Iterator[None]:
    """Hold the right to a round of the canary: of two at once, each would read what the other wrote.

    Raises:
        LockBusyError: another round is going on.
    """
    with _at_once(connection, "(%s)", (CANARY,), busy="another round of the canary is going on"):
        yield


@contextmanager
def _at_once(
    connection: extensions.connection, key: str, parameters: tuple[int | str, ...], *, busy: str
) -> Iterator[None]:
    """Hold a lock that nobody waits for."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"select pg_try_advisory_lock{key}", parameters)
        if cursor.fetchone() != (True,):
            raise LockBusyError(busy, hint="wait for it")
    try:
        yield
    finally:
        # a broken connection has released the lock already
        with suppress(psycopg2.Error), connection.cursor() as cursor:
            cursor.execute(f"select pg_advisory_unlock{key}", parameters)
