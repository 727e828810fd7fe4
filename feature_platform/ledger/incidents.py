"""Incidents, the notices of them that were taken, and the heartbeats of parts that cannot be asked from outside.

Rule: an incident is opened once and resolved once; in between its severity may change. Of one kind and subject at most
one is open.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from feature_platform.ledger.connection import LedgerConnection, Row
from feature_platform.ledger.records import Incident, NoticeTaken

_INCIDENTS = """
select i.incident_id::text, i.kind, i.subject, coalesce(c.severity, i.severity), i.owner,
       coalesce(c.message, i.message), i.opened_at, r.resolved_at, w.worse_at
from incidents i
left join incident_resolved r using (incident_id)
left join lateral (
    select severity, message from incident_changed c where c.incident_id = i.incident_id
    order by c.ledger_seq desc limit 1) c on true
left join lateral (
    select max(changed_at) as worse_at from incident_changed c
    where c.incident_id = i.incident_id and c.severity = 'error') w on true
"""


class IncidentLedger(LedgerConnection):
    """The part of the ledger that knows what was wrong and who was told."""

    def open_incident(self, *, kind: str, subject: str, severity: str, owner: str, message: str) -> str | None:
        """Open an incident; its id, or None if one of this kind and subject is open already."""
        incident_id = str(uuid.uuid4())
        with self._append() as append:
            if append.fetch(
                "select 1 from incidents i where kind = %s and subject = %s"
                " and not exists (select from incident_resolved r where r.incident_id = i.incident_id)",
                (kind, subject),
            ):
                return None
            append.insert(
                "insert into incidents (incident_id, kind, subject, severity, owner, message) values %s returning 1",
                [(incident_id, kind, subject, severity, owner, message)],
            )
        return incident_id

    def change_incident(self, incident_id: str, *, severity: str, message: str) -> None:
        """Record that an open incident got worse or better."""
        with self._append() as append:
            append.insert(
                "insert into incident_changed (incident_id, severity, message) values %s returning 1",
                [(incident_id, severity, message)],
            )

    def resolve_incident(self, incident_id: str) -> bool:
        """Resolve an incident; False if it was resolved before."""
        with self._append() as append:
            return bool(
                append.insert(
                    "insert into incident_resolved (incident_id) values %s on conflict do nothing returning 1",
                    [(incident_id,)],
                )
            )

    def incidents(
        self, *, open_only: bool = False, resolved_within: timedelta | None = None, limit: int | None = None
    ) -> tuple[Incident, ...]:
        """Incidents, newest first.

        Args:
            open_only: none that is over.
            resolved_within: of those that are over, only what ended this recently, by the database's clock.
            limit: at most so many.
        """
        rows = self._fetch(
            _INCIDENTS + " where (not %s or r.incident_id is null)"
            " and (%s::interval is null or r.incident_id is null or r.resolved_at > clock_timestamp() - %s::interval)"
            " order by i.ledger_seq desc limit %s",
            (open_only, resolved_within, resolved_within, limit),
        )
        return tuple(map(_read, rows))

    def record_notice(self, incident_id: str, event: str, route: str) -> None:
        """Record that a route took a notice. Repeating it is harmless."""
        with self._append() as append:
            append.insert(
                "insert into notices_taken (incident_id, event, route) values %s on conflict do nothing returning 1",
                [(incident_id, event, route)],
            )

    def notices_taken(self, incident_ids: Iterable[str]) -> tuple[NoticeTaken, ...]:
        """Which notices of some incidents were taken by which routes, oldest first."""
        rows = self._fetch(
            "select incident_id::text, event, route, taken_at from notices_taken"
            " where incident_id = any(%s::uuid[]) order by ledger_seq",
            (list(incident_ids),),
        )
        return tuple(NoticeTaken(incident_id=r[0], event=r[1], route=r[2], taken_at=r[3]) for r in rows)

    def routes_that_took(self, routes: Iterable[str]) -> frozenset[str]:
        """Which of these routes ever took a notice."""
        rows = self._fetch("select distinct route from notices_taken where route = any(%s)", ([*routes],))
        return frozenset(route for (route,) in rows)

    def beat(self, parts: Mapping[str, datetime]) -> None:
        """Keep when parts last said that they live; an older beat than the one that is known changes nothing.

        One that lies ahead of the clock was said by a clock that has been set back since, and counts no more: it would
        make a part look alive until that instant comes, however long it is dead.
        """
        with self._append() as append:
            append.insert(
                "insert into heartbeats (part, beat_at) values %s on conflict (part)"
                " do update set beat_at = case when heartbeats.beat_at > clock_timestamp() + interval '1 minute'"
                " then excluded.beat_at else greatest(heartbeats.beat_at, excluded.beat_at) end returning 1",
                sorted(parts.items()),
            )

    def heartbeats(self) -> dict[str, datetime]:
        """The last beat of every part that ever beat."""
        return dict(self._fetch("select part, beat_at from heartbeats order by part"))


def _read(row: Row) -> Incident:
    return Incident(
        incident_id=row[0],
        kind=row[1],
        subject=row[2],
        severity=row[3],
        owner=row[4],
        message=row[5],
        opened_at=row[6],
        resolved_at=row[7],
        worse_at=row[8],
    )
