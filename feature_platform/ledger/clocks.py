"""The clocks of the machines that work, beside the ledger's own.

Rule: what is recorded is dated by Postgres alone. What a worker decides by its own clock (up to where a source is
loaded, which rows are dead, what it tells dbt) it decides only if that clock agrees with the ledger's.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from feature_platform.domain.durations import format_duration
from feature_platform.errors import ClockSkewError
from feature_platform.ledger.connection import LedgerConnection

MOST_SKEW = timedelta(minutes=1)
"""Machines that keep their time differ by milliseconds; no grain, SLA or delay is shorter than this."""

CLOCKS_REMEMBERED = timedelta(hours=2)
"""A machine that has not begun anything for so long is not working any more."""

_ASKED_AGAIN_AFTER_SECONDS = 2.0
"""A clock that was set this moment, or a machine that has just woken, is given so long."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongClock:
    """A machine whose clock is wrong."""

    machine: str
    ahead: timedelta
    """Of the ledger's clock; negative if it is behind."""
    seen_at: datetime

    def __str__(self) -> str:
        return f"the clock of {self.machine} is {said(self.ahead)} the ledger's"


def said(ahead: timedelta) -> str:
    """How far a clock is off.

    >>> said(timedelta(hours=2)), said(timedelta(minutes=-90))
    ('2 h ahead of', '1 h 30 min behind')
    """
    rounded = timedelta(seconds=round(abs(ahead).total_seconds()))
    return f"{format_duration(rounded)} {'ahead of' if ahead > timedelta(0) else 'behind'}"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ClockLedger(LedgerConnection):
    """The part of the ledger that knows what time it is, and who believes otherwise."""

    def now(self) -> datetime:
        """The ledger's clock."""
        now: datetime = self._fetch_value("select clock_timestamp()")
        return now

    def clock_ahead(self, *, clock: Clock = _utc_now) -> timedelta:
        """How far this machine's clock is ahead of the ledger's, at least; negative if it is behind.

        The ledger answers at some instant between two looks at the own clock; what lies between them is no difference.
        """
        before = clock()
        now = self.now()
        return max(before - now, min(clock() - now, timedelta(0)))

    def look_at_clock(self, *, machine: str = "", clock: Clock = _utc_now) -> timedelta:
        """As `clock_ahead`; a clock that is wrong is kept for the watch, one that is right again is forgotten."""
        machine = machine or socket.gethostname()
        ahead = self.clock_ahead(clock=clock)
        if abs(ahead) > MOST_SKEW:
            time.sleep(_ASKED_AGAIN_AFTER_SECONDS)
            ahead = self.clock_ahead(clock=clock)
        if abs(ahead) > MOST_SKEW:
            self._fetch(
                "insert into wrong_clocks (machine, ahead) values (%s, %s) on conflict (machine)"
                " do update set ahead = excluded.ahead, seen_at = excluded.seen_at returning 1",
                (machine, ahead),
            )
        else:
            self._fetch("delete from wrong_clocks where machine = %s returning 1", (machine,))
        return ahead

    def check_clock(self, *, machine: str = "", clock: Clock = _utc_now) -> None:
        """Refuse to begin work on a machine whose clock is wrong.

        Raises:
            ClockSkewError: it differs from the ledger's by more than a minute.
        """
        ahead = self.look_at_clock(machine=machine, clock=clock)
        if abs(ahead) > MOST_SKEW:
            raise ClockSkewError(
                f"nothing is computed, loaded or synced on {machine or socket.gethostname()}: its clock is wrong",
                found=f"{said(ahead)} the ledger's",
                allowed=f"up to {format_duration(MOST_SKEW)}",
                hint="set its clock (`timedatectl`, chrony), or that of the ledger's Postgres if all others disagree"
                " with it: docs/runbooks/wrong-clock.md",
            )

    def wrong_clocks(self) -> tuple[WrongClock, ...]:
        """Machines that began to work by a wrong clock lately, and have not been seen with a right one since."""
        rows = self._fetch(
            "select machine, ahead, seen_at from wrong_clocks where seen_at > clock_timestamp() - %s::interval"
            " order by machine",
            (CLOCKS_REMEMBERED,),
        )
        return tuple(WrongClock(machine=r[0], ahead=r[1], seen_at=r[2]) for r in rows)
