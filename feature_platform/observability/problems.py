"""What is wrong now, read from the ledger: stale views, partitions that fail, batches unfinished or not served.

Rule: level, not edge. The same facts give the same problems however often one looks; `incidents` makes news of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView, OnlineTier, Owner
from feature_platform.domain.late_data import LateState, judge, named
from feature_platform.ledger import BatchHistory, HeldBatch, Ledger
from feature_platform.observability.freshness import (
    Freshness,
    FreshnessState,
    ServedFacts,
    judge_freshness,
    newest_event,
)

UNFINISHED_AFTER = timedelta(hours=2)
"""No run takes that long; its process is gone and its batches will never be published."""

LATE_AFTER = timedelta(hours=2)
"""A recomputation that is due begins within minutes, or when the backfill before it has ended."""

UNSERVED_AFTER = timedelta(hours=2)
"""A sync follows a publish within minutes, or after the backfill that it belongs to. Freshness does not show a
correction of old data that never reached a store."""


KINDS = ("stale", "failing", "unfinished", "unserved", "lost", "late", "held")
"""Of problems. Metrics show a zero for each, so that what is not wrong is not merely absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong. Kind and subject are its identity from one look to the next."""

    kind: str
    """One of `KINDS`."""
    subject: str
    """The view's key, and after a space the place if that matters."""
    severity: str
    """`warn` or `error`."""
    owner: Owner
    message: str

    @property
    def view(self) -> str:
        """The view that is wrong, by its key."""
        return self.subject.partition(" ")[0]


def served_facts(ledger: Ledger, view: FeatureView, store: str) -> ServedFacts:
    """What the ledger knows of a view in a store."""
    deployed = [one.deployed_at for one in ledger.deployments() if view.key in one.views]
    since = max(view.begin, min(deployed, default=view.begin))
    if view.online is OnlineTier.NONE:
        return ServedFacts(store=None, newest_event=newest_event(ledger.active_batches(view.key)), expected_since=since)
    served = ledger.active_batches(view.key, at_position=ledger.synced_position(view.key, store))
    return ServedFacts(store=store, newest_event=newest_event(served), expected_since=since)


def freshness_of(ledger: Ledger, registry: FeatureRegistry, *, store: str, now: datetime) -> tuple[Freshness, ...]:
    """Freshness of every view."""
    return tuple(judge_freshness(view, served_facts(ledger, view, store), now=now) for view in registry.views.values())


def find_problems(ledger: Ledger, registry: FeatureRegistry, *, store: str, now: datetime) -> tuple[Problem, ...]:
    """Everything that is wrong at an instant."""
    problems = [_stale(registry.views[one.view], one) for one in freshness_of(ledger, registry, store=store, now=now)]
    for view in registry.views.values():
        problems.append(_failing(view, ledger.failing(view.key)))
        problems.append(_unfinished(view, ledger, now=now))
        problems.append(_unserved(view, ledger, store, now=now))
        problems.append(_lost(view, ledger, store))
        problems.append(_late(view, ledger, now=now))
        problems.append(_held(view, ledger.held(view.key)))
    return tuple(problem for problem in problems if problem is not None)


def _stale(view: FeatureView, freshness: Freshness) -> Problem | None:
    if freshness.state in (FreshnessState.FRESH, FreshnessState.WAITING) or freshness.allowed is None:
        return None
    where = f"store {freshness.store}" if freshness.store else "the lake"
    age, allowed = format_duration(freshness.age), format_duration(freshness.allowed)
    if freshness.newest_event is None:
        what = f"nothing was ever served, {age} after it could have been"
    else:
        what = f"its newest event ({freshness.newest_event.isoformat()}) is {age} old"
    return Problem(
        kind="stale",
        subject=f"{view.key} in {where}",
        severity=freshness.state.value,
        owner=view.owner,
        message=f"{view.key} in {where} is stale: {what}, {allowed} are allowed",
    )


