"""`feature-platform audit leakage`: do features look into the future?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.output import json_option, print_json, print_table, progress_bars
from feature_platform.cli.params import Instant
from feature_platform.declaration import load_registry
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.audit import Example, FeatureAudit, LeakageReport, Unknown
    from feature_platform.audit.leakage import OnProgress
    from feature_platform.audit.leakage import Progress as AuditProgress

EXIT_LEAKS = 1
EXIT_UNKNOWN = 3
"""Not 2, by which click says that a command was called wrongly."""

_COLORS = {"clean": "green", "leaks": "red", "unknown": "yellow", "in time": "green", "late-informed": "yellow"}


@click.group()
def audit() -> None:
    """Questions about what is deployed, answered by trying."""


@audit.command()
@click.argument("views", nargs=-1)
@click.option(
    "--at",
    "instants",
    type=Instant(),
    multiple=True,
    metavar="INSTANT",
    help="Cut here, e.g. 2026-03-05T12:00+00:00 (repeatable). [default: at the stamps of sampled rows]",
)
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="How many partitions to sample per view, spread over the history of its sources.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample; the same seed, the same sample.")
@json_option
@click.pass_context
def leakage(
    context: click.Context,
    views: tuple[str, ...],
    *,
    instants: tuple[datetime, ...],
    partitions: int,
    seed: int,
    as_json: bool,
) -> None:
    """Rebuild rows of VIEWS (default: all) with the future cut from every source, and compare with full rebuilds.

    Per feature: "clean", "leaks" (a row used facts not knowable at its event_timestamp) or "unknown" (something could
    not be cut; what to declare is said). Apart from that: "late-informed", if a row used facts that had not arrived at
    event_timestamp + availability_delay, so that training sees what serving could not.

    Exit code 0: all clean; 1: something leaks; 3: nothing leaks, but something is unknown. Nothing is written.
    """
    from feature_platform.audit import Verdict, audit_view  # imports DuckDB; dbt follows

    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    reports: list[LeakageReport] = []
    for view in registry.views_named(views or registry.views):
        with _progress(quiet=as_json) as on_progress:
            report = audit_view(
                settings, view, instants=instants, partitions=partitions, seed=seed, on_progress=on_progress
            )
        reports.append(report)
        if not as_json:
            print_report(report)
    found = {report.verdict for report in reports}
    if as_json:
        print_json([_plain(report) for report in reports])
    context.exit(EXIT_LEAKS if Verdict.LEAKS in found else EXIT_UNKNOWN if Verdict.UNKNOWN in found else 0)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[OnProgress]:
    """A line on the terminal that says which partition is rebuilt; nothing where there is no terminal."""
    with progress_bars("{task.fields[doing]}", shown=not quiet) as bars:
        task = bars.add_task("", total=None, doing="starting dbt and DuckDB")

        def draw(progress: AuditProgress) -> None:
            bars.update(
                task, description=progress.view, completed=progress.done, total=progress.total, doing=progress.doing
            )

        yield draw


def print_report(report: LeakageReport) -> None:
    """One view's verdicts, then the rows that show each leak, then what would make the unknown known."""
    from rich.text import Text

    rows = max((feature.rows_compared for feature in report.features), default=0)
    click.echo()
    click.secho(f"{report.view}: {report.verdict}", fg=_COLORS[report.verdict], bold=True, nl=False)
    click.echo(f"  ({rows} rows at {len(report.instants)} instants, {report.seconds:.1f} s)")
    print_table(
        ("feature", "verdict", "arrival", "shown by", "through"),
        (
            (
                feature.feature,
                Text(feature.verdict, style=_COLORS[feature.verdict]),
                Text(feature.arrival, style=_COLORS[feature.arrival]),
                _shown_by(feature),
                ", ".join(dict.fromkeys((*feature.leaking_sources, *feature.late_sources))),
            )
            for feature in report.features
        ),
    )
    for feature in report.features:
        for example in feature.examples[:1]:
            click.echo(f"{feature.feature} leaks: {_sentence(example)}")
        for example in feature.late_examples[:1]:
            click.echo(f"{feature.feature} is late-informed: {_sentence(example)}")
    for unknown in _unknowns(report):
        click.echo(f"unknown: {unknown.reason}")
        click.echo(f"  next:    {unknown.remedy}")
    if report.untouched:
        click.echo(f"not tried: no row of {', '.join(report.untouched)} lies after any of the instants")


def _shown_by(feature: FeatureAudit) -> str:
    leaks = f"{feature.rows_leaking} of {feature.rows_compared} rows" if feature.rows_leaking else ""
    late = f"{feature.rows_late_informed} late" if feature.rows_late_informed else ""
    return ", ".join(filter(None, (leaks, late)))


def _sentence(example: Example) -> str:
    """One row for people.

    It says which row, where the sources were cut, and both values.
    """
    key = ", ".join(f"{name} {'NULL' if value is None else value}" for name, value in example.keys.items())
    values = " and ".join(
        f"{'NULL' if value is None else value} {side}"
        for value, side in ((example.with_later, "with"), (example.without_later, "without"))
    )
    row = values if example.exists == "always" else f"the row exists {example.exists}"
    cut = example.instant.isoformat().replace("+00:00", "Z")
    return f"{key} as of {example.event_timestamp}, cut at {cut}: {row}"


def _unknowns(report: LeakageReport) -> tuple[Unknown, ...]:
    found = [unknown for feature in report.features for unknown in (*feature.unknown, *feature.arrival_unknown)]
    return tuple(dict.fromkeys(found))


def _plain(report: LeakageReport) -> dict[str, Any]:
    """The report with the verdicts it amounts to, for JSON."""
    return {**dataclasses.asdict(report), "verdict": report.verdict, "arrival": report.arrival}
