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
from feature_platform.ledger import BatchHistory, Ledger
from feature_platform.observability.freshness import (
    Freshness,
    FreshnessState,
    ServedFacts,
    judge_freshness,
    newest_event,
)

UNFINISHED_AFTER = timedelta(hours=2)
"""No run takes that long; its process is gone and its batches will never be published."""

UNSERVED_AFTER = timedelta(hours=2)
"""A sync follows a publish within minutes, or after the backfill that it belongs to. Freshness does not show a
correction of old data that never reached a store."""


KINDS = ("stale", "failing", "unfinished", "unserved", "lost")
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
