"""Which partitions a late row concerns, against an account that asks every partition of every row.

Times are drawn from the places where it matters: boundaries of partitions, of the lookback, of the watermarks, and one
microsecond beside each.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from thoroughness import examples

from feature_platform.domain.feature_view import Source
from feature_platform.domain.late_data import ComputedPartition
from feature_platform.domain.windows import Grain, Partition, partitions_between
from feature_platform.lake.sql import quote_instant
from feature_platform.late_data import sql
from feature_platform.late_data.scanning import as_lags

BEGIN = datetime(2024, 1, 30, tzinfo=UTC)
ENDS = {
    Grain.HOUR: BEGIN + timedelta(hours=10),
    Grain.DAY: BEGIN + timedelta(days=8),
    Grain.MONTH: BEGIN + timedelta(days=200),
}
LENGTHS = {Grain.HOUR: timedelta(hours=1), Grain.DAY: timedelta(days=1), Grain.MONTH: timedelta(days=31)}
PARTITIONS = {grain: tuple(partitions_between(BEGIN.replace(day=1), end, grain)) for grain, end in ENDS.items()}
MICROSECOND = timedelta(microseconds=1)
SOURCE = Source(
    unique_id="source.tiny.tiny.events",
    name="tiny.events",
    schema="sources",
    table="events",
    loaded_at_field="ingested_at",
    event_time="known_at",
    reporting_lag=timedelta(minutes=10),
)

Row = tuple[datetime | None, datetime]


@dataclass(frozen=True)
class Case:
    grain: Grain
    closed: tuple[ComputedPartition, ...]
    lookback: timedelta | None
    rows: tuple[Row, ...]
    after: datetime
    through: datetime


def concerned(case: Case, row: Row, one: ComputedPartition) -> bool:
    """May the partition's SQL read the row, and did it arrive after what the partition has seen?"""
    event, arrived = row
    return (
        case.after < arrived <= case.through
        and event is not None
        and event < one.partition.end
        and (case.lookback is None or event >= one.partition.end - case.lookback)
        and (one.seen_through is None or arrived > one.seen_through)
    )


def oracle(case: Case) -> dict[Partition, tuple]:
    found = {}
    for one in case.closed:
        late = [row for row in case.rows if concerned(case, row, one)]
        if late:
            arrivals = [arrived for _, arrived in late]
            lags = [arrived - event for event, arrived in late]
            oldest = min(event for event, _ in late)
            found[one.partition] = (len(late), oldest, min(arrivals), max(arrivals), max(lags))
    return found


@st.composite
def cases(draw, grain: Grain) -> Case:
    length = LENGTHS[grain]
    lookback = draw(st.sampled_from([None, length, length * 3, length * 3 + MICROSECOND, length / 2, timedelta(0)]))
    partitions = sorted(draw(st.sets(st.sampled_from(PARTITIONS[grain][-9:]), min_size=1, max_size=6)))
    nudge = st.sampled_from([timedelta(0), MICROSECOND, -MICROSECOND, length / 3])
    edges = [one.end for one in partitions] + [one.end - (lookback or length) for one in partitions]
    instants = st.builds(lambda edge, by: edge + by, st.sampled_from(edges), nudge)
    arrivals = st.builds(
        lambda edge, by, later: edge + by + later * length, st.sampled_from(edges), nudge, st.integers(0, 4)
    )
    seen = st.none() | arrivals
    closed = tuple(ComputedPartition(partition=one, seen_through=draw(seen), lookback=lookback) for one in partitions)
    watermarks = [one.seen_through for one in closed if one.seen_through is not None]
    if watermarks:
        arrivals |= st.builds(lambda edge, by: edge + by, st.sampled_from(watermarks), nudge)
    rows = draw(st.lists(st.tuples(st.none() | instants | instants, arrivals), max_size=12))
    after, through = sorted((draw(arrivals), draw(arrivals)))
    wide = draw(st.booleans())
    return Case(
        grain=grain,
        closed=closed,
        lookback=lookback,
        rows=tuple(rows),
        after=BEGIN - timedelta(days=400) if wide else after,
        through=BEGIN + timedelta(days=900) if wide else through + MICROSECOND,
    )


@pytest.fixture(scope="module")
def lake():
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'America/New_York'")  # the SQL must not depend on it
        connection.execute("create table events (known_at timestamptz, ingested_at timestamptz)")
        yield connection


def mapped(lake, case: Case) -> tuple[dict[Partition, tuple], tuple]:
    """What the SQL says: per partition, and of the rows as a whole."""
    lake.execute("delete from events")
    if case.rows:
        values = ", ".join(
            f"({'null' if event is None else quote_instant(event)}, {quote_instant(arrived)})"
            for event, arrived in case.rows
        )
        lake.execute(f"insert into events values {values}")
    rows = sql.arrived_rows(SOURCE, "events", case.after, case.through)
    ends = {sql.microseconds(one.partition.end): one.partition for one in case.closed}
    late = {
        ends[end]: (count, *map(sql.instant_of, instants), timedelta(microseconds=lag))
        for end, count, *instants, lag in lake.execute(
            sql.late_rows(rows, case.grain, case.closed, case.lookback)
        ).fetchall()
    }
    lags = lake.execute(sql.late_lags(rows, case.grain, case.closed, case.lookback)).fetchone()
    return late, lags


def check(lake, case: Case) -> None:
    late, (count, quantiles, longest) = mapped(lake, case)
    assert late == oracle(case)
    late_rows = [row for row in case.rows if any(concerned(case, row, one) for one in case.closed)]
    assert count == len(late_rows)
    if late_rows:
        lags = sorted(arrived - event for event, arrived in late_rows)
        found = as_lags(quantiles, longest)
        assert found.longest == lags[-1]
        about = timedelta(milliseconds=1)  # quantiles are estimates
        assert lags[0] - about <= found.p50 <= found.p90 <= found.p99 <= lags[-1]


@pytest.mark.parametrize("grain", list(Grain))
def test_late_rows_agree_with_the_oracle(lake, grain):
    @settings(max_examples=examples(60), deadline=None)
    @given(cases(grain))
    def agrees(case):
        check(lake, case)

    agrees()


WRONG = {
    "a row at the end counts": ("interval 1 day)", "interval 1 day - interval 1 day)"),
    "the end of the lookback is left out": ("make_timestamp(event + ", "make_timestamp(event - 1 + "),
    "what was seen counts": ("arrived > watermarks.seen", "arrived >= watermarks.seen"),
    "one watermark for all": ("groups.seen >= closed.seen", "true"),
    "no lookback": ("partition_end between first_end and last_end", "partition_end >= first_end"),
    "the last boundary, not the first": ("as first_end", "+ 86400000000 as first_end"),
}


@pytest.mark.parametrize("mutation", WRONG)
def test_a_wrong_mapping_is_caught(lake, monkeypatch, mutation):
    old, new = WRONG[mutation]
    right = sql.late_rows
    assert old in right(
        "select 1",
        Grain.DAY,
        [ComputedPartition(partition=PARTITIONS[Grain.DAY][0], seen_through=None, lookback=timedelta(days=1))],
        timedelta(days=1),
    )
    monkeypatch.setattr(sql, "late_rows", lambda *arguments: right(*arguments).replace(old, new))

    @settings(max_examples=400, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(cases(Grain.DAY))
    def agrees(case):
        assert mapped(lake, case)[0] == oracle(case)

    with pytest.raises(AssertionError):
        agrees()
