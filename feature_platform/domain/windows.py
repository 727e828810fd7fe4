"""Partitions of time: UTC, aligned to the hour, day or month, written (start, end].

A feature row of a partition has `start < event_timestamp <= end`; every input of the row lies strictly before its
`event_timestamp`. Partition keys are Dagster's: the start, as `%Y-%m-%d` or, for hours, `%Y-%m-%d-%H:%M`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from feature_platform.errors import TimestampError, UnknownNameError


class Grain(enum.StrEnum):
    """Length of a partition, in dbt's words (`batch_size`)."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


_KEY_FORMATS = {Grain.HOUR: "%Y-%m-%d-%H:%M", Grain.DAY: "%Y-%m-%d", Grain.MONTH: "%Y-%m-%d"}


def aware_utc(instant: datetime, what: str = "timestamp") -> datetime:
    """The instant in UTC.

    Raises:
        TimestampError: it has no time zone.
    """
    if instant.tzinfo is None:
        raise TimestampError(
            f"{what} has no time zone",
            found=instant.isoformat(),
            allowed="an instant with a time zone",
            hint="attach the zone it was recorded in, e.g. .replace(tzinfo=timezone.utc)",
        )
    return instant.astimezone(UTC)


def floor(instant: datetime, grain: Grain) -> datetime:
    """The latest boundary of the grain at or before the instant.

    >>> floor(datetime(2026, 3, 5, 7, 9, tzinfo=UTC), Grain.MONTH).isoformat()
    '2026-03-01T00:00:00+00:00'
    """
    hour = aware_utc(instant).replace(minute=0, second=0, microsecond=0)
    if grain is Grain.HOUR:
        return hour
    day = hour.replace(hour=0)
    return day if grain is Grain.DAY else day.replace(day=1)


def ceiling(instant: datetime, grain: Grain) -> datetime:
    """The first boundary of the grain at or after the instant."""
    boundary = floor(instant, grain)
    return boundary if boundary == instant else following(boundary, grain)


def following(boundary: datetime, grain: Grain) -> datetime:
    """The next boundary after this one."""
    if grain is Grain.HOUR:
        return boundary + timedelta(hours=1)
    if grain is Grain.DAY:
        return boundary + timedelta(days=1)
    return (boundary + timedelta(days=32)).replace(day=1)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Partition:
    """One partition: (start, end], both aware UTC, `end == following(start)`."""

    start: datetime
    end: datetime
    grain: Grain

    @property
    def key(self) -> str:
        """Dagster's partition key."""
        return self.start.strftime(_KEY_FORMATS[self.grain])


def partition_starting(start: datetime, grain: Grain) -> Partition:
    """The partition that starts at this boundary.

    Raises:
        UnknownNameError: the instant is no boundary of the grain.
    """
    start = aware_utc(start)
    if floor(start, grain) != start:
        raise UnknownNameError(
            f"no {grain} partition starts at {start.isoformat()}",
            allowed=f"a UTC boundary, e.g. {floor(start, grain).isoformat()}",
        )
    return Partition(start=start, end=following(start, grain), grain=grain)


def parse_partition_key(key: str, grain: Grain) -> Partition:
    """The partition a Dagster key names.

    Raises:
        UnknownNameError: the key has another form or is no boundary.

    >>> parse_partition_key("2026-03-05", Grain.DAY).end.isoformat()
    '2026-03-06T00:00:00+00:00'
    """
    try:
        start = datetime.strptime(key, _KEY_FORMATS[grain]).replace(tzinfo=UTC)
    except ValueError as error:
        example = datetime(2026, 3, 1, tzinfo=UTC).strftime(_KEY_FORMATS[grain])
        raise UnknownNameError(f"{key!r} is no key of a {grain} partition", allowed=f"the form {example}") from error
    return partition_starting(start, grain)


def partitions_between(begin: datetime, end: datetime, grain: Grain) -> Iterator[Partition]:
    """The whole partitions within [begin, end]: the first starts at or after begin, the last ends by end."""
    start = ceiling(begin, grain)
    while (stop := following(start, grain)) <= end:
        yield Partition(start=start, end=stop, grain=grain)
        start = stop


def adjacent(partitions: Iterable[Partition], *, at_most: int | None = None) -> tuple[tuple[Partition, ...], ...]:
    """Partitions in order of time as unbroken ranges, none longer than `at_most`, if that is given.

    >>> days = [partition_starting(datetime(2026, 3, day, tzinfo=UTC), Grain.DAY) for day in (5, 1, 2, 3)]
    >>> [[day.start.day for day in span] for span in adjacent(days, at_most=2)]
    [[1, 2], [3], [5]]
    """
    spans: list[list[Partition]] = []
    for partition in sorted(partitions):
        full = spans and len(spans[-1]) == at_most
        if spans and not full and spans[-1][-1].end == partition.start:
            spans[-1].append(partition)
        else:
            spans.append([partition])
    return tuple(map(tuple, spans))


def format_partitions(partitions: Iterable[Partition]) -> str:
    """Partitions for people, as ranges of keys.

    >>> format_partitions([partition_starting(datetime(2026, 3, day, tzinfo=UTC), Grain.DAY) for day in (1, 2, 5)])
    '2026-03-01 to 2026-03-02, 2026-03-05'
    """
    shown = 5
    spans = adjacent(partitions)
    texts = [span[0].key if len(span) == 1 else f"{span[0].key} to {span[-1].key}" for span in spans[:shown]]
    return ", ".join(texts) + (f" and {len(spans) - shown} more ranges" if len(spans) > shown else "")
