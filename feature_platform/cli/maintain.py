"""`feature-platform maintain`: what nobody needs any more is deleted, what is left is merged, files out of use go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.declaration import load_registry
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.maintenance import MaintenanceReport, TableReport

_WAIT_SECONDS = 300
_KIB = 1024


@click.command()
@click.option(
    "--view", "views", multiple=True, metavar="VIEW",
    help="Only rows of this view, and no files out of use; may be given more often.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Change nothing: list what would go, what it frees, why the rest stays.")
@click.option(
    "--wait", type=click.IntRange(min=0), default=_WAIT_SECONDS, show_default=True, metavar="SECONDS",
    help="How long to wait for runs to end, before each slice.",
)  # fmt: skip
@json_option
def maintain(*, views: tuple[str, ...], dry_run: bool, wait: int, as_json: bool) -> None:
    """Delete rows that nobody needs any more, merge small files, remove files out of use.

    Of batches go: those never published, a week after the last thing happened to them; and superseded ones, if their
    view declares `retention: {superseded: …}` and has been without them for so long. Of the feature log: rows older
    than their view's `retention: {logged: …}`. Of files: what nothing has used for a day.

    What stays whatever its age: active batches, those held for approval, those that a kept training set needs.

    Runs are never disturbed: a slice of a table (a day, month or year) is written anew while none is alive, and they
    get their turn between two slices. It may be stopped and repeated at any time. In Dagster the asset
    platform/maintenance does the same every night.
    """
    from rich.console import Console

    from feature_platform.maintenance import maintain as run  # loads DuckDB

    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    chosen = registry.views_named(views) or None
    with Console(stderr=True).status("looking at the ledger") as status:
        report = run(
            settings,
            registry,
            chosen,
            dry_run=dry_run,
            wait=timedelta(seconds=wait),
            progress=status.update,
        )
    if as_json:
        print_json(asdict(report))
    else:
        _print(report)


def _print(report: MaintenanceReport) -> None:
    would = "would " if report.is_dry_run else ""
    print_table(
        (
            "table",
            f"{would}retire" if would else "retired",
            f"{would}delete" if would else "rows deleted",
            f"{would}merge" if would else "merged",
            "files",
            "bytes",
        ),
        (_row(table, is_dry_run=report.is_dry_run) for table in report.tables),
    )
    kept = [row for table in report.tables for row in _kept(table)]
    if kept:
        click.echo("not active, and kept:")
        print_table(("view", "batches", "rows", "bytes", "why", "details"), kept)
    if report.files is not None:
        files = report.files
        size = "" if files.bytes is None else f", {_size(files.bytes)}"
        click.echo(
            f"{would}remove {files.unused} files out of use and {files.orphans} leftovers of runs that died{size};"
            f" {files.snapshots} old states of the lake"
            if would
            else f"removed {files.unused} files out of use and {files.orphans} leftovers of runs that died{size};"
            f" {files.snapshots} old states of the lake given up"
        )
    if report.is_dry_run:
        click.echo("nothing was changed")
    else:
        click.secho(f"maintained in {report.seconds:.1f} s", fg="green")


def _row(table: TableReport, *, is_dry_run: bool) -> tuple[str, ...]:
    before, after = table.before, table.after
    return (
        table.table,
        "\n".join(f"{count} {why}" for why, count in table.retired.items()) or "-",
        f"{table.rows_deleted} rows" if table.rows_deleted else "-",
        ", ".join(table.merged) or "-",
        f"{before.count}" if is_dry_run or before == after else f"{before.count} → {after.count}",
        _freed(table) if is_dry_run or before == after else f"{_size(before.bytes)} → {_size(after.bytes)}",
    )


def _freed(table: TableReport) -> str:
    freed = f", frees about {_size(table.bytes_retired)}" if table.bytes_retired else ""
    return f"{_size(table.before.bytes)}{freed}"


def _kept(table: TableReport) -> Iterator[tuple[str, ...]]:
    for one in table.kept:
        details = "\n".join(one.details)
        yield table.table, str(one.batches), str(one.rows), _size(one.bytes), str(one.why), details


def _size(count: int) -> str:
    """The size for people.

    >>> _size(900), _size(3_400_000)
    ('900 B', '3.2 MiB')
    """
    if count < _KIB:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= _KIB
        if size < _KIB:
            return f"{size:.1f} {unit}"
    return f"{size / _KIB:.1f} TiB"
