"""Which notice of an incident is due to whom, and sending what was not taken yet.

Rule: a notice is recorded after its route took it. So what was not taken is sent again at the next look, a crash in
between repeats a notice and loses none, and who was never told that it began is not told that it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import Owner
from feature_platform.ledger import Incident, Ledger, NoticeTaken, Silence
from feature_platform.observability.kinds import Problem
from feature_platform.observability.notifying import LOG, Notice, Route, routes_of, send, unset_routes

RESOLVED = "resolved"
RETRIED_FOR = timedelta(days=1)
"""How long a notice that something is over is tried. One that it began is tried as long as it is open."""
SILENCES_REMEMBERED = timedelta(days=60)
"""Longer than any silence: what was open when it ended is told then, and is not told anew because it was forgotten."""


class Teller:
    """Sends notices during one look, each to each route once; a route that refused one is left alone until the next."""

    def __init__(
        self,
        ledger: Ledger,
        registry: FeatureRegistry,
        *,
        log: Callable[[], logging.Logger],
        environ: Mapping[str, str],
    ) -> None:
        self._ledger, self._registry, self._log, self._environ = ledger, registry, log, environ
        self._taken: dict[str, set[tuple[str, str]]] = {}
        self.worked: set[str] = set()
        """Names of routes that took something."""
        self.failing: dict[str, Route] = {}
        """Routes that refused something, by key."""
        self.untold = 0

    def remember(self, taken: Iterable[NoticeTaken]) -> None:
        """Do not send these again."""
        for one in taken:
            self._taken.setdefault(one.incident_id, set()).add((one.event, one.route))

    def tell_open(
        self, incident: Incident, problem: Problem, *, now: datetime, silenced: Iterable[Silence] = ()
    ) -> None:
        """Send the newest notice of an open incident to those who have not taken it."""
        event, said = due(incident, problem, now=now, silenced=silenced)
        notice = Notice(
            status="firing",
            kind=problem.kind,
            subject=problem.subject,
            severity=problem.severity,
            owner=problem.owner.contact,
            message=said + problem.message,
            impact=problem.impact,
            command=problem.command,
            runbook=problem.runbook,
        )
        self._tell(incident, event, notice, self.audience(problem, escalated=event.startswith("reminder")))

    def tell_over(self, incident: Incident) -> None:
        """Tell those who were told that it began."""
        told = {route for _, route in self._taken.get(incident.incident_id, ())}
        notice = _resolved(incident, f"over: {incident.message}")
        self._tell(incident, RESOLVED, notice, [route for route in self.all_routes() if route.key in told])

    def probe(self, route: Route, incident: Incident) -> bool:
        """Whether a route that refused notices takes them again."""
        said = f"this route takes notices again; before: {incident.message}"
        return send(_resolved(incident, said), route, log=self._log())

    def audience(self, problem: Problem, *, escalated: bool) -> list[Route]:
        """The log, the owner (without a route of his own, the platform's people), and consumers that feel it."""
        owners = list(routes_of(problem.owner, self._environ, escalated=escalated))
        consumers = (route for one in problem.consumers for route in routes_of(one, self._environ))
        return _once([LOG, *(owners or routes_of(self._registry.platform, self._environ)), *consumers])

    def all_routes(self) -> list[Route]:
        """Every route that is declared and can be used, and the log."""
        return _once(
            [
                LOG,
                *(
                    route
                    for owner in _owners(self._registry)
                    for route in routes_of(owner, self._environ, escalated=True)
                ),
            ]
        )

    def unset_routes(self) -> list[Route]:
        """Every route that is declared and cannot be used, because a variable is not set where this runs."""
        return _once(route for owner in _owners(self._registry) for route in unset_routes(owner, self._environ))

    def _tell(self, incident: Incident, event: str, notice: Notice, routes: Iterable[Route]) -> None:
        taken = self._taken.setdefault(incident.incident_id, set())
        for route in routes:
            if (event, route.key) in taken:
                continue
            if route.key not in self.failing and send(notice, route, log=self._log()):
                self._ledger.record_notice(incident.incident_id, event, route.key)
                taken.add((event, route.key))
                self.worked.add(route.name)
            else:
                self.failing[route.key] = route
                self.untold += 1


def _resolved(incident: Incident, message: str) -> Notice:
    return Notice(
        status="resolved",
        kind=incident.kind,
        subject=incident.subject,
        severity=incident.severity,
        owner=incident.owner,
        message=message,
    )


def due(incident: Incident, problem: Problem, *, now: datetime, silenced: Iterable[Silence] = ()) -> tuple[str, str]:
    """The newest notice of an open incident, and what it says before the problem's own words.

    Args:
        incident: what is open.
        problem: the same, as it is now.
        now: the instant to judge by.
        silenced: the silences about it. One that ended while it was open is followed by a notice.
    """
    events = [(incident.opened_at, "opened", "")]
    if incident.worse_at is not None:
        events.append((incident.worse_at, f"error {incident.worse_at.isoformat()}", "it got worse: "))
    after = problem.owner.remind_after
    if after is not None and (times := (now - incident.opened_at) // after) > 0:
        said = f"still open after {format_duration(times * after)}: "
        events.append((incident.opened_at + times * after, f"reminder {times}", said))
    events += [
        (one.ends_at, f"silence {one.silence_id} ended", f"the silence is over ({one.why}), and this is still open: ")
        for one in silenced
        if incident.opened_at < one.ends_at <= now
    ]
    _, event, said = max(events)
    return event, said


def _owners(registry: FeatureRegistry) -> Iterator[Owner]:
    yield from (view.owner for view in registry.views.values())
    yield from (service.owner for service in registry.services.values())
    yield registry.platform


def _once(routes: Iterable[Route]) -> list[Route]:
    return [*{route.key: route for route in routes}.values()]
