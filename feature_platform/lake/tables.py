"""Tables of the lake as they are, and bringing them to what is declared.

Rule: only deploy calls what writes here, under the exclusive deployment lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import duckdb

from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.errors import Finding
from feature_platform.lake import sql


@contextmanager
def transaction(lake: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All statements of the block commit together, or none does."""
    lake.execute("begin")
    try:
        yield
        lake.execute("commit")
    except BaseException:  # an interrupt as well leaves half a block behind; raised again
        lake.execute("rollback")
        raise


def read_columns(lake: duckdb.DuckDBPyConnection, schema: str) -> dict[str, dict[str, str]]:
    """Columns of each table of a schema in their order: table → column → DuckDB type."""
    rows = lake.execute(
        "select c.table_name, c.column_name, c.data_type from duckdb_columns() as c join duckdb_tables() as t"
        " using (database_name, schema_name, table_name)"
        " where c.database_name = 'lake' and c.schema_name = ? order by c.table_name, c.column_index",
        [schema],
    ).fetchall()
    tables: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        tables.setdefault(table, {})[column] = kind
    return tables


def read_row_groups(lake: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """How many rows a row group of each physical table has, where that is set."""
    rows = lake.execute(
        "select scope_entry, value from lake.options() where option_name = ? and scope = 'TABLE'",
        [sql.ROW_GROUP_OPTION],
    ).fetchall()
    prefix = f"{sql.BATCHES_SCHEMA}."
    return {entry.removeprefix(prefix): value for entry, value in rows if entry.startswith(prefix)}


def create_schemas(lake: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Create the schemas that are missing; their names."""
    rows = lake.execute("select schema_name from duckdb_schemas() where database_name = 'lake'").fetchall()
    missing = tuple(name for name in sql.SCHEMAS if (name,) not in rows)
    for name in missing:
        lake.execute(f"create schema if not exists {sql.quote_identifier('lake')}.{sql.quote_identifier(name)}")
    return missing


def missing_sources(lake: duckdb.DuckDBPyConnection, sources: Iterable[Source]) -> tuple[Source, ...]:
    """The sources whose tables do not exist."""
    rows = lake.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = 'lake'"
        " union all select schema_name, view_name from duckdb_views() where database_name = 'lake'"
    ).fetchall()
    present = set(rows)
    return tuple(source for source in sources if (source.schema, source.table) not in present)


def find_misfits(views: Mapping[str, FeatureView], existing: Mapping[str, Mapping[str, str]]) -> tuple[Finding, ...]:
    """Every reason why a declared view does not fit the table it has.

    Args:
        views: the declared views.
        existing: the columns of each physical table, as `read_columns` returns them.
    """
    return tuple(
        finding
        for view in views.values()
        if view.table in existing
        for finding in sql.find_breaking_changes(view, existing[view.table])
    )


def plan_tables(
    views: Mapping[str, FeatureView], existing: Mapping[str, Mapping[str, str]], row_groups: Mapping[str, str]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What to run so that each view has its table: (what it does, statements). Nothing for tables that fit.

    Args:
        views: the declared views. They must fit (`find_misfits`).
        existing: the columns of each physical table, as `read_columns` returns them.
        row_groups: as `read_row_groups` returns them.
    """
    plan: list[tuple[str, tuple[str, ...]]] = []
    for view in views.values():
        columns = existing.get(view.table)
        if columns is None:
            plan.append((f"create table batches.{view.table}", sql.build_create_table(view)))
        elif added := [name for name in view.feature_names if name not in columns]:
            plan.append((f"add {', '.join(added)} to batches.{view.table}", sql.build_add_columns(view, columns)))
        if option := sql.build_row_group_option(view, row_groups):
            plan.append(
                (f"write batches.{view.table} in groups of {sql.rows_per_group(view.row_bytes):,} rows", option)
            )
    return tuple(plan)
