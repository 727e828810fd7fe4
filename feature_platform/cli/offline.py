"""`feature-platform sql`: features for people with questions."""

from __future__ import annotations

import csv
import sys
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.errors import RequestError, chosen_from

if TYPE_CHECKING:
    import duckdb

    from feature_platform.offline import FeatureStore

_FETCH_ROWS = 1000
_TABLES = """
select 'features.' || table_name as "table", string_agg(column_name, ', ' order by column_index) as columns
from duckdb_columns() where schema_name = 'features' group by table_name order by table_name
"""


def open_store() -> FeatureStore:
    """The store of the deployed project."""
    from feature_platform.offline import FeatureStore  # imports DuckDB and pyarrow, which `--help` does not need

    return FeatureStore.from_env()


@click.command()
@click.argument("query", required=False)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=0), help="Most rows; 0 means all.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def sql(query: str | None, *, limit: int, as_json: bool, as_csv: bool) -> None:
    """Run QUERY over the published features: tables features.<view>. Without QUERY: list the tables."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    with open_store().connect() as connection:
        query = query or _TABLES
        result = _run(connection, query)
        names = [column[0] for column in result.description or ()]
        rows, more = _fetch(result, limit)
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([names, *(["" if v is None else _plain(v) for v in row] for row in rows)])
    else:
        print_table(names, [["" if value is None else str(_plain(value)) for value in row] for row in rows])
    if more:
        click.echo(f"first {limit} rows; --limit 0 shows all", err=as_json or as_csv)


def _run(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyConnection:
    """Run one reading statement.

    Raises:
        RequestError: it is none, or DuckDB refuses it.
    """
    import duckdb  # see open_store

    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1:
            raise RequestError(
                "this is not one statement",
                found=f"{len(statements)} statements",
                hint="ask for one after the other; quote the whole statement in the shell",
            )
        if statements[0].type not in {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
            raise RequestError(
                "`sql` only reads",
                found=statements[0].type.name,
                allowed="SELECT, FROM, DESCRIBE, EXPLAIN",
                hint="FeatureStore.from_env().connect() is a whole DuckDB (the lake stays read-only)",
            )
        return connection.execute(query)
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        tables = connection.execute("select view_name from duckdb_views() where schema_name = 'features'").fetchall()
        raise RequestError(
            "the query does not fit the features",
            found=str(error),
            allowed="tables " + chosen_from(f"features.{name}" for (name,) in tables),
            hint="`feature-platform sql` alone lists their columns",
        ) from error
    except duckdb.Error as error:
        raise RequestError("DuckDB cannot run the query", found=str(error)) from error


def _fetch(result: duckdb.DuckDBPyConnection, limit: int) -> tuple[list[tuple[Any, ...]], bool]:
    """Up to so many rows (0: all), and whether there were more."""
    rows: list[tuple[Any, ...]] = []
    while chunk := result.fetchmany(min(_FETCH_ROWS, limit + 1) if limit else _FETCH_ROWS):
        rows += chunk
        if limit and len(rows) > limit:
            return [*islice(rows, limit)], True
    return rows, False


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (date, datetime)) else value
