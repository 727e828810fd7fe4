"""When partitions are due, around delays, midnights and month ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_platform.domain.due import due_partition
from feature_platform.domain.windows import Grain, parse_partition_key
from feature_platform.errors import ConfigurationError
from feature_platform.orchestration.timetable import cron_line, partitions_definition


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("grain", "delay", "instant", "key"),
    [
        (Grain.DAY, timedelta(minutes=90), "2026-03-01 01:29:59", "2026-02-27"),
        (Grain.DAY, timedelta(minutes=90), "2026-03-01 01:30:00", "2026-02-28"),
        (Grain.DAY, timedelta(0), "2026-01-01 00:00:00", "2025-12-31"),
        (Grain.DAY, timedelta(hours=30), "2026-03-02 06:00:00", "2026-02-28"),
        (Grain.HOUR, timedelta(minutes=30), "2026-03-01 00:29:00", "2026-02-28-22:00"),
        (Grain.HOUR, timedelta(minutes=30), "2026-03-01 00:30:00", "2026-02-28-23:00"),
        (Grain.MONTH, timedelta(days=2), "2026-03-02 23:59:00", "2026-01-01"),
        (Grain.MONTH, timedelta(days=2), "2026-03-03 00:00:00", "2026-02-01"),
        (Grain.MONTH, timedelta(0), "2024-03-01 00:00:00", "2024-02-01"),
    ],
)
def test_the_newest_due_partition(grain, delay, instant, key):
    assert due_partition(at(instant), grain, delay).key == key


@given(
    grain=st.sampled_from(list(Grain)),
    delay=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=27)),
    instant=st.integers(0, 10 * 365 * 86400).map(lambda seconds: at("2020-01-01") + timedelta(seconds=seconds)),
)
def test_due_means_ended_and_waited_for_and_nothing_newer_is(grain, delay, instant):
    due = due_partition(instant, grain, delay)
    assert due.end + delay <= instant
    assert parse_partition_key(due.key, grain) == due
    newer = due_partition(instant + timedelta(days=32), grain, delay)
    assert newer.start >= due.end


@pytest.mark.parametrize(
    ("grain", "delay", "cron"),
    [
        (Grain.HOUR, timedelta(minutes=30), "30 * * * *"),
        (Grain.HOUR, timedelta(minutes=59, seconds=1), "0 * * * *"),
        (Grain.DAY, timedelta(minutes=90), "30 1 * * *"),
        (Grain.DAY, timedelta(hours=30), "0 6 * * *"),
        (Grain.MONTH, timedelta(days=3, hours=1), "0 1 4 * *"),
    ],
)
def test_ticks_come_when_a_partition_becomes_due(grain, delay, cron):
    assert cron_line(grain, delay) == cron


def test_no_cron_line_waits_a_month():
    with pytest.raises(ConfigurationError, match="no schedule"):
        cron_line(Grain.MONTH, timedelta(days=28))


@pytest.mark.parametrize("grain", list(Grain))
def test_dagsters_keys_are_ours(grain):
    begin = at("2025-11-30 00:00:00")
    definition = partitions_definition(grain, begin)
    keys = definition.get_partition_keys(current_time=at("2026-03-02 05:30:00"))
    for key in keys[:50] + keys[-50:]:
        window = definition.time_window_for_partition_key(key)
        ours = parse_partition_key(key, grain)
        assert (ours.start, ours.end) == (window.start, window.end)
    assert parse_partition_key(keys[0], grain).start >= begin
    newest = {Grain.HOUR: "2026-03-02-04:00", Grain.DAY: "2026-03-01", Grain.MONTH: "2026-02-01"}
    assert keys[-1] == newest[grain]
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)
