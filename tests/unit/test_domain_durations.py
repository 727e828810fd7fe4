"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_platform.domain.durations import format_duration, parse_duration, parse_latency

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


@given(st.integers(0, 10_000), st.sampled_from([*UNITS]), st.booleans(), st.sampled_from([" ", "  "]))
def test_written_in_words_or_as_dbt_does(count: int, unit: str, plural: bool, space: str) -> None:
    expected = timedelta(seconds=count * UNITS[unit])
    assert parse_duration(f"{count}{space}{unit}{'s' if plural else ''}") == expected
    assert parse_duration({"count": count, "period": unit}) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "day",
        "5 fortnights",
        "-5 days",
        "1.5 days",
        "5days",
        5,
        5.0,
        True,
        None,
        [],
        {},
        {"count": 5},
        {"count": True, "period": "day"},
        {"count": None, "period": None},
        f"{10**12} weeks",
        f"{'9' * 5000} weeks",
    ],
)
def test_anything_else_is_none(value: object) -> None:
    assert parse_duration(value) is None


@given(
    st.recursive(st.none() | st.text() | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_never_an_exception(value: object) -> None:
    assert parse_duration(value) is None or isinstance(parse_duration(value), timedelta)
    assert parse_latency(value) is None or isinstance(parse_latency(value), timedelta)


@pytest.mark.parametrize(
    ("written", "milliseconds"), [("20 ms", 20), ("20ms", 20), ("1 millisecond", 1), ("2 seconds", 2000)]
)
def test_latencies(written: str, milliseconds: int) -> None:
    assert parse_latency(written) == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize("written", ["0 ms", "0 seconds", "-1 ms", "fast", 20, None, "1 m"])
def test_no_latencies(written: object) -> None:
    assert parse_latency(written) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3601, "1 h 1 s"),
        (5400, "1 h 30 min"),
        (93600, "1 d 2 h"),
        (86400 * 28, "28 d"),
        (-5400, "-1 h 30 min"),
    ],
)
def test_for_people(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text
