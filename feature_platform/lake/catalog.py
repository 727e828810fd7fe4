"""DuckLake's catalog, asked directly in its Postgres: opening the lake only for this costs a hundred times more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import psycopg2
import psycopg2.errors

from feature_platform.errors import LedgerUnavailableError, NotDeployedError
from feature_platform.lake.sql import BATCHES_SCHEMA

_CONNECT_TIMEOUT_SECONDS = 10
_ADDED = """
select sum(f.file_size_bytes), sum(f.record_count)
from ducklake_data_file f
join ducklake_table t on t.table_id = f.table_id and t.end_snapshot is null
join ducklake_schema s on s.schema_id = t.schema_id and s.end_snapshot is null
where s.schema_name = %s and t.table_name = %s and f.begin_snapshot > %s
"""


def query_catalog(lake_catalog: str, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement over DuckLake's own tables.

    Raises:
        NotDeployedError: there is no catalog yet.
        LedgerUnavailableError: Postgres cannot be reached.
    """
    try:
        with (
            closing(psycopg2.connect(lake_catalog, connect_timeout=_CONNECT_TIMEOUT_SECONDS)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement, tuple(parameters))
            return cursor.fetchall()
    except psycopg2.errors.UndefinedTable as error:
        raise NotDeployedError("the lake has no catalog yet", hint="run `feature-platform deploy`") from error
    except psycopg2.OperationalError as error:
        raise LedgerUnavailableError(
            "cannot connect to the lake catalog's Postgres",
            found=str(error).strip(),
            hint="start it with `feature-platform up`, or check FEATURE_PLATFORM_LAKE_CATALOG",
        ) from error


def bytes_per_row(lake_catalog: str, table: str, *, since: int) -> float | None:
    """Of the files added to a table of batches since a snapshot; None if there are none.

    Raises: as `query_catalog`.
    """
    ((size, rows),) = query_catalog(lake_catalog, _ADDED, (BATCHES_SCHEMA, table, since))
    return float(size) / float(rows) if rows else None


def newest_snapshot(lake_catalog: str) -> int:
    """The newest of DuckLake's snapshots: each commit makes one, numbered in the order of commits; 0 before the first.

    Raises:
        NotDeployedError: there is no catalog yet.
        LedgerUnavailableError: Postgres cannot be reached.
    """
    ((newest,),) = query_catalog(lake_catalog, "select coalesce(max(snapshot_id), 0) from ducklake_snapshot")
    return int(newest)
