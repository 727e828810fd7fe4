"""DuckLake's snapshots: each commit makes one, numbered in the order of commits."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import psycopg2.errors

from feature_platform.errors import LedgerUnavailableError, NotDeployedError

_CONNECT_TIMEOUT_SECONDS = 10


def newest_snapshot(lake_catalog: str) -> int:
    """The newest snapshot, asked of the catalog's Postgres: opening the lake only for this costs a hundred times more.

    Raises:
        NotDeployedError: there is no catalog yet.
        LedgerUnavailableError: Postgres cannot be reached.
    """
    try:
        with (
            closing(psycopg2.connect(lake_catalog, connect_timeout=_CONNECT_TIMEOUT_SECONDS)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("select max(snapshot_id) from ducklake_snapshot")
            return int((cursor.fetchone() or (0,))[0])
    except psycopg2.errors.UndefinedTable as error:
        raise NotDeployedError("the lake has no catalog yet", hint="run `feature-platform deploy`") from error
    except psycopg2.OperationalError as error:
        raise LedgerUnavailableError(
            "cannot connect to the lake catalog's Postgres",
            found=str(error).strip(),
            hint="start it with `feature-platform up`, or check FEATURE_PLATFORM_LAKE_CATALOG",
        ) from error
