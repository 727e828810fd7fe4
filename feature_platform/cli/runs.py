"""`materialize` and `backfill`: runs through Dagster, shown here while they last and in the UI for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.dagster_client import BackfillProgress, DagsterClient
from feature_platform.cli.following import follow_backfill, follow_run, left_running
from feature_platform.cli.output import json_option, print_json
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Grain, Partition, adjacent, parse_partition_key, partitions_between
from feature_platform.errors import RequestError, UnknownNameError
from feature_platform.orchestration import names
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.ledger import BatchHistory

_BY_HAND = {"feature_platform/launched_by": "command line", "dagster/priority": "5"}
_LONGEST_TITLE = 100  # Dagster takes no longer one
_EXAMPLE = "`2026-03-01`, or for hours `2026-03-01-13:00`"


@click.command()
@click.argument("view")
@click.option("--partition", required=True, metavar="KEY", help="Partition key: its start, e.g. 2026-03-01.")
@click.option("--wait/--no-wait", default=True, help="Stay until the run is over.")
@json_option
def materialize(view: str, partition: str, *, wait: bool, as_json: bool) -> None:
    """Compute, audit, publish and serve one partition of VIEW, as one run of Dagster."""
    settings = Settings.from_env()
    declared = load_registry(settings.manifest_path).view(view)
    wanted = parse_partition_key(partition, declared.grain)
    client = DagsterClient.running()
    run_id = client.launch_run(_assets(declared), tags=_BY_HAND | {"dagster/partition": wanted.key})
    if not as_json:
        click.echo(f"{declared.key} {wanted.key}: {client.run_url(run_id)}")
    if not wait:
        if as_json:
            print_json({"run_id": run_id, "url": client.run_url(run_id)})
        return
    with left_running(f"The run goes on: {client.run_url(run_id)}"):
        status = follow_run(client, run_id, say=_ignore if as_json else click.echo)
    batches = _batches_of(settings, declared, run_id)
    reasons = client.run_failures(run_id) if status != "SUCCESS" else ()
    if as_json:
        print_json({"run_id": run_id, "status": status, "batches": list(map(_summary, batches)), "failures": reasons})
    else:
        for batch in batches:
            click.echo(_sentence(batch))
        for reason in reasons:
            click.secho(reason, fg="red", err=True)
    if status != "SUCCESS":
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("views", nargs=-1)
@click.option("--from", "first", metavar="DATE", help="First partition: a date, or a partition key.")
@click.option("--to", "last", metavar="DATE", help="Last partition (included). [default: the newest that is due]")
@click.option("--all", "everything", is_flag=True, help="From the beginning of each view; without VIEWS, all views.")
@click.option("--missing", is_flag=True, help="Only partitions that were never published.")
@click.option("--wait/--no-wait", default=True, help="Stay until the backfill is over.")
@click.option("--cancel", metavar="ID", help="Cancel a backfill instead of starting one.")
@json_option
def backfill(
    views: tuple[str, ...],
    *,
    first: str | None,
    last: str | None,
    everything: bool,
    missing: bool,
    wait: bool,
    cancel: str | None,
    as_json: bool,
) -> None:
    """Compute, audit, publish and serve a range of partitions of VIEWS, as one backfill of Dagster."""
    if cancel is not None:
        DagsterClient.running().cancel_backfill(cancel)
        click.echo(f"cancelled: {cancel}")
        return
    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    chosen = _choose(registry, views, everything=everything)
    if not (first or everything):
        raise click.UsageError("say where to begin: --from DATE, or --all")
    plans = [plan_backfill(view, first=first, last=last, now=datetime.now(UTC)) for view in chosen]
    if missing:
        plans = [without_published(settings, plan) for plan in plans]
    plans = [plan for plan in plans if plan.partitions]
    if not plans:
        _nothing_to_do(as_json=as_json)
        return
    client = DagsterClient.running()
    backfill_id = client.launch_backfill(asset_ranges(plans), title=title_of(plans), tags=_BY_HAND)
    if not as_json:
        click.echo(f"{title_of(plans)}: {client.backfill_url(backfill_id)}")
    if not wait:
        if as_json:
            print_json({"backfill_id": backfill_id, "url": client.backfill_url(backfill_id)})
        return
    notice = (
        f"The backfill goes on: {client.backfill_url(backfill_id)}\n"
        f"Cancel it with `feature-platform backfill --cancel {backfill_id}`."
    )
    with left_running(notice):
        over = follow_backfill(client, backfill_id, quiet=as_json)
    _report(client, backfill_id, over, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillPlan:
    """What to compute of one view."""

    view: FeatureView
    partitions: tuple[Partition, ...]

    @property
    def ranges(self) -> list[tuple[str, str]]:
        """Runs of adjacent partitions, by the keys of their ends."""
        return [(span[0].key, span[-1].key) for span in adjacent(self.partitions)]


def plan_backfill(view: FeatureView, *, first: str | None, last: str | None, now: datetime) -> BackfillPlan:
    """The partitions of a view from `first` to `last` that are due."""
    begin = max(view.begin, _bound(first, view.grain)[0]) if first else view.begin
    due = now - view.availability_delay
    end = min(due, _bound(last, view.grain)[1]) if last else due
    return BackfillPlan(view=view, partitions=tuple(partitions_between(begin, end, view.grain)))


def _bound(text: str, grain: Grain) -> tuple[datetime, datetime]:
    """The instants at which a date, or a partition's key, begins and ends."""
    try:
        day = datetime.combine(date.fromisoformat(text), datetime.min.time(), tzinfo=UTC)
    except ValueError:
        try:
            partition = parse_partition_key(text, grain)
        except UnknownNameError as error:
            raise RequestError(f"{text!r} is no date", allowed=_EXAMPLE) from error
        return partition.start, partition.end
    if grain is Grain.MONTH:
        month = next(partitions_between(day.replace(day=1), day + timedelta(days=62), grain))
        return month.start, month.end
    return day, day + timedelta(days=1)


