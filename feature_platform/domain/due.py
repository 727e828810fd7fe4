"""When partitions are due. Pure.

Rule: a partition is due when it has ended and the view's `availability_delay` has passed, in UTC.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Grain, Partition, aware_utc, ceiling, floor, partition_starting


def due_partition(at: datetime, grain: Grain, delay: timedelta) -> Partition:
    """The newest partition that is due at an instant."""
    end = floor(aware_utc(at) - delay, grain)
    return partition_starting(floor(end - timedelta(microseconds=1), grain), grain)


def came_due(view: FeatureView, *, after: datetime, by: datetime) -> tuple[Partition, Partition] | None:
    """The first and the last partition of a view that became due in (after, by]; None if none did."""
    start = max(due_partition(after, view.grain, view.availability_delay).end, ceiling(view.begin, view.grain))
    last = due_partition(by, view.grain, view.availability_delay)
    return (partition_starting(start, view.grain), last) if start <= last.start else None
