"""Which partitions became due between two instants: the bounds against trying every one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from feature_platform.domain.due import came_due
from feature_platform.domain.windows import Grain, floor, partition_starting, partitions_between

INSTANTS = st.datetimes(datetime(2024, 2, 1), datetime(2024, 5, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(
    st.sampled_from(Grain),
    st.builds(timedelta, minutes=st.integers(0, 100 * 60)),
    *[st.one_of(INSTANTS, INSTANTS.map(lambda at: floor(at, Grain.HOUR)))] * 3,
)
def test_as_by_trying_every_partition(
    grain: Grain, delay: timedelta, begin: datetime, after: datetime, by: datetime
) -> None:
    view = SimpleNamespace(grain=grain, availability_delay=delay, begin=begin)
    every = partitions_between(begin, datetime(2024, 6, 1, tzinfo=UTC), grain)
    due = [one for one in every if after < one.end + delay <= by]
    expected = (due[0], due[-1]) if due else None
    assert came_due(view, after=after, by=by) == expected  # type: ignore[arg-type]


def test_at_the_very_instant_it_is_due() -> None:
    view = SimpleNamespace(
        grain=Grain.DAY, availability_delay=timedelta(minutes=90), begin=datetime(2024, 1, 1, tzinfo=UTC)
    )
    due = datetime(2024, 3, 2, 1, 30, tzinfo=UTC)
    first = partition_starting(datetime(2024, 3, 1, tzinfo=UTC), Grain.DAY)
    assert came_due(view, after=due - timedelta(microseconds=1), by=due) == (first, first)  # type: ignore[arg-type]
    assert came_due(view, after=due, by=due) is None  # type: ignore[arg-type]