def without_published(settings: Settings, plan: BackfillPlan) -> BackfillPlan:
    """The plan less the partitions that are published already."""
    from feature_platform.ledger import Ledger  # psycopg2

    with Ledger.connect(settings.ledger_url) as ledger:
        there = {batch.partition for batch in ledger.active_batches(plan.view.key)}
    return BackfillPlan(view=plan.view, partitions=tuple(one for one in plan.partitions if one not in there))


def _choose(registry: FeatureRegistry, references: Sequence[str], *, everything: bool) -> tuple[FeatureView, ...]:
    if references:
        return registry.views_named(references)
    if not everything:
        raise click.UsageError("name the views, or say --all")
    return tuple(registry.views.values())


def _assets(view: FeatureView) -> list[list[str]]:
    served = [names.online_path(view)] if view.is_served else []
    return [names.view_path(view), *served]


def asset_ranges(plans: Sequence[BackfillPlan]) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Per asset the ranges of partition keys; the online assets, which have none, ride along."""
    ranges: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for plan in plans:
        computed, *served = _assets(plan.view)
        ranges[tuple(computed)] = plan.ranges
        ranges |= {tuple(path): [] for path in served}
    return ranges


def title_of(plans: Sequence[BackfillPlan]) -> str:
    """What the UI calls a backfill."""
    partitions = f"{sum(len(plan.partitions) for plan in plans)} partitions"
    title = f"Backfill of {', '.join(plan.view.key for plan in plans)}: {partitions}"
    return title if len(title) <= _LONGEST_TITLE else f"Backfill of {len(plans)} views: {partitions}"


def _nothing_to_do(*, as_json: bool) -> None:
    if as_json:
        print_json({"backfill_id": None, "partitions": 0})
    else:
        click.echo("nothing to do: no partition of that range is due, or (with --missing) all of them are published")


def _report(client: DagsterClient, backfill_id: str, progress: BackfillProgress, *, as_json: bool) -> None:
    reasons = [] if progress.succeeded else list(client.backfill_failures(progress))
    if as_json:
        print_json(
            {
                "backfill_id": backfill_id,
                "status": progress.status,
                "assets": list(progress.assets),
                "runs": dict(progress.runs),
                "failures": reasons,
            }
        )
    else:
        for reason in reasons:
            click.secho(reason, fg="red", err=True)
        click.echo(f"{progress.status.lower()}: {len(progress.runs)} run(s)")
    if not progress.succeeded:
        raise click.exceptions.Exit(1)


def _batches_of(settings: Settings, view: FeatureView, run_id: str) -> tuple[BatchHistory, ...]:
    from feature_platform.ledger import Ledger  # psycopg2

    with Ledger.connect(settings.ledger_url) as ledger:
        return ledger.batches(view.key, run_id=run_id)


def _summary(batch: BatchHistory) -> dict[str, Any]:
    return {
        "batch_id": batch.batch.batch_id,
        "partition": batch.batch.partition.key,
        "state": batch.state,
        "rows": batch.row_count,
        "published_at": batch.published_at,
        "position": batch.position,
        "failure": batch.failure,
    }


def _sentence(batch: BatchHistory) -> str:
    if batch.published_at is None:
        return f"{batch.batch.partition.key}: {batch.state}, not published"
    lag = format_duration(batch.published_at - batch.batch.partition.end)
    return f"{batch.batch.partition.key}: {batch.row_count} rows published, {lag} after the partition's end"


def _ignore(line: str) -> None:
    """Say nothing."""
