"""`feature-platform training-set` and `feature-platform sql`: features for training, and for people with questions."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.output import console, json_option, print_json
from feature_platform.errors import RequestError, chosen_from

if TYPE_CHECKING:
    import duckdb

    from feature_platform.offline import FeatureStore, HistoricalFeatures

_FETCH_ROWS = 1000
_TABLES = """
select 'features.' || table_name as "table", string_agg(column_name, ', ' order by column_index) as columns
from duckdb_columns() where schema_name = 'features' group by table_name order by table_name
"""


def open_store() -> FeatureStore:
    """The store of the deployed project."""
    from feature_platform.offline import FeatureStore  # imports DuckDB and pyarrow, which `--help` does not need

    return FeatureStore.from_env()


@click.group("training-set")
def training_set() -> None:
    """Features joined to labels, as of each label's time."""


@training_set.command("create")
@click.argument("service_or_refs", nargs=-1, required=True)
@click.option(
    "--labels",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parquet file with key columns and each label's time.",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Parquet file to write.")
@click.option("--mode", default="modelled", show_default=True, help="What counts as seen at a label's time.")
@click.option("--timestamp-column", default="event_timestamp", show_default=True, help="Column of the labels' time.")
@click.option("--full-feature-names", is_flag=True, help="Name columns <view>__<feature>.")
@click.option("--at-sequence", type=int, help="Answer as of this ledger sequence (default: now).")
@json_option
def create(
    *,
    service_or_refs: tuple[str, ...],
    labels: Path,
    out: Path,
    mode: str,
    timestamp_column: str,
    full_feature_names: bool,
    at_sequence: int | None,
    as_json: bool,
) -> None:
    """Write a training set for SERVICE_OR_REFS: a feature service, or references like carrier_delays:flights.

    Rows and columns of the labels come first and unchanged, one column per feature follows.
    """
    asked = service_or_refs[0] if len(service_or_refs) == 1 else service_or_refs
    with open_store().get_historical_features(
        labels,
        asked,
        mode=mode,
        timestamp_column=timestamp_column,
        full_feature_names=full_feature_names,
        at_sequence=at_sequence,
    ) as features:
        try:
            features.to_parquet(out)
        except OSError as error:
            raise RequestError(f"cannot write {out}", found=str(error)) from error
        if as_json:
            print_json(_facts(features, out))
        else:
            _print_facts(features, out)


def _facts(features: HistoricalFeatures, out: Path) -> dict[str, Any]:
    facts = features.facts
    return {
        "out": str(out),
        "rows": facts.row_count,
        "columns": len(facts.label_columns) + len(facts.features),
        "mode": facts.mode.value,
        "ledger_sequence": facts.ledger_sequence,
        "null_shares": features.null_shares(),
        "features": {column.name: f"{column.view}:{column.feature}" for column in facts.features},
        "batches": dict(facts.batches),
        "plans": {key: plan.value for key, plan in facts.plans.items()},
    }


def _print_facts(features: HistoricalFeatures, out: Path) -> None:
    facts = features.facts
    shares = features.null_shares()
    rows = [(column.name, column.view, f"{shares[column.name]:.1%}") for column in facts.features]
    _print_table(("feature", "view", "without a value"), rows)
    columns = len(facts.label_columns) + len(facts.features)
    click.echo(f"{out}: {facts.row_count} rows x {columns} columns")
    click.echo(f"{facts.mode.value}, as of ledger sequence {facts.ledger_sequence}")


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
        _print_table(names, [["" if value is None else str(_plain(value)) for value in row] for row in rows])
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
            raise RequestError("this is not one statement", found=f"{len(statements)} statements")
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


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # not needed for --json and --help
    from rich.table import Column, Table

    # folded, never cut: people copy names
    table = Table(*(Column(title, overflow="fold") for title in titles), box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console().print(table)
