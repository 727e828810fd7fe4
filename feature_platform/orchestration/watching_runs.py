"""Runs that failed and left something missing, and runs that do not get on: as problems, for the watch.

Rule: level, not edge. A failed run is a problem as long as something it was to make is missing, whoever makes it in the
end; how often it was tried does not matter. What the ledger says of a view's batches is told by the ledger's own
kinds, once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView
from feature_platform.orchestration import keys
from feature_platform.orchestration.reasons import one_line, reason
from feature_platform.orchestration.requests import RANGE_TAGS

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger
    from feature_platform.observability import Problem

LOOKED_BACK = timedelta(days=7)
"""What failed longer ago, and nobody missed, nobody will."""
STUCK_AFTER = timedelta(hours=1)
"""Without a word. Loads, syncs and checks report as they go; one dbt model takes minutes."""
QUEUED_AFTER = timedelta(minutes=15)
"""With no run in progress: who should start the queued ones does not."""
_MOST_RUNS = 50
_MOST_FAILED = 2_000
"""Of one thing that fails all the time; it must not push another that failed once out of sight."""
RETRIED_WITHIN = timedelta(minutes=10)
"""Dagster tries once to make the run that tries again; if the code server is away then, there will be none."""
_WILL_RETRY = "dagster/will_retry"
_RETRIED_AS = "dagster/auto_retry_run_id"
_BACKFILL = "dagster/backfill"
_PARTITION_TAGS = ("dagster/partition", *RANGE_TAGS)
_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """What a run was to make of one asset."""

    asset: dg.AssetKey
    partitions: tuple[str, ...]
    """None of them for an asset without partitions."""
    storage_id: int


class Settled:
    """Partitions of views that are accounted for; the ledger is asked once for each view, however many runs failed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, tuple[set[str], dict[str, datetime]]] = {}

    def since(self, view: FeatureView, instant: datetime) -> set[str]:
        """Those published since, and those of which the ledger's own kinds tell: a batch failed, or is held."""
        if view.key not in self._known:
            told = {history.batch.partition.key for history in self._ledger.failing(view.key)}
            told |= {one.batch.partition.key for one in self._ledger.held(view.key)}
            published = {one.partition.key: one.published_at for one in self._ledger.active_batches(view.key)}
            self._known[view.key] = told, published
        told, published = self._known[view.key]
        return told | {key for key, at in published.items() if at > instant}


def find_failed_runs(
    instance: dg.DagsterInstance, ledger: Ledger, registry: FeatureRegistry, *, now: datetime
) -> Iterator[Problem]:
    """Runs that failed for good and whose assets are still missing, one problem per view or asset."""
    from feature_platform.observability import problem_of_platform, problem_of_view

    failed = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - LOOKED_BACK), limit=_MOST_FAILED
    )
    attempts: defaultdict[object, list[dg.RunRecord]] = defaultdict(list)
    for record in failed:  # newest first
        if not _is_tried_again(record, now=now):
            attempts[_what(record)].append(record)
    missing: defaultdict[tuple[str, str], list[dg.RunRecord]] = defaultdict(list)
    views = _views_by_asset(registry)
    settled = Settled(ledger)
    for records in attempts.values():
        # what is made since the last attempt is made since those before it
        for subject in _left_undone(instance, settled, registry, records[0]):
            # history that somebody wants is another matter than what is due now, and hides nothing of it
            backfill = records[0].dagster_run.tags.get(_BACKFILL, "") if subject in registry.views else ""
            missing[subject, backfill] += records
    for (subject, backfill), records in missing.items():
        newest = records[0]
        said = (
            f"{len(records)} run(s) failed, the last one {newest.dagster_run.run_id[:8]} of {_job(newest)}:"
            f" {_reason(instance, newest)}"
        )
        view = views.get(subject)
        if view is not None:
            place = f"runs of backfill {backfill}" if backfill else "" if subject == view.key else f"asset {subject}"
            yield problem_of_view(
                "run_failed", view, registry, place=place, severity="error", message=f"{subject}: {said}"
            )
        else:
            yield problem_of_platform("run_failed", subject, registry, severity="error", message=f"{subject}: {said}")


def find_stuck_runs(instance: dg.DagsterInstance, registry: FeatureRegistry, *, now: datetime) -> Iterator[Problem]:
    """Runs in progress that have said nothing for long, and a queue that nobody takes runs from."""
    from feature_platform.observability import problem_of_platform

    in_progress = instance.get_run_records(dg.RunsFilter(statuses=_IN_PROGRESS), limit=_MOST_RUNS)
    for record in in_progress:
        silent = now - _last_word(instance, record)
        if silent > STUCK_AFTER:
            run_id = record.dagster_run.run_id
            yield problem_of_platform(
                "run_stuck",
                f"run {run_id}",
                registry,
                severity="error",
                message=f"run {run_id[:8]} of {_job(record)} is in progress and has said nothing for"
                f" {format_duration(silent)}",
            )
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED]), limit=_MOST_RUNS):
        waited = now - record.create_timestamp
        if waited > STUCK_AFTER:  # who made it died before it was queued: nobody will
            run_id = record.dagster_run.run_id
            yield problem_of_platform(
                "run_stuck",
                f"run {run_id}",
                registry,
                severity="error",
                message=f"run {run_id[:8]} of {_job(record)} was made {format_duration(waited)} ago and never queued;"
                " nothing else is asked for of its views as long as it is there: delete it",
            )
    queued = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=1, order_by="create_timestamp", ascending=True
    )
    waiting = now - queued[0].create_timestamp if queued else timedelta(0)
    if waiting > QUEUED_AFTER and not in_progress:
        yield problem_of_platform(
            "run_stuck",
            "queue",
            registry,
            severity="error",
            message=f"runs are queued for {format_duration(waiting)} and none is in progress",
        )


