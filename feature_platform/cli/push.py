"""`feature-platform push`: rows of a file to a view's online store, and what was pushed into the lake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from feature_platform.cli.output import counted, json_option, print_json, progress_bar
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.domain.types import ColumnType, DecimalType
from feature_platform.errors import RequestError
from feature_platform.settings import Settings

_LINES_AT_ONCE = 10_000


@click.command()
@click.argument("view")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--drain", is_flag=True, help="Bring what was pushed from the ledger into the lake.")
@json_option
def push(*, view: str, file: Path | None, drain: bool, as_json: bool) -> None:
    """Push the rows of FILE to VIEW: log them in the ledger, then write them to the online store.

    FILE: Parquet, or JSON, one row per line; - reads such lines from standard input. Columns are the keys,
    event_timestamp and every feature. In JSON, instants are texts with their zone (2026-11-26T08:00:00Z), dates
    (2026-11-26) and decimals are texts, too. VIEW declares `push: true`.

    A store that does not answer gets the rows from the next sync. The Dagster asset pushed/VIEW drains every quarter of
    an hour, so that training sees what was pushed; --drain does it now.
    """
    if file is None and not drain:
        raise click.UsageError("name a file to push, or pass --drain")
    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    answer: dict[str, Any] = {"view": registry.view(view).key}
    if file is not None:
        answer |= _push(settings, registry, view, file)
    if drain:
        from feature_platform.sync.push import drain_pushes  # loads DuckDB and pyarrow

        drained = drain_pushes(settings, registry.view(view))
        answer |= {"drained_pushes": drained.pushes, "drained_rows": drained.rows, "through": drained.through}
    if as_json:
        print_json(answer)
        return
    if file is not None:
        rows, pushes = counted(answer["rows"], "row"), counted(answer["pushes"], "push")
        click.echo(f"{rows} pushed to {answer['view']}: {pushes} in the ledger")
        if answer["problem"]:
            click.secho(f"not in store {settings.store} yet: {answer['problem']}", fg="yellow")
            click.echo(f"the next sync writes them: feature-platform sync {view}")
    if drain:
        rows, pushes = counted(answer["drained_rows"], "row"), counted(answer["drained_pushes"], "push")
        click.echo(f"{rows} of {pushes} brought into the lake")


def _push(settings: Settings, registry: FeatureRegistry, view: str, file: Path) -> dict[str, Any]:
    from feature_platform.sync.push import FeaturePusher  # loads DuckDB and pyarrow

    rows = pushes = 0
    problem = ""
    with FeaturePusher(settings, registry) as pusher, progress_bar("pushing") as progress:
        for part in _parts(file, registry.view(view)):
            result = pusher.push(view, part)
            rows, pushes, problem = rows + result.rows, pushes + len(result.numbers), problem or result.problem
            progress(rows, None)
    return {"rows": rows, "pushes": pushes, "acknowledged": not problem, "problem": problem}


def _parts(file: Path, view: FeatureView) -> Iterator[Any]:
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            yield from pq.ParquetFile(file).iter_batches(_LINES_AT_ONCE)
        except (OSError, pa.ArrowInvalid) as error:
            raise RequestError(f"cannot read {file}", found=str(error), allowed="Parquet, or JSON lines") from error
        return
    readers = dict(_readers(view))
    rows: list[dict[str, Any]] = []
    with click.open_file(str(file), encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                rows.append(_row(number, line, readers))
            if len(rows) == _LINES_AT_ONCE:
                yield rows
                rows = []
    if rows:
        yield rows


def _readers(view: FeatureView) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """How texts of the columns are read whose values JSON cannot spell."""
    yield EVENT_TIMESTAMP, datetime.fromisoformat
    for column in (*view.entities, *view.features):
        if column.type is ColumnType.TIMESTAMPTZ:
            yield column.name, datetime.fromisoformat
        elif column.type is ColumnType.DATE:
            yield column.name, date.fromisoformat
        elif isinstance(column.type, DecimalType):
            yield column.name, Decimal


def _row(number: int, line: str, readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            return row | {name: read(row[name]) for name, read in readers.items() if isinstance(row.get(name), str)}
    except (ValueError, ArithmeticError) as error:
        raise RequestError(f"line {number} cannot be read", found=str(error), allowed="one JSON object") from error
    raise RequestError(f"line {number} is no row", found=line.strip()[:80], allowed="one JSON object")
