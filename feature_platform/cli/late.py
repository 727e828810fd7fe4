"""`feature-platform late`: rows that arrived after the partitions that may read them were computed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import format_partitions, parse_partition_key
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.late_data import BatchDifference, LateReport
    from feature_platform.ledger import HeldBatch, Ledger


class LateGroup(click.Group):
    """Its first argument may be a view instead of a command: `late carrier_delays` is `late show carrier_delays`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take what names no command for views to show."""
        if args and self.get_command(ctx, args[0]) is None:
            return "show", self.get_command(ctx, "show"), args
        return super().resolve_command(ctx, args)


@click.group(cls=LateGroup, invoke_without_command=True, context_settings={"ignore_unknown_options": True})
@click.pass_context
def late(context: click.Context) -> None:
    """Rows that came too late: which partitions they concern, what is done about it, what it costs.

    Without a command, or with the names of views, it shows. What is done follows from `late_data` of each view:
    recompute publishes the partitions anew, version computes them and holds them for approval, ignore leaves them.
    """
    if context.invoked_subcommand is None:
        context.invoke(show)


@late.command()
@click.argument("views", nargs=-1)
@json_option
def show(views: tuple[str, ...] = (), *, as_json: bool = False) -> None:
    """Late partitions of VIEWS (default: all), by what is to happen with them. Nothing is run."""
    from feature_platform.late_data import preview
    from feature_platform.ledger import Ledger

    settings, registry = _deployed()
    chosen = registry.views_named(views) or None
    with Ledger.connect(settings.ledger_url) as ledger:
        report = preview(ledger, registry, chosen)
    if as_json:
        print_json(_plain(report))
    else:
        _print(report)


@late.command()
def look() -> None:
    """Look now for rows that arrived since the last look; in Dagster the sensor look_for_late_rows asks for it."""
    from feature_platform.lake import connect  # imports DuckDB
    from feature_platform.late_data import scan_all
    from feature_platform.ledger import Ledger

    settings, registry = _deployed()
    found = False
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings, read_only=True)) as lake:
        for scan in scan_all(ledger, lake, registry, run_id="feature-platform late look"):
            found = True
            late_rows = "; ".join(
                f"{one.row_count:,} too late for {len(one.partitions)} partition(s) of {one.view}" for one in scan.views
            )
            click.echo(f"{scan.source}: {scan.row_count:,} rows since the last look; {late_rows or 'none too late'}")
    if not found:
        click.echo("every source was looked at as far as it is loaded")


@late.command()
@click.argument("view")
@click.argument("partitions", nargs=-1)
@json_option
def diff(view: str, partitions: tuple[str, ...], *, as_json: bool) -> None:
    """What the held batches of VIEW would change, per partition: rows and features."""
    from feature_platform.lake import connect  # imports DuckDB
    from feature_platform.late_data import compare_batches
    from feature_platform.ledger import Ledger

    settings, registry = _deployed()
    declared = registry.view(view)
    with Ledger.connect(settings.ledger_url) as ledger:
        held = _waiting(ledger, declared, partitions)
        active = ledger.active_batches(declared.key)
    with closing(connect(settings, read_only=True)) as lake:
        found = compare_batches(lake, declared, active, [one.batch for one in held])
    if as_json:
        print_json([asdict(one) | {"partition": one.partition.key} for one in found])
        return
    print_table(("partition", "rows now", "rows then", "added", "removed", "changed", "features"), map(_row, found))
    click.echo(f"next: feature-platform late approve {declared.key}, or late reject {declared.key} --reason …")


@late.command()
@click.argument("view")
@click.argument("partitions", nargs=-1)
@json_option
def approve(view: str, partitions: tuple[str, ...], *, as_json: bool) -> None:
    """Publish the held batches of VIEW (default: all that wait), all or none, and bring them to the online store."""
    from feature_platform.ledger import Ledger

    settings, registry = _deployed()
    declared = registry.view(view)
    with Ledger.connect(settings.ledger_url) as ledger:
        published = ledger.approve(_waiting(ledger, declared, partitions))
    if not as_json:
        click.echo(f"{declared.key}: published {format_partitions(one.partition for one in published)}")
    entities = None
    if declared.is_served:
        from feature_platform.sync import sync  # imports DuckDB and pyarrow

        result = sync(settings, registry, declared, run_id="feature-platform late approve")
        entities = result.entities
        if not as_json:
            click.echo(
                f"{declared.key} in store {result.store}: {entities:,} entities, now at position {result.to_position}"
            )
    if as_json:
        print_json({"view": declared.key, "published": [one.partition.key for one in published], "entities": entities})


@late.command()
@click.argument("view")
@click.argument("partitions", nargs=-1)
@click.option("--reason", required=True, help="Why, for the record.")
@json_option
def reject(view: str, partitions: tuple[str, ...], *, reason: str, as_json: bool) -> None:
    """Never publish the held batches of VIEW (default: all that wait). The same late rows are not computed again."""
    from feature_platform.ledger import Ledger

    settings, registry = _deployed()
    declared = registry.view(view)
    with Ledger.connect(settings.ledger_url) as ledger:
        held = _waiting(ledger, declared, partitions)
        ledger.reject(held, reason=reason)
    if as_json:
        print_json({"view": declared.key, "rejected": [one.batch.partition.key for one in held]})
    else:
        click.echo(f"{declared.key}: rejected {format_partitions(one.batch.partition for one in held)}")


def _deployed() -> tuple[Settings, FeatureRegistry]:
    settings = Settings.from_env()
    return settings, load_registry(settings.manifest_path)


def _waiting(ledger: Ledger, view: FeatureView, partitions: Sequence[str]) -> tuple[HeldBatch, ...]:
    return ledger.waiting(view.key, [parse_partition_key(key, view.grain) for key in partitions])


def _row(one: BatchDifference) -> tuple[Any, ...]:
    features = ", ".join(f"{name} {count:,}" for name, count in one.features.items())
    counts = (one.rows_before, one.rows_after, one.added, one.removed, one.changed)
    return (one.partition.key, *(f"{count:,}" for count in counts), features)


def _print(report: LateReport) -> None:
    print_table(
        ("source", "looked at until", "rows", "overdue", "lag p50", "p99", "longest"),
        (
            (
                one.source,
                f"{one.scanned_through:%Y-%m-%d %H:%M}Z" if one.scanned_through else "never",
                f"{one.rows:,}",
                f"{one.overdue_rows:,}",
                *(
                    (format_duration(lag) for lag in (one.lags.p50, one.lags.p99, one.lags.longest))
                    if one.lags
                    else ("",) * 3
                ),
            )
            for one in report.sources
        ),
    )
    if report.not_looked_at:
        click.secho(
            f"not looked at: {', '.join(report.not_looked_at)}; rows would have to say when they became knowable and"
            " when they arrived (`event_time` and `loaded_at_field` of the source)",
            fg="yellow",
        )
    if not report.entries:
        click.echo("nothing is late")
    for entry in report.entries:
        click.echo()
        click.secho(f"{entry.view}: {len(entry.partitions)} partition(s) {entry.state}", bold=True, nl=False)
        click.echo(f"  (policy {entry.policy}, window {format_duration(entry.window)}; {entry.owner})")
        click.echo(f"  which:    {format_partitions(one.partition for one in entry.partitions)}")
        each = ", each counted in every partition" * (len(entry.partitions) > 1)
        click.echo(f"  missed:   {entry.late_rows:,} row(s){each}, up to {format_duration(entry.longest_lag)} late")
        click.echo(f"  cost:     {entry.compute_seconds:.1f} s, {entry.rows_to_compute:,} rows, as they took last time")
        click.echo(f"  read by:  {', '.join(entry.services) or 'no service'}")
        if entry.training_sets:
            click.echo(f"  kept sets made without the rows: {', '.join(entry.training_sets)}")
        click.echo(f"  next:     {entry.next_step}")


def _plain(report: LateReport) -> dict[str, Any]:
    return {
        "sources": [asdict(one) for one in report.sources],
        "not_looked_at": list(report.not_looked_at),
        "views": [
            {
                "view": entry.view,
                "owner": entry.owner,
                "policy": entry.policy,
                "window_seconds": entry.window.total_seconds(),
                "state": entry.state.value,
                "late_rows": entry.late_rows,
                "longest_lag_seconds": entry.longest_lag.total_seconds(),
                "compute_seconds": entry.compute_seconds,
                "rows_to_compute": entry.rows_to_compute,
                "services": list(entry.services),
                "training_sets": list(entry.training_sets),
                "next": entry.next_step,
                "partitions": [
                    {
                        "partition": one.partition.key,
                        "sources": list(one.sources),
                        "late_rows": one.row_count,
                        "oldest_event": one.oldest_event,
                        "last_arrival": one.last_arrival,
                    }
                    for one in entry.partitions
                ],
            }
            for entry in report.entries
        ],
    }
