"""Silences: nobody is told, for a time, of what concerns a view, a kind of problem, or both.

Rule: a silence ends by itself. It is about notices alone; what is wrong is recorded and shown all the same.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.ledger.connection import LedgerConnection, Row

_SILENCES = """
select s.silence_id::text, s.view, s.kind, s.why, s.made_by, s.made_at, least(s.ends_at, e.ended_at)
from silences s left join silence_ended e using (silence_id)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """One silence."""

    silence_id: str
    view: str | None
    """By its key; None for every view."""
    kind: str | None
    """Of problem; None for every kind."""
    why: str
    made_by: str
    made_at: datetime
    ends_at: datetime
    """When its time is over, or when somebody ended it before."""

    def covers(self, *, view: str, kind: str) -> bool:
        """Whether it is about a problem of this kind, of this view."""
        return self.view in (None, view) and self.kind in (None, kind)


class SilenceLedger(LedgerConnection):
    """The part of the ledger that knows silences."""

    def add_silence(self, *, view: str | None, kind: str | None, why: str, made_by: str, lasts: timedelta) -> Silence:
        """Be silent from now on for a time, by the database's clock."""
        with self._append() as append:
            ((silence_id, made_at, ends_at),) = append.insert(
                "insert into silences (silence_id, view, kind, why, made_by, ends_at) values %s"
                " returning silence_id::text, made_at, ends_at",
                [(str(uuid.uuid4()), view, kind, why, made_by, append.fetch("select clock_timestamp()")[0][0] + lasts)],
            )
        return Silence(
            silence_id=silence_id, view=view, kind=kind, why=why, made_by=made_by, made_at=made_at, ends_at=ends_at
        )

    def end_silence(self, silence_id: str, *, ended_by: str) -> bool:
        """End a silence now; False if somebody ended it before."""
        with self._append() as append:
            return bool(
                append.insert(
                    "insert into silence_ended (silence_id, ended_by) values %s on conflict do nothing returning 1",
                    [(silence_id, ended_by)],
                )
            )

    def silences(self, *, ended_within: timedelta | None = timedelta(0)) -> tuple[Silence, ...]:
        """Silences that last, and those that ended this recently by the database's clock; None for all."""
        rows = self._fetch(
            f"select * from ({_SILENCES}) s (silence_id, view, kind, why, made_by, made_at, ends_at)"
            " where %s::interval is null or ends_at > clock_timestamp() - %s::interval order by made_at",
            (ended_within, ended_within),
        )
        return tuple(map(_read, rows))


def _read(row: Row) -> Silence:
    return Silence(
        silence_id=row[0], view=row[1], kind=row[2], why=row[3], made_by=row[4], made_at=row[5], ends_at=row[6]
    )
