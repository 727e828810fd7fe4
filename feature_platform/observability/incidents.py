"""Incidents: problems told once when they begin, when they get worse, when they stay, and once when they end.

Rule: level, not edge. A look compares what is wrong with what the ledger has open, and sends what was not taken yet;
so it may be interrupted, repeated, or left out for a day, and nothing is told twice or forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from feature_platform.declaration import FeatureRegistry
from feature_platform.ledger import Ledger
from feature_platform.observability.kinds import LEDGER_KINDS, Problem, problem_of_platform
from feature_platform.observability.notifying import environment
from feature_platform.observability.problems import find_problems
from feature_platform.observability.telling import RETRIED_FOR, SILENCES_REMEMBERED, Teller

WATCH = "watch"
"""Its heartbeat: the last time that somebody looked and was able to tell."""

ROUTE = "route"
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchReport:
    """What a look found and told."""

    problems: tuple[Problem, ...]
    opened: int
    """Including those that got worse or better."""
    resolved: int
    untold: int
    """Notices that a route did not take; they are sent again."""

    def __str__(self) -> str:
        if not self.problems and not self.resolved:
            return "nothing is wrong"
        untold = f", {self.untold} notice(s) not taken" if self.untold else ""
        return f"{len(self.problems)} problem(s) open: {self.opened} new, {self.resolved} resolved{untold}"


def watch(
    ledger: Ledger,
    registry: FeatureRegistry,
    *,
    stores: Sequence[str],
    now: datetime,
    log: Callable[[], logging.Logger],
    also: Mapping[str, Sequence[Problem]] = MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
) -> WatchReport:
    """Look once: open what is new, resolve what is over, tell those who are concerned.

    Args:
        ledger: what happened.
        registry: the views and their owners.
        stores: names of the online stores that are judged.
        now: the instant to judge by.
        log: asked for its logger only when there is something to tell, because Dagster's makes a file for every tick
            that touches it.
        also: what was found elsewhere, by kind. A kind that is absent was not looked for, and stays as it is.
        environ: where routes find their variables; by default the process's own.
    """
    found = [*find_problems(ledger, registry, stores=stores, now=now)]
    found += [problem for problems in also.values() for problem in problems]
    teller = Teller(ledger, registry, log=log, environ=environment(environ))
    opened, resolved = _settle(ledger, found, kinds={*LEDGER_KINDS, *also})
    _tell(ledger, teller, found, now=now)
    # what the routes did is known only now
    routes = _failing_routes(ledger, registry, teller)
    changed = _settle(ledger, routes, kinds={ROUTE})
    _tell(ledger, teller, routes, now=now, about_routes=True)
    ledger.beat({WATCH: now})
    return WatchReport(
        problems=(*found, *routes), opened=opened + changed[0], resolved=resolved + changed[1], untold=teller.untold
    )


def _settle(ledger: Ledger, found: Iterable[Problem], *, kinds: Collection[str]) -> tuple[int, int]:
    """Bring the ledger's open incidents of some kinds to what was found; how many began or changed, and ended."""
    known = {(one.kind, one.subject): one for one in ledger.incidents(open_only=True) if one.kind in kinds}
    opened = 0
    for problem in found:
        incident = known.pop((problem.kind, problem.subject), None)
        if incident is None:
            ledger.open_incident(
                kind=problem.kind,
                subject=problem.subject,
                severity=problem.severity,
                owner=problem.owner.contact,
                message=problem.message,
            )
        elif incident.severity != problem.severity:
            ledger.change_incident(incident.incident_id, severity=problem.severity, message=problem.message)
        else:
            continue
        opened += 1
    return opened, sum(ledger.resolve_incident(incident.incident_id) for incident in known.values())


def _tell(
    ledger: Ledger, teller: Teller, found: Iterable[Problem], *, now: datetime, about_routes: bool = False
) -> None:
    problems: dict[_Key, Problem] = {(problem.kind, problem.subject): problem for problem in found}
    incidents = [one for one in ledger.incidents(resolved_within=RETRIED_FOR) if (one.kind == ROUTE) is about_routes]
    if not incidents:
        return
    teller.remember(ledger.notices_taken(one.incident_id for one in incidents))
    silences = ledger.silences(ended_within=SILENCES_REMEMBERED)
    open_now = {(one.kind, one.subject) for one in incidents if one.resolved_at is None}
    for incident in reversed(incidents):  # in the order in which they began
        key = (incident.kind, incident.subject)
        about = [one for one in silences if one.covers(view=incident.view, kind=incident.kind)]
        if any(one.made_at <= now < one.ends_at for one in about):
            continue
        if incident.resolved_at is None and key in problems:
            teller.tell_open(incident, problems[key], now=now, silenced=about)
        elif incident.resolved_at is not None and key not in open_now:
            teller.tell_over(incident)


def _failing_routes(ledger: Ledger, registry: FeatureRegistry, teller: Teller) -> list[Problem]:
    """Routes that refused a notice in this look, and those that did before and were not seen to take one since.

    And those that took notices once and cannot be used now: somebody began the watch again without their variables. One
    whose variable was never set is nobody's yet.
    """
    failing = {route.name: route for route in teller.failing.values()}
    usable = {route.name: route for route in teller.all_routes()}
    for incident in ledger.incidents(open_only=True):
        route = usable.get(incident.subject)
        if incident.kind != ROUTE or route is None or route.name in failing or route.name in teller.worked:
            continue
        if not teller.probe(route, incident):
            failing[route.name] = route
            teller.failing[route.key] = route
    said = {
        name: f"{name} ({route.url.partition('://')[0]}) does not take notices; they are sent again every minute"
        for name, route in failing.items()
    }
    unset = teller.unset_routes()
    used = ledger.routes_that_took(route.key for route in unset)
    said |= {
        route.name: f"{route.name} took notices before, and a variable that it names is not set where the watch runs"
        for route in unset
        if route.key in used
    }
    return [
        problem_of_platform(ROUTE, name, registry, severity="error", message=message) for name, message in said.items()
    ]
