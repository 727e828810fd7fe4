"""Schedules and sensors that are declared to run and do not: switched off, silent, or failing. As problems.

Rule: what the code declares is compared with what the daemon says it does. After a pause of the watch itself nothing is
said of silence: the daemon that was away needs its first round, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.durations import format_duration
from feature_platform.orchestration.reasons import reason

if TYPE_CHECKING:
    from feature_platform.observability import Problem

INTERVALS = 3
"""So many may pass without a tick."""
PATIENCE = timedelta(minutes=10)
"""A round of the daemon may take longer than a sensor's interval."""
FAILED_TICKS = 3
"""In a row, before a sensor is said to fail: it tries again by itself within a minute."""
_ENDED = [TickStatus.SKIPPED, TickStatus.SUCCESS, TickStatus.FAILURE]
"""One that is under way says nothing yet: what failed before it has not got well by its beginning."""
_CRON_HISTORY = timedelta(days=200)


def find_dead_automation(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    registry: FeatureRegistry,
    *,
    now: datetime,
    itself: str,
) -> Iterator[Problem]:
    """Everything of a repository that is declared to run by default and does not.

    Args:
        instance: who knows what the daemon does.
        repository: what is declared.
        registry: whose people are told.
        now: the instant to judge by.
        itself: the sensor that asks, which runs.
    """
    from feature_platform.observability import problem_of_platform

    states = {
        state.instigator_name: state
        for state in instance.all_instigator_state()
        if state.origin.repository_origin.repository_name == repository.name
    }
    for what, name, is_dead in (
        *(
            ("schedule", one.name, _schedule(instance, one, states.get(one.name), now))
            for one in _schedules(repository)
        ),
        *(("sensor", one.name, _sensor(instance, one, states.get(one.name), now)) for one in _sensors(repository)),
    ):
        if is_dead and name != itself:
            yield problem_of_platform(
                "automation", f"{what} {name}", registry, severity="error", message=f"{what} {name} {is_dead}"
            )


def _schedules(repository: dg.RepositoryDefinition) -> list[dg.ScheduleDefinition]:
    return [one for one in repository.schedule_defs if one.default_status is dg.DefaultScheduleStatus.RUNNING]


def _sensors(repository: dg.RepositoryDefinition) -> list[dg.SensorDefinition]:
    return [one for one in repository.sensor_defs if one.default_status is dg.DefaultSensorStatus.RUNNING]


def _schedule(instance: dg.DagsterInstance, schedule: dg.ScheduleDefinition, state: Any, now: datetime) -> str:
    """What is wrong with a schedule; empty if nothing is."""
    if state is None:
        return "was never seen by the daemon"
    if not state.is_running:
        return _SWITCHED_OFF
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1, statuses=_ENDED)
    if ticks and ticks[0].is_failure:
        return f"fails: {reason(ticks[0].error)}"
    lines = [schedule.cron_schedule] if isinstance(schedule.cron_schedule, str) else [*schedule.cron_schedule]
    expected = max(_ticks_ago(line, schedule.execution_timezone or "UTC", now, INTERVALS) for line in lines)
    began = getattr(state.instigator_data, "start_timestamp", None)
    last = max((ticks[0].timestamp if ticks else 0.0), began or 0.0)
    if last and _instant(last) < expected:
        return f"has not ticked since {_instant(last).isoformat(timespec='minutes')}, for {INTERVALS} of its intervals"
    return ""


def _sensor(instance: dg.DagsterInstance, sensor: dg.SensorDefinition, state: Any, now: datetime) -> str:
    """What is wrong with a sensor; empty if nothing is."""
    if state is None:
        return "was never seen by the daemon"
    if not state.is_running:
        return _SWITCHED_OFF
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=FAILED_TICKS, statuses=_ENDED)
    if len(ticks) == FAILED_TICKS and all(tick.is_failure for tick in ticks):
        return f"fails: {reason(ticks[0].error)}"
    data = state.instigator_data
    known = [at for at in (getattr(data, name, None) for name in _TICKED) if at]
    if not known:
        return ""
    silent = now - _instant(max(known))
    if silent > max(PATIENCE, INTERVALS * timedelta(seconds=sensor.minimum_interval_seconds or 0)):
        return f"has not ticked for {format_duration(silent)}"
    return ""


_SWITCHED_OFF = "is switched off, though it is declared to run"
_TICKED = ("last_tick_timestamp", "last_tick_start_timestamp", "last_sensor_start_timestamp")


def _ticks_ago(cron: str, timezone: str, now: datetime, count: int) -> datetime:
    """The instant of the cron line that lies so many ticks back."""
    history = dg.TimeWindowPartitionsDefinition(
        cron_schedule=cron, start=now - _CRON_HISTORY, fmt="%Y-%m-%dT%H:%M:%S", timezone=timezone
    )
    at = now
    for _ in range(count):
        window = history.get_prev_partition_window(at)
        if window is None:
            return now - _CRON_HISTORY
        at = window.start
    return at


def _instant(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, tz=UTC)
