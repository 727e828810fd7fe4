"""When partitions are due, and how Dagster names them. Pure; the only Dagster here is its partition definitions.

Rule: a partition is due when it has ended and the view's `availability_delay` has passed, in UTC. Everything follows
from those two: the cron line of the schedule and the partition a tick asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg

from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Grain, Partition, aware_utc, floor, partition_starting
from feature_platform.errors import ConfigurationError

PARTITIONS_PER_RUN = {Grain.HOUR: 31 * 24, Grain.DAY: 150, Grain.MONTH: 36}
"""How many partitions of a backfill one run computes and publishes together. A run costs some 15 s of CPU in imports
(Dagster, dbt, Great Expectations) and 0.05 s a partition; but a chunk with one bad partition publishes nothing."""

RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_KEY_FORMAT = "%Y-%m-%d"
_MINUTE = timedelta(minutes=1)


def partitions_definition(grain: Grain, begin: datetime) -> dg.TimeWindowPartitionsDefinition:
    """Dagster's partitions with the keys of `domain.windows`: UTC, the first starting at or after `begin`."""
    first = floor(begin, grain)
    if first < aware_utc(begin):
        first = partition_starting(first, grain).end
    start = first.strftime(_KEY_FORMAT)
    if grain is Grain.HOUR:
        return dg.HourlyPartitionsDefinition(start_date=f"{start}-{first:%H:%M}", timezone="UTC")
    if grain is Grain.DAY:
        return dg.DailyPartitionsDefinition(start_date=start, timezone="UTC")
    return dg.MonthlyPartitionsDefinition(start_date=start, timezone="UTC")


def range_tags(span: Sequence[Partition]) -> dict[str, str]:
    """The tags of a run of several adjacent partitions; none for one, which is the run's partition key."""
    return {} if len(span) == 1 else dict(zip(RANGE_TAGS, (span[0].key, span[-1].key), strict=True))


def backfill_policy(grain: Grain) -> dg.BackfillPolicy:
    """How a range of partitions is cut into runs."""
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=PARTITIONS_PER_RUN[grain])


def cron_line(grain: Grain, delay: timedelta) -> str:
    """The cron line (UTC) whose ticks are the instants at which a partition becomes due.

    >>> cron_line(Grain.DAY, timedelta(minutes=90)), cron_line(Grain.HOUR, timedelta(minutes=90))
    ('30 1 * * *', '30 * * * *')
    >>> cron_line(Grain.MONTH, timedelta(days=2, hours=6))
    '0 6 3 * *'

    Raises:
        ConfigurationError: no cron line says it: a monthly view more than 27 days late.
    """
    minutes = -(-delay // _MINUTE)
    days, minute_of_day = divmod(minutes, 24 * 60)
    hour, minute = divmod(minute_of_day, 60)
    if grain is Grain.HOUR:
        return f"{minute} * * * *"
    if grain is Grain.DAY:
        return f"{minute} {hour} * * *"
    if days > 27:  # noqa: PLR2004 - the last day that every month has is the 28th
        raise ConfigurationError(
            "no schedule can wait that long for a monthly view",
            found=f"availability_delay of {delay}",
            allowed="less than 28 days",
        )
    return f"{minute} {hour} {days + 1} * *"


def due_partition(at: datetime, grain: Grain, delay: timedelta) -> Partition:
    """The newest partition that is due at an instant."""
    end = floor(aware_utc(at) - delay, grain)
    return partition_starting(floor(end - timedelta(microseconds=1), grain), grain)


def due_partition_of(view: FeatureView, at: datetime) -> Partition | None:
    """The newest partition of the view that is due at an instant; None before its first."""
    due = due_partition(at, view.grain, view.availability_delay)
    return due if due.start >= view.begin else None
