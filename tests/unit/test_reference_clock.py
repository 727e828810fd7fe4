"""The shift of the reference data's clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from feature_platform.errors import TimestampError
from feature_platform.reference.clock import DATA_PRESENT, ReferenceClock, shift_weeks


@pytest.mark.parametrize(
    ("now", "weeks"),
    [
        (DATA_PRESENT, 0),
        (DATA_PRESENT + timedelta(days=7) - timedelta(microseconds=1), 0),
        (DATA_PRESENT + timedelta(days=7), 1),
        (DATA_PRESENT - timedelta(microseconds=1), -1),
        (datetime(2026, 11, 23, 20, tzinfo=UTC), 685),
        (datetime(2013, 10, 8, 1, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_the_present_falls_into_the_week_that_begins_on_the_first_of_october(now: datetime, weeks: int) -> None:
    assert shift_weeks(now) == weeks
    assert DATA_PRESENT <= now - timedelta(weeks=weeks) < DATA_PRESENT + timedelta(weeks=1)


def test_a_naive_present_is_refused() -> None:
    with pytest.raises(TimestampError):
        shift_weeks(datetime(2026, 1, 1))  # noqa: DTZ001


def test_the_history_begins_as_many_weeks_later() -> None:
    clock = ReferenceClock(weeks=685)
    assert clock.history_begin == date(2026, 2, 17)
    assert clock.history_begin.weekday() == date(2013, 1, 1).weekday()
    assert clock.dbt_environment == {"FEATURE_PLATFORM_FLIGHTS_BEGIN": "2026-02-17"}
