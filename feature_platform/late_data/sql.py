"""SQL that maps source rows to the computed partitions they came too late for, as values.

Rule: a row came too late for a partition if the partition may read it (its event time lies before the partition's end
and no further back than the lookback) and it arrived after what the partition has seen. Rows are never paired with
partitions one by one: those with the same first and last partition, and between the same two watermarks, are counted
first. Instants are microseconds since 1970, which need no calendar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from feature_platform.domain.feature_view import Source
from feature_platform.domain.late_data import ComputedPartition
from feature_platform.domain.windows import Grain
from feature_platform.lake.sql import quote_identifier, quote_instant, quote_literal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NOTHING_SEEN = -(2**62)
_LAGS = "approx_quantile(lag, [0.5, 0.9, 0.99])"
"""A t-digest: its memory does not grow with the rows."""


def microseconds(instant: datetime) -> int:
    """The instant as the SQL counts it."""
    return (instant - _EPOCH) // _MICROSECOND


def instant_of(count: int) -> datetime:
    """The instant that the SQL means."""
    return _EPOCH + count * _MICROSECOND


def arrived_rows(source: Source, table: str, after: datetime, through: datetime) -> str:
    """Event time and arrival of the rows that arrived in (after, through]."""
    loaded_at, event_time = quote_identifier(source.loaded_at_field), quote_identifier(str(source.event_time))
    return (
        f"select epoch_us({event_time}) as event, epoch_us({loaded_at}) as arrived,"
        f" epoch_us({loaded_at}) - epoch_us({event_time}) as lag from {table}"
        f" where {loaded_at} > {quote_instant(after)} and {loaded_at} <= {quote_instant(through)}"
        f" and {event_time} is not null"
    )


def count_arrived(rows: str, reporting_lag: timedelta) -> str:
    """(rows, overdue rows, lag quantiles, longest lag) of arrived rows."""
    return (
        f"select count(*), count(*) filter (where lag > {reporting_lag // _MICROSECOND}), {_LAGS}, max(lag)"
        f" from ({rows}) as arrived_rows"
    )


def late_rows(rows: str, grain: Grain, closed: Sequence[ComputedPartition], lookback: timedelta | None) -> str:
    """Per partition: (end, rows, oldest event, first arrival, last arrival, longest lag), of those with late rows.

    Args:
        rows: what `arrived_rows` says.
        grain: that of the partitions.
        closed: the partitions.
        lookback: how far all of them reach back; None: to the beginning.
    """
    return (
        f"{_mapped(rows, grain, closed, lookback)}"
        " select partition_end, sum(rows)::bigint, min(oldest), min(first_arrived), max(last_arrived), max(longest)"
        " from (select first_end, last_end, seen, count(*) as rows, min(event) as oldest,"
        " min(arrived) as first_arrived, max(arrived) as last_arrived, max(lag) as longest"
        " from mapped group by all) as groups"
        f" join closed on {_CONCERNS} group by partition_end order by partition_end"
    )


def late_lags(rows: str, grain: Grain, closed: Sequence[ComputedPartition], lookback: timedelta | None) -> str:
    """(rows, lag quantiles, longest lag) of the rows that came too late for at least one partition."""
    return (
        f"{_mapped(rows, grain, closed, lookback)}"
        ", concerned as (select distinct first_end, last_end, groups.seen"
        f" from (select distinct first_end, last_end, seen from mapped) as groups join closed on {_CONCERNS})"
        f" select count(*), {_LAGS}, max(lag) from mapped semi join concerned using (first_end, last_end, seen)"
    )


_CONCERNS = "partition_end between first_end and last_end and groups.seen >= closed.seen"


def _mapped(rows: str, grain: Grain, closed: Sequence[ComputedPartition], lookback: timedelta | None) -> str:
    """CTEs: `closed` partitions, and each row with the partitions that may read it and the newest watermark before it.

    A row arrived after a partition's watermark if and only if the newest of all watermarks before its arrival is at
    least that one.
    """
    ends = [microseconds(one.partition.end) for one in closed]
    seen = [_NOTHING_SEEN if one.seen_through is None else microseconds(one.seen_through) for one in closed]
    last = str(max(ends)) if lookback is None else _boundary(f"event + {lookback // _MICROSECOND}", grain)
    return (
        f"with closed as (select {_numbers(ends)} as partition_end, {_numbers(seen)} as seen),"
        f" watermarks as (select distinct seen from closed),"
        f" mapped as (select {_following(grain)} as first_end, {last} as last_end, watermarks.seen, event, arrived, lag"
        f" from (select * from ({rows}) as every_row where event < {max(ends)}) as arrived_rows"
        " asof join watermarks on arrived_rows.arrived > watermarks.seen)"
    )


def _boundary(count: str, grain: Grain) -> str:
    """The latest boundary of the grain at or before an instant."""
    return f"epoch_us(date_trunc('{grain.value}', make_timestamp({count})))"


def _following(grain: Grain) -> str:
    """The first boundary after the event: no row at a partition's end is read by it."""
    return f"epoch_us(date_trunc('{grain.value}', make_timestamp(event)) + interval 1 {grain.value})"


def _numbers(numbers: Iterable[int]) -> str:
    # one literal: thousands of them take DuckDB longer to read than the rows take to map
    return f"unnest(string_split({quote_literal(','.join(map(str, numbers)))}, ','))::bigint"
