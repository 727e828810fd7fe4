"""How Dagster names partitions and is told when they are due. Pure; the only Dagster here is its partitions.

Rule: the cron line of a schedule ticks when a partition becomes due (`domain.due`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg

from feature_platform.domain.windows import Grain, ceiling
from feature_platform.errors import ConfigurationError

PARTITIONS_PER_RUN = {Grain.HOUR: 31 * 24, Grain.DAY: 150, Grain.MONTH: 36}
"""How many partitions of a backfill one run computes and publishes together. A run costs some 15 s of CPU in imports
(Dagster, dbt, Great Expectations) and 0.05 s a partition; but a chunk with one bad partition publishes nothing."""

_KEY_FORMAT = "%Y-%m-%d"
_MINUTE = timedelta(minutes=1)


def partitions_definition(grain: Grain, begin: datetime) -> dg.TimeWindowPartitionsDefinition:
    """Dagster's partitions with the keys of `domain.windows`: UTC, the first starting at or after `begin`."""
    first = ceiling(begin, grain)
    start = first.strftime(_KEY_FORMAT)
    if grain is Grain.HOUR:
        return dg.HourlyPartitionsDefinition(start_date=f"{start}-{first:%H:%M}", timezone="UTC")
    if grain is Grain.DAY:
        return dg.DailyPartitionsDefinition(start_date=start, timezone="UTC")
    return dg.MonthlyPartitionsDefinition(start_date=start, timezone="UTC")


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
