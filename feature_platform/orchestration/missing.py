"""A sensor that asks for partitions which came due and were never begun, or whose runs were cut off.

Rule: level, not edge. Whatever kept a partition from being computed (an outage, a silent source, a machine that died),
the ledger has no batch of it that came to an end, and as long as that is so and its sources are there it is asked for
again, once an hour. Dagster makes up for the last missed tick of a schedule only, and gives a run three attempts.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from datetime import timedelta

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.windows import adjacent
from feature_platform.orchestration import keys
from feature_platform.orchestration.requests import assets_of, request_range
from feature_platform.orchestration.schedules import timetables
from feature_platform.orchestration.timetable import PARTITIONS_PER_RUN
from feature_platform.settings import Settings

SENSOR = "compute_missing_partitions"
ASKED_AFTER = timedelta(minutes=15)
"""Its schedule has asked for it, and that run has waited for its sources."""
_SECONDS_BETWEEN_LOOKS = 60


def build_missing_sensor(settings: Settings, registry: FeatureRegistry) -> dg.SensorDefinition:
    """A sensor that asks for runs of exactly the missing partitions, as ranges."""
    views = tuple(registry.views.values())

    @dg.sensor(
        name=SENSOR,
        asset_selection=dg.AssetSelection.assets(*assets_of(views)),
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for partitions that came due and that no run has begun, or whose runs were cut off; once"
        " their sources are there.",
    )
    def compute_missing(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # imported here: it loads psycopg2
        from feature_platform.ledger import Ledger
        from feature_platform.observability import cut_off_partitions, loaded_for, missing_partitions

        requests: list[dg.RunRequest] = []
        waiting: list[str] = []
        with Ledger.connect(settings.ledger_url) as ledger:
            now = ledger.now()
            found = [
                (view, missing)
                for view in views
                if (
                    missing := (
                        *missing_partitions(ledger, view, by=now - ASKED_AFTER),
                        *cut_off_partitions(ledger, view, now=now),
                    )
                )
            ]
            left = _left_alone(context.instance, registry) if found else {}
            for view, missing in found:
                if view.key in left:
                    waiting.append(f"{view.key}: {left[view.key]}")
                    continue
                loaded = loaded_for(ledger, view)
                ready = sorted((one for one in missing if one.end <= loaded), key=lambda one: one.start)
                if len(ready) < len(missing):
                    waiting.append(f"{view.key}: {len(missing) - len(ready)} partition(s) wait for their sources")
                # no other for the same range within the hour
                requests += [
                    request_range(view, span, run_key=f"{now:%Y-%m-%dT%H}")
                    for span in adjacent(ready, at_most=PARTITIONS_PER_RUN[view.grain])
                ]
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason("; ".join(waiting) or "nothing that came due is missing")

    return compute_missing


def _left_alone(instance: dg.DagsterInstance, registry: FeatureRegistry) -> dict[str, str]:
    """Views of which nothing is asked for now, and why: somebody is at it, or wants it so."""
    left: dict[str, str] = {}
    switched_off = {state.instigator_name for state in instance.all_instigator_state() if not state.is_running}
    by_job = {table.name: table.views for table in timetables(registry)}
    for name, views in by_job.items():
        if name in switched_off:
            left |= {view.key: f"its schedule {name} is switched off" for view in views}
    by_asset = keys.views_by_key(registry.views.values())
    for record in instance.get_run_records(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        run = record.dagster_run
        if run.asset_selection is None:
            chosen = by_job.get(run.job_name, ())
        else:
            chosen = tuple(by_asset[key] for key in run.asset_selection if key in by_asset)
        left |= {view.key: f"run {run.run_id[:8]} of it is not over" for view in chosen}
    for backfill in instance.get_backfills(
        filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING])
    ):
        for key in backfill.asset_selection or ():
            if key in by_asset:
                left[by_asset[key].key] = f"backfill {backfill.backfill_id} of it is not over"
    return left
