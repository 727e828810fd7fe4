"""Incidents: problems told once when they begin and once when they end.

Rule: the ledger's record changes only after the notice was taken, so one that nobody took is sent again at the next
look, and a crash in between repeats a notice but never loses one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import Owner
from feature_platform.ledger import Incident, Ledger
from feature_platform.observability.notifying import Notice, notify
from feature_platform.observability.problems import KINDS, Problem, find_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchReport:
    """What a look found and told."""

    problems: tuple[Problem, ...]
    opened: int
    resolved: int
    untold: int
    """Notices that nobody took; they are tried again."""

    def __str__(self) -> str:
        if not self.problems and not self.resolved:
            return "nothing is wrong"
        untold = f", {self.untold} notice(s) not taken" if self.untold else ""
        return f"{len(self.problems)} problem(s) open: {self.opened} new, {self.resolved} resolved{untold}"


def watch(
    ledger: Ledger,
    registry: FeatureRegistry,
    *,
    store: str,
    now: datetime,
    log: Callable[[], logging.Logger],
    environ: Mapping[str, str] | None = None,
) -> WatchReport:
    """Look once: open what is new, resolve what is over, tell the owners.

    Args:
        ledger: what happened.
        registry: the views and their owners.
        store: the online store that is judged.
        now: the instant to judge by.
        log: asked for its logger only when there is something to tell, because Dagster's makes a file for every tick
            that touches it.
        environ: where routes find their variables; by default the process's own.
    """
    problems = find_problems(ledger, registry, store=store, now=now)
    known = {(one.kind, one.subject): one for one in ledger.incidents(open_only=True) if one.kind in KINDS}
    opened = resolved = untold = 0
    for problem in problems:
        incident = known.pop((problem.kind, problem.subject), None)
        if incident is not None and incident.severity == problem.severity:
            continue
        if not notify(_firing(problem), problem.owner, log=log(), environ=environ):
            untold += 1
            continue
        if incident is not None:  # it got worse or better: one notice, and the record follows
            ledger.resolve_incident(incident.incident_id)
        ledger.open_incident(
            kind=problem.kind,
            subject=problem.subject,
            severity=problem.severity,
            owner=problem.owner.email,
            message=problem.message,
        )
        opened += 1
    for incident in known.values():
        if notify(_over(incident), _owner_of(incident, registry), log=log(), environ=environ):
            ledger.resolve_incident(incident.incident_id)
            resolved += 1
        else:
            untold += 1
    return WatchReport(problems=problems, opened=opened, resolved=resolved, untold=untold)


def _firing(problem: Problem) -> Notice:
    return Notice(
        status="firing",
        kind=problem.kind,
        subject=problem.subject,
        severity=problem.severity,
        owner=problem.owner.email,
        message=problem.message,
    )


def _over(incident: Incident) -> Notice:
    return Notice(
        status="resolved",
        kind=incident.kind,
        subject=incident.subject,
        severity=incident.severity,
        owner=incident.owner,
        message=f"over: {incident.message}",
    )


def _owner_of(incident: Incident, registry: FeatureRegistry) -> Owner:
    """Whom the incident was told to; the view may have gone since."""
    for view in registry.views.values():
        if incident.subject.split(" ")[0] == view.key:
            return view.owner
    return Owner(name=incident.owner, email=incident.owner)
