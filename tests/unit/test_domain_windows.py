"""Partitions: UTC, aligned, (start, end], without gap or overlap, named by Dagster's keys."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_platform.domain.windows import (
    Grain,
    aware_utc,
    floor,
    following,
    parse_partition_key,
    partition_starting,
    partitions_between,
)
from feature_platform.errors import TimestampError, UnknownNameError

GRAINS = st.sampled_from(Grain)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# Hypothesis wants the bounds without a zone
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30), timezones=ZONES)  # noqa: DTZ001


@given(INSTANTS, GRAINS)
def test_every_instant_lies_in_one_partition(instant: datetime, grain: Grain) -> None:
    start = floor(instant, grain)
    assert start <= instant < following(start, grain)
    assert floor(start, grain) == start
    assert start.tzinfo is UTC


@given(INSTANTS, GRAINS)
def test_keys_come_back(instant: datetime, grain: Grain) -> None:
    partition = partition_starting(floor(instant, grain), grain)
    assert parse_partition_key(partition.key, grain) == partition


@given(INSTANTS, st.timedeltas(timedelta(0), timedelta(days=3)), GRAINS)
def test_partitions_between_two_instants_touch_and_stay_inside(begin: datetime, span: timedelta, grain: Grain) -> None:
    end = begin + span
    found = list(partitions_between(begin, end, grain))
    for before, after in itertools.pairwise(found):
        assert before.end == after.start
    if found:
        assert begin <= found[0].start
        assert floor(begin, grain) == begin.astimezone(UTC) or found[0].start == following(floor(begin, grain), grain)
        assert found[-1].end <= end < following(found[-1].end, grain)


@pytest.mark.parametrize("year", [2023, 2024])
def test_a_year_of_months_days_and_hours(year: int) -> None:
    begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    days = (end - begin).days
    counts = {grain: len(list(partitions_between(begin, end, grain))) for grain in Grain}
    assert counts == {Grain.HOUR: days * 24, Grain.DAY: days, Grain.MONTH: 12}


def test_a_begin_within_a_partition_waits_for_the_next() -> None:
    found = list(partitions_between(datetime(2026, 1, 1, 5, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC), Grain.DAY))
    assert [partition.key for partition in found] == ["2026-01-02"]


def test_keys_are_those_of_dagster() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    assert partition_starting(start, Grain.HOUR).key == "2026-03-01-00:00"
    assert partition_starting(start, Grain.DAY).key == "2026-03-01"
    assert partition_starting(start, Grain.MONTH).key == "2026-03-01"


@pytest.mark.parametrize("key", ["2026-03-05", "2026-03", "yesterday", "", "2026-02-30"])
def test_a_wrong_key_is_refused(key: str) -> None:
    with pytest.raises(UnknownNameError):
        parse_partition_key(key, Grain.MONTH)


def test_a_start_off_the_grid_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="no day partition") as raised:
        partition_starting(datetime(2026, 3, 1, 7, tzinfo=UTC), Grain.DAY)
    assert "2026-03-01T00:00:00+00:00" in raised.value.allowed


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(TimestampError, match="label time has no time zone"):
        aware_utc(datetime(2026, 3, 1), "label time")  # noqa: DTZ001
    assert aware_utc(datetime(2026, 3, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == datetime(2026, 3, 1, tzinfo=UTC)
