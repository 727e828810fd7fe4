"""Late data in Dagster: a job that looks for late rows, and two sensors; one asks for looks, one for recomputations.

Rule: level, not edge. A sensor asks the ledger what is late now, and a run key names exactly that, so the same rows are
asked for once, however often it looks and whatever it forgets. Recomputations stand behind production in the queue.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.late_data import Lags, LateScan, LateState, LateView
from feature_platform.domain.windows import adjacent
from feature_platform.orchestration import keys
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.orchestration.requests import assets_of, request_range
from feature_platform.orchestration.timetable import PARTITIONS_PER_RUN
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.late_data import LateEntry

JOB = "look_for_late_rows"
LOOK_SENSOR = "look_for_late_rows"
RECOMPUTE_SENSOR = "recompute_late_partitions"
_SECONDS_BETWEEN_LOOKS = 60


def build_look_job(settings: Settings, registry: FeatureRegistry) -> dg.JobDefinition:
    """The job that reads what arrived since the last look; sources' and views' pages show how late it was."""

    @dg.op(
        pool=keys.LAKE_POOL, description="Rows that arrived since the last look, mapped to the partitions they missed."
    )
    def look_for_late(context: dg.OpExecutionContext) -> None:
        # imported here: it loads DuckDB, which definitions do not need
        from feature_platform.lake import connect
        from feature_platform.late_data import scan_all
        from feature_platform.ledger import Ledger

        sources = {source.name: source for source in registry.sources.values()}
        with (
            dagster_failures(),
            Ledger.connect(settings.ledger_url) as ledger,
            closing(connect(settings, read_only=True)) as lake,
        ):
            for scan in scan_all(ledger, lake, registry, run_id=context.run_id):
                context.log.info(said_of(scan))
                for observation in observations(scan, sources[scan.source], registry):
                    context.log_event(observation)

    @dg.job(
        name=JOB,
        tags={keys.PRIORITY_TAG: keys.SCHEDULED_PRIORITY},
        description="Looks for source rows that came too late for partitions that are computed already.",
        executor_def=dg.in_process_executor,
    )
    def look() -> None:
        look_for_late()

    return look


def build_look_sensor(settings: Settings, registry: FeatureRegistry, job: dg.JobDefinition) -> dg.SensorDefinition:
    """A sensor that asks for a look when a source was loaded further than the last look went."""

    @dg.sensor(
        name=LOOK_SENSOR,
        job=job,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a look at rows that arrived since the last one.",
    )
    def look() -> dg.RunRequest | dg.SkipReason:
        # imported here: it loads psycopg2
        from feature_platform.late_data import sources_behind
        from feature_platform.ledger import Ledger

        with Ledger.connect(settings.ledger_url) as ledger:
            behind = sources_behind(ledger, registry)
        if not behind:
            return dg.SkipReason("every source was looked at as far as it is loaded")
        return dg.RunRequest(run_key=" ".join(f"{name}:{at.isoformat()}" for name, at in sorted(behind.items())))

    return look


def build_recompute_sensor(settings: Settings, registry: FeatureRegistry) -> dg.SensorDefinition:
    """A sensor that asks for runs of exactly the late partitions, as ranges, by each view's policy."""
    views = tuple(registry.views.values())

    @dg.sensor(
        name=RECOMPUTE_SENSOR,
        asset_selection=dg.AssetSelection.assets(*assets_of(views)),
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for the partitions that late rows concern, by the policy of their view.",
    )
    def recompute() -> dg.SensorResult | dg.SkipReason:
        # imported here: it loads psycopg2
        from feature_platform.late_data import preview
        from feature_platform.ledger import Ledger

        with Ledger.connect(settings.ledger_url) as ledger:
            report = preview(ledger, registry)
        due = [entry for entry in report.entries if entry.state is LateState.DUE]
        requests = [request for entry in due for request in run_requests(registry.views[entry.view], entry)]
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("no partition is to be recomputed")

    return recompute


def run_requests(view: FeatureView, entry: "LateEntry") -> Iterator[dg.RunRequest]:
    """One run per unbroken range of late partitions."""
    found = {late.partition: late.found_seq for late in entry.partitions}
    for span in adjacent(found, at_most=PARTITIONS_PER_RUN[view.grain]):
        newest = max(found[partition] for partition in span)
        yield request_range(view, span, run_key=str(newest), late_rows=True)


def observations(scan: LateScan, source: Source, registry: FeatureRegistry) -> Iterator[dg.AssetObservation]:
    """What the UI plots on the pages of the source and of the views that missed rows."""
    yield dg.AssetObservation(
        keys.source_key(source),
        metadata={
            "rows_arrived": scan.row_count,
            "rows_overdue": scan.overdue_rows,
            **_lag_metadata("arrival", scan.lags),
            "looked_through": dg.MetadataValue.timestamp(scan.arrived_through),
            "look_seconds": scan.seconds,
        },
    )
    for one in scan.views:
        yield dg.AssetObservation(keys.view_key(registry.views[one.view]), metadata=_view_metadata(scan, one))


def _view_metadata(scan: LateScan, found: LateView) -> dict[str, Any]:
    return {
        "late_rows": found.row_count,
        "late_partitions": len(found.partitions),
        **_lag_metadata("late", found.lags),
        "late_source": scan.source,
        "oldest_late_event": dg.MetadataValue.timestamp(min(one.oldest_event for one in found.partitions)),
        "next": f"feature-platform late {found.view}",
    }


def _lag_metadata(what: str, lags: Lags | None) -> dict[str, float]:
    if lags is None:
        return {}
    quantiles = {"p50": lags.p50, "p90": lags.p90, "p99": lags.p99, "max": lags.longest}
    return {f"{what}_lag_{name}_seconds": lag.total_seconds() for name, lag in quantiles.items()}


def said_of(scan: LateScan) -> str:
    """One line for people."""
    found = "; ".join(f"{one.row_count:,} came too late for {len(one.partitions)} of {one.view}" for one in scan.views)
    until = scan.arrived_through.isoformat()
    return f"{scan.source}: {scan.row_count:,} rows arrived until {until}; {found or 'none late'}"