def _failing(view: FeatureView, failed: Sequence[BatchHistory]) -> Problem | None:
    """Partitions whose last finished attempt failed."""
    if not failed:
        return None
    last = max(failed, key=lambda history: history.batch.seq)
    keys = ", ".join(history.batch.partition.key for history in failed[:5]) + (", …" if len(failed) > 5 else "")  # noqa: PLR2004
    return Problem(
        kind="failing",
        subject=view.key,
        severity="error",
        owner=view.owner,
        message=f"{view.key} fails for {len(failed)} partition(s) ({keys}); what was published before keeps serving."
        f" Last reason: {last.failure}",
    )


def _unfinished(view: FeatureView, ledger: Ledger, *, now: datetime) -> Problem | None:
    left = [one for one in ledger.unfinished(view.key) if now - one.opened_at > UNFINISHED_AFTER]
    if not left:
        return None
    return Problem(
        kind="unfinished",
        subject=view.key,
        severity="warn",
        owner=view.owner,
        message=f"{view.key} has {len(left)} batch(es) opened more than {format_duration(UNFINISHED_AFTER)} ago and"
        f" never finished (first: {left[0].batch.partition.key}, run {left[0].run_id}); nobody sees them",
    )


def _unserved(view: FeatureView, ledger: Ledger, store: str, *, now: datetime) -> Problem | None:
    if view.online is OnlineTier.NONE:
        return None
    synced = ledger.synced_position(view.key, store)
    first = next(iter(ledger.published_between(view.key, synced, synced + 1)), None)
    if first is None or now - first.published_at <= UNSERVED_AFTER:
        return None
    return Problem(
        kind="unserved",
        subject=f"{view.key} in store {store}",
        severity="warn",
        owner=view.owner,
        message=f"{view.key} has {ledger.head(view.key) - synced} publish(es) that store {store} has not got, the first"
        f" ({first.partition.key}) since {format_duration(now - first.published_at)};"
        f" `feature-platform sync {view.key}` brings them",
    )


def _lost(view: FeatureView, ledger: Ledger, store: str) -> Problem | None:
    """The store lost what it held of a view, and no sync has brought it back yet."""
    if view.online is OnlineTier.NONE:
        return None
    incident = next(reversed(ledger.served_history(view.key, store).incidents), None)
    if incident is None or incident.until is not None:
        return None
    return Problem(
        kind="lost",
        subject=f"{view.key} in store {store}",
        severity="error",
        owner=view.owner,
        message=f"store {store} was {incident.loss.value} after {incident.since.isoformat()} and does not hold"
        f" {view.key} as the ledger says; `feature-platform sync {view.key}` builds it again",
    )


def _late(view: FeatureView, ledger: Ledger, *, now: datetime) -> Problem | None:
    """Rows that came after the window of the view's policy, and recomputations that never began."""
    found = [(late, judge(late, view.late_data)) for late in ledger.late_partitions(view.key)]
    beyond = [late for late, state in found if state is LateState.BEYOND]
    overdue = [late for late, state in found if state is LateState.DUE and now - late.found_at > LATE_AFTER]
    if not beyond and not overdue:
        return None
    said = []
    if beyond:
        rows = sum(late.row_count for late in beyond)
        said.append(
            f"{rows} row(s) came more than {format_duration(view.late_data.window)} after the end of partitions that"
            f" read them ({named([late.partition for late in beyond])}); nothing is recomputed by itself"
        )
    if overdue:
        said.append(f"nothing recomputes {named([late.partition for late in overdue])}, though rows came too late")
    return Problem(
        kind="late",
        subject=view.key,
        severity="warn",
        owner=view.owner,
        message=f"{view.key}: {'; '.join(said)}; `feature-platform late {view.key}` says what to do",
    )


def _held(view: FeatureView, held: Sequence[HeldBatch]) -> Problem | None:
    if not held:
        return None
    return Problem(
        kind="held",
        subject=view.key,
        severity="warn",
        owner=view.owner,
        message=f"{view.key}: {named([one.batch.partition for one in held])} computed again for late rows, held since"
        f" {format_duration(max(one.age for one in held))}; look with `feature-platform late diff {view.key}`, then"
        f" `late approve` or `late reject`",
    )