def _left_undone(
    instance: dg.DagsterInstance, settled: Settled, registry: FeatureRegistry, record: dg.RunRecord
) -> Iterator[str]:
    """What a failed run was to make and nothing has made since: views by their key, other assets, or the job."""
    planned = _planned(instance, record)
    if not planned:
        again = dg.RunsFilter(
            job_name=record.dagster_run.job_name,
            statuses=[dg.DagsterRunStatus.SUCCESS],
            created_after=record.create_timestamp,
        )
        if not instance.get_run_records(again, limit=1):
            yield record.dagster_run.job_name
        return
    views = keys.views_by_key(registry.views.values())
    served = {keys.online_key(view) for view in registry.served_views}
    found: dict[str, None] = {}
    for one in planned:
        if one.asset in views:
            view = views[one.asset]
            if set(one.partitions) - settled.since(view, record.create_timestamp):
                found[view.key] = None
        elif one.asset in served:
            continue  # whether a store is behind, the ledger says
        elif not _is_made_since(instance, one):
            found[one.asset.to_user_string()] = None
    yield from found


def _what(record: dg.RunRecord) -> object:
    """What a run was asked for; runs of which it is the same are attempts at one thing."""
    run = record.dagster_run
    parts = (run.asset_selection, run.asset_check_selection, run.resolved_op_selection, run.step_keys_to_execute)
    return (
        run.job_name,
        run.tags.get(_BACKFILL),
        *(frozenset(part or ()) for part in parts),
        *map(run.tags.get, _PARTITION_TAGS),
    )


def _is_tried_again(record: dg.RunRecord, *, now: datetime) -> bool:
    """Whether another run goes on with what this one was to make: that one is judged, when it ends."""
    tags = record.dagster_run.tags
    if tags.get(_WILL_RETRY) != "true":
        return False
    return _RETRIED_AS in tags or now - record.update_timestamp < RETRIED_WITHIN


def _planned(instance: dg.DagsterInstance, record: dg.RunRecord) -> list[_Planned]:
    events = instance.get_records_for_run(
        record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    ).records
    planned = []
    for event in events:
        data: Any = event.event_log_entry.get_dagster_event().event_specific_data
        if data.partitions_subset is not None:
            partitions = tuple(data.partitions_subset.get_partition_keys())
        else:
            partitions = (data.partition,) if data.partition is not None else ()
        planned.append(_Planned(asset=data.asset_key, partitions=partitions, storage_id=event.storage_id))
    return planned


def _is_made_since(instance: dg.DagsterInstance, planned: _Planned) -> bool:
    wanted = max(len(planned.partitions), 1)
    made = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=planned.asset,
            asset_partitions=planned.partitions or None,
            after_storage_id=planned.storage_id,
        ),
        limit=4 * wanted,
    ).records
    return len({record.partition_key for record in made}) >= wanted


def _views_by_asset(registry: FeatureRegistry) -> dict[str, FeatureView]:
    """Views by their key, and by the assets that hang on them alone."""
    found = {}
    for view in registry.views.values():
        found[view.key] = view
        for key in (keys.audit_key(view), keys.parity_key(view), keys.pushed_key(view)):
            found[key.to_user_string()] = view
    return found


def _job(record: dg.RunRecord) -> str:
    run = record.dagster_run
    partition = run.tags.get("dagster/partition")
    name = "chosen assets" if run.job_name.startswith("__") else run.job_name
    return f"{name} for {partition}" if partition else name


def _reason(instance: dg.DagsterInstance, record: dg.RunRecord) -> str:
    """The first line that says why a run failed."""
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        events = instance.get_records_for_run(record.dagster_run.run_id, of_type=kind, limit=1).records
        for event in events:
            happened = event.event_log_entry.get_dagster_event()
            error = getattr(happened.event_specific_data, "error", None)
            return reason(error) if error else one_line(happened.message)
    return one_line(None)


def _last_word(instance: dg.DagsterInstance, record: dg.RunRecord) -> datetime:
    events = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    said = datetime.fromtimestamp(events[0].timestamp, tz=record.create_timestamp.tzinfo) if events else None
    return max(filter(None, (record.create_timestamp, said)))
