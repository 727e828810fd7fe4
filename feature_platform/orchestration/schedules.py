"""Jobs and schedules: views of one grain and one availability delay share a run, which starts when they are due.

Rule: a tick asks for the partition that just became due, by the tick's own time and not by the wall clock, so a late
or repeated evaluation asks for the same. And for those between the last one that the schedule had asked for and this
one: after an outage, or when it is switched on again, Dagster makes up for the last tick only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView, OnlineTier
from feature_platform.domain.windows import Grain, Partition, parse_partition_key, partitions_between
from feature_platform.orchestration import keys, timetable

CATCH_UP = {Grain.HOUR: 72, Grain.DAY: 31, Grain.MONTH: 6}
"""So many missed partitions a tick asks for; a longer outage is better made up for by one backfill."""
_SCHEDULE_TAG, _PARTITION_TAG = "dagster/schedule_name", "dagster/partition"
_RECENT = 20
"""Runs among which the newest partition that was asked for is: runs repeated later are for older ones."""
_ADVERBS = {Grain.HOUR: "hourly", Grain.DAY: "daily", Grain.MONTH: "monthly"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """Views that become due at the same instants."""

    grain: Grain
    delay: timedelta
    begin: datetime
    views: tuple[FeatureView, ...]

    @property
    def name(self) -> str:
        """Name of the job: `daily_features_after_90_min`."""
        return f"{_ADVERBS[self.grain]}_features_after_{-(-self.delay // timedelta(minutes=1))}_min"


def timetables(registry: FeatureRegistry) -> tuple[Timetable, ...]:
    """All views, by what one run may compute together: same grain, delay and first partition."""
    together: defaultdict[tuple[Grain, timedelta], list[FeatureView]] = defaultdict(list)
    for view in registry.views.values():
        together[view.grain, view.availability_delay].append(view)
    found = []
    for (grain, delay), views in sorted(together.items()):
        begins = {view.begin for view in views}
        found.append(Timetable(grain=grain, delay=delay, begin=min(begins), views=tuple(views)))
    return tuple(found)


def build_schedules(registry: FeatureRegistry) -> tuple[dg.ScheduleDefinition, ...]:
    """One schedule with its job per timetable; on by default."""
    return tuple(_build_schedule(timetable) for timetable in timetables(registry))


def _selection(views: Sequence[FeatureView]) -> list[dg.AssetKey]:
    online = [keys.online_key(view) for view in views if view.online is OnlineTier.VALKEY]
    return [*(keys.view_key(view) for view in views), *online]


def _build_schedule(table: Timetable) -> dg.ScheduleDefinition:
    job = dg.define_asset_job(
        table.name,
        selection=dg.AssetSelection.assets(*_selection(table.views)),
        tags={keys.PRIORITY_TAG: keys.SCHEDULED_PRIORITY},
        description=f"Computes, audits, publishes and serves: {', '.join(view.key for view in table.views)}.",
    )

    @dg.schedule(
        name=table.name,
        job=job,
        cron_schedule=timetable.cron_line(table.grain, table.delay),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"The {table.grain.value} that just ended, {table.delay} after its end.",
    )
    def due(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        at = context.scheduled_execution_time.astimezone(UTC)
        partition = timetable.due_partition(at, table.grain, table.delay)
        if not any(view.begin <= partition.start for view in table.views):
            yield dg.SkipReason(f"no view begins by {partition.start.isoformat()}")
            return
        missed = missed_partitions(context.instance, table, partition)
        if len(missed) > CATCH_UP[table.grain]:
            context.log.warning(
                f"{len(missed)} partitions were missed since {missed[0].key}; the newest {CATCH_UP[table.grain]} are"
                " asked for now, for the others run `feature-platform backfill --all --missing`"
            )
        for one in (*missed[-CATCH_UP[table.grain] :], partition):
            views = [view for view in table.views if view.begin <= one.start]
            yield dg.RunRequest(
                run_key=f"{table.name}:{one.key}",
                partition_key=one.key,
                asset_selection=_selection(views),
                # what is due now does not wait for what was missed
                tags={} if one == partition else {keys.PRIORITY_TAG: keys.LATE_PRIORITY},
            )

    return due


def missed_partitions(instance: dg.DagsterInstance, table: Timetable, due: Partition) -> tuple[Partition, ...]:
    """What lies between the newest partition that the schedule asked for and the one that is due, oldest first.

    Empty if the schedule never asked for any: what is older than it is a backfill's. Without those that somebody has
    computed meanwhile.
    """
    records = instance.get_run_records(dg.RunsFilter(tags={_SCHEDULE_TAG: table.name}), limit=_RECENT)
    asked = [key for record in records if (key := record.dagster_run.tags.get(_PARTITION_TAG))]
    if not asked:
        return ()
    # keys of one grain are in the order of time
    newest = parse_partition_key(max(asked), table.grain)
    missed = [
        one
        for one in partitions_between(newest.end, due.start, table.grain)
        if any(view.begin <= one.start for view in table.views)
    ]
    if not missed:
        return ()
    computed = [instance.get_materialized_partitions(keys.view_key(view)) for view in table.views]
    return tuple(one for one in missed if not all(one.key in keys_of for keys_of in computed))
