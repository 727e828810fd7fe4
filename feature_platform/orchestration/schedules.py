"""Jobs and schedules: views of one grain and one availability delay share a run, which starts when they are due.

Rule: a tick asks for the partition that just became due, by the tick's own time and not by the wall clock, so a late
or repeated evaluation asks for the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.due import due_partition
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Grain
from feature_platform.orchestration import keys, timetable
from feature_platform.orchestration.requests import assets_of

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


def _build_schedule(table: Timetable) -> dg.ScheduleDefinition:
    job = dg.define_asset_job(
        table.name,
        selection=dg.AssetSelection.assets(*assets_of(table.views)),
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
        partition = due_partition(at, table.grain, table.delay)
        views = [view for view in table.views if view.begin <= partition.start]
        if not views:
            yield dg.SkipReason(f"no view begins by {partition.start.isoformat()}")
            return
        yield dg.RunRequest(
            run_key=f"{table.name}:{partition.key}", partition_key=partition.key, asset_selection=assets_of(views)
        )

    return due
