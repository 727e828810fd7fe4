"""Kinds of problems: what each means for whom, the page to read and the command to begin with. Pure.

Rule: a problem is told with its cause, its impact, a page and a command; nobody is paged with a name alone. Every kind
has its page in docs/runbooks (a test looks).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView, Owner
from feature_platform.ledger import Incident

RUNBOOKS: Final = "docs/runbooks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What all problems of one kind have in common."""

    impact: str
    """What it does to those who read features."""
    page: str
    """In docs/runbooks."""
    command: str
    """To begin with; `{view}` is the view it is about."""
    is_felt_by_services: bool = False
    """Their requests are answered otherwise than they should be, or their models learned what they should not: services
    that declared a need are told as well."""


LEDGER_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "stale": Kind(
            impact="requests get older values than the view promises, with status `stale`, and none once the ttl is"
            " over",
            page="stale-view.md",
            command="feature-platform status",
        ),
        "need": Kind(
            impact="the model is given values that are older than it says it can use",
            page="unmet-need.md",
            command="feature-platform status",
        ),
        "source": Kind(
            impact="features are computed without what the source should have brought, and look fresh",
            page="source-silent.md",
            command="feature-platform late {view}",
        ),
        "failing": Kind(
            impact="what was published before keeps serving and gets older",
            page="failed-check.md",
            command="feature-platform ledger batches {view}",
        ),
        "unfinished": Kind(
            impact="nobody sees these batches; their partitions may be missing",
            page="unfinished-batch.md",
            command="feature-platform ledger unfinished",
        ),
        "unserved": Kind(
            impact="training sees values that serving has not got",
            page="sync-behind.md",
            command="feature-platform sync {view}",
        ),
        "lost": Kind(
            impact="requests get no values until a sync has built them again",
            page="store-lost.md",
            command="feature-platform sync {view}",
            is_felt_by_services=True,
        ),
        "parity": Kind(
            impact="requests get other values than training will see for the same instant",
            page="parity.md",
            command="feature-platform parity {view} --full",
            is_felt_by_services=True,
        ),
        "late": Kind(
            impact="none on what is served; training and serving are without the rows",
            page="late-data.md",
            command="feature-platform late {view}",
        ),
        "held": Kind(
            impact="none on what is served; the new batch waits for a decision",
            page="held-batch.md",
            command="feature-platform late diff {view}",
        ),
        "missing": Kind(
            impact="training and serving are without these partitions; the rows of their entities are those of before",
            page="missing-partitions.md",
            command="feature-platform backfill {view} --all --missing",
        ),
    }
)
"""Derived from the ledger alone, per view. Metrics show a zero for each, so that what is not wrong is not merely
absent."""

WATCH_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "unreachable": Kind(
            impact="requests for features fail in this store; what is published meanwhile is not brought to it",
            page="store-down.md",
            command="feature-platform status",
            is_felt_by_services=True,
        ),
        "canary": Kind(
            impact="what is published may not reach requests, or not as it was computed",
            page="canary.md",
            command="feature-platform canary",
        ),
        "leaks": Kind(
            impact="models trained on it look better than they are, and online they get other values than they learned"
            " from",
            page="leaking-feature.md",
            command="feature-platform audit leakage {view}",
            is_felt_by_services=True,
        ),
        "run_failed": Kind(
            impact="what the run was to make is missing; what was there before is still read",
            page="failed-run.md",
            command="feature-platform status",
        ),
        "run_stuck": Kind(
            impact="what the run is to make comes late, and it keeps others from its place in the queue",
            page="stuck-run.md",
            command="feature-platform ledger unfinished",
        ),
        "clock": Kind(
            impact="runs on these machines compute, load and sync nothing; what was there before is served and gets"
            " older",
            page="wrong-clock.md",
            command="feature-platform status",
        ),
        "automation": Kind(
            impact="what it starts or looks at is left undone, without any run that fails",
            page="automation-off.md",
            command="feature-platform status",
        ),
        "route": Kind(
            impact="people who should be told of problems are not",
            page="route-failing.md",
            command="feature-platform status",
        ),
    }
)
"""Found by the watch in the daemon: by asking stores, clocks, Dagster and the routes themselves; and the canary."""

KINDS: Final[Mapping[str, Kind]] = MappingProxyType({**LEDGER_KINDS, **WATCH_KINDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong. Kind and subject are its identity from one look to the next."""

    kind: str
    """One of `KINDS`."""
    subject: str
    """The view's key, and after a space the place if that matters; else the part of the platform."""
    severity: str
    """`warn` or `error`."""
    owner: Owner
    message: str
    """What is wrong, and why."""
    impact: str = ""
    """On whom, with what consequence."""
    command: str = ""
    consumers: tuple[Owner, ...] = ()
    """Owners of services that feel it and declared a need."""

    @property
    def view(self) -> str:
        """The view that is wrong, by its key; the first word of the subject if it is about none."""
        return self.subject.partition(" ")[0]

    @property
    def runbook(self) -> str:
        """The page to read."""
        return f"{RUNBOOKS}/{KINDS[self.kind].page}"


def problem_of_view(
    kind: str, view: FeatureView, registry: FeatureRegistry, *, severity: str, message: str, place: str = ""
) -> Problem:
    """A problem of a view, told to its owner, and to consumers that feel it and declared a need."""
    about = KINDS[kind]
    services = registry.services_reading(view.key)
    return Problem(
        kind=kind,
        subject=f"{view.key} in {place}" if place else view.key,
        severity=severity,
        owner=view.owner,
        message=message,
        impact=f"{about.impact} ({_named(services)})",
        command=about.command.format(view=view.key),
        consumers=_with_needs(services) if about.is_felt_by_services else (),
    )


def problem_of_platform(
    kind: str,
    subject: str,
    registry: FeatureRegistry,
    *,
    severity: str,
    message: str,
    command: str = "",
) -> Problem:
    """A problem of the platform itself, told to its own people."""
    about = KINDS[kind]
    services = tuple(registry.services.values()) if about.is_felt_by_services else ()
    return Problem(
        kind=kind,
        subject=subject,
        severity=severity,
        owner=registry.platform,
        message=message,
        impact=f"{about.impact} ({_named(services)})" if services else about.impact,
        command=command or about.command,
        consumers=_with_needs(services),
    )


def known_to_watch(incidents: Iterable[Incident]) -> tuple[Problem, ...]:
    """Open incidents of the kinds that only the watch can find, as problems again."""
    return tuple(
        Problem(
            kind=incident.kind,
            subject=incident.subject,
            severity=incident.severity,
            owner=Owner(name=incident.owner, email=incident.owner),
            message=incident.message,
            impact=WATCH_KINDS[incident.kind].impact,
            command=WATCH_KINDS[incident.kind].command.format(view=incident.view),
        )
        for incident in incidents
        if incident.kind in WATCH_KINDS
    )


def _with_needs(services: tuple[FeatureService, ...]) -> tuple[Owner, ...]:
    return tuple(dict.fromkeys(one.owner for one in services if one.latency_budget or one.freshness))


def _named(services: tuple[FeatureService, ...]) -> str:
    if not services:
        return "no declared service reads it"
    return f"read by {', '.join(one.name for one in services)}"
