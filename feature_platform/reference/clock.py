"""The reference project's clock: the data's year, moved by whole weeks so that its 1 October is now.

Rule: the shift is fixed once, as a fact in the ledger, and never changes; every instant of every source moves by it.
Whole weeks keep weekdays, and with them the schedule's rhythm. Nine months lie in the past, three are still to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from feature_platform.domain.windows import aware_utc
from feature_platform.ledger import Ledger

FACT = "flights_clock_shift_weeks"
DATA_BEGIN = date(2013, 1, 1)
DATA_PRESENT = datetime(2013, 10, 1, tzinfo=UTC)


def shift_weeks(now: datetime) -> int:
    """The weeks to add to the data, so that `now` falls into the week that begins on the data's 1 October.

    >>> shift_weeks(datetime(2013, 10, 7, 23, tzinfo=UTC)), shift_weeks(datetime(2013, 10, 8, tzinfo=UTC))
    (0, 1)
    """
    return (aware_utc(now) - DATA_PRESENT) // timedelta(weeks=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceClock:
    """How far the data's instants are moved."""

    weeks: int

    @property
    def shift(self) -> timedelta:
        """What is added to every instant of the data."""
        return timedelta(weeks=self.weeks)

    @property
    def history_begin(self) -> date:
        """The data's 1 January, moved: `begin` of the feature views."""
        return DATA_BEGIN + self.shift

    @property
    def dbt_environment(self) -> dict[str, str]:
        """What dbt has to be told, as environment variables."""
        return {"FEATURE_PLATFORM_FLIGHTS_BEGIN": self.history_begin.isoformat()}


def fix_clock(ledger: Ledger, *, now: datetime) -> ReferenceClock:
    """The project's clock; the first call fixes it for good, and of two first calls at once one decides."""
    if (fixed := ledger.fact(FACT)) is None:
        # not record_fact alone: near midnight of a Tuesday two processes may propose different weeks
        with ledger.connection.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(hashtext(%s))", (FACT,))
            try:
                if (fixed := ledger.fact(FACT)) is None:
                    fixed = str(shift_weeks(now))
                    ledger.record_fact(FACT, fixed)
            finally:
                cursor.execute("select pg_advisory_unlock(hashtext(%s))", (FACT,))
    return ReferenceClock(weeks=int(fixed))
