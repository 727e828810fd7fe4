"""What is wrong now, read from the ledger: stale views, partitions that fail, batches unfinished or not served.

Rule: level, not edge. The same facts give the same problems however often one looks; `incidents` makes news of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.late_data import LateState, judge_late
from feature_platform.domain.windows import floor, format_partitions, partition_starting
from feature_platform.ledger import BatchHistory, HeldBatch, Ledger
from feature_platform.observability.freshness import (
    Freshness,
    FreshnessState,
    ServedFacts,
    compare,
    judge_freshness,
    newest_event,
)
from feature_platform.observability.kinds import KINDS, Problem, known_to_watch, problem_of_view
from feature_platform.observability.missing import find_missing

UNFINISHED_AFTER = timedelta(hours=2)
"""No run takes that long; its process is gone and its batches will never be published."""

LATE_AFTER = timedelta(hours=2)
"""A recomputation that is due begins within minutes, or when the backfill before it has ended."""

UNSERVED_AFTER = timedelta(hours=2)
"""A sync follows a publish within minutes, or after the backfill that it belongs to. Freshness does not show a
correction of old data that never reached a store."""


def served_facts(ledger: Ledger, view: FeatureView, store: str) -> ServedFacts:
    """What the ledger knows of a view in a store."""
    since = max(view.begin, ledger.first_deployed(view.key) or view.begin)
    if not view.is_served:
        return ServedFacts(store=None, newest_event=newest_event(ledger.active_batches(view.key)), expected_since=since)
    served = ledger.active_batches(view.key, at_position=ledger.synced_position(view.key, store))
    return ServedFacts(store=store, newest_event=newest_event(served), expected_since=since)


def freshness_of(
    ledger: Ledger, registry: FeatureRegistry, *, stores: Sequence[str], now: datetime
) -> tuple[Freshness, ...]:
    """Freshness of every view in every store; of a view that is not served, once, by what is published."""
    return tuple(
        one for view in registry.views.values() for one in freshness_of_view(ledger, view, stores=stores, now=now)
    )


def freshness_of_view(
    ledger: Ledger, view: FeatureView, *, stores: Sequence[str], now: datetime
) -> tuple[Freshness, ...]:
    """Freshness of one view in every store; of one that is not served, once."""
    judged = stores if view.is_served else stores[:1]
    return tuple(judge_freshness(view, served_facts(ledger, view, store), now=now) for store in judged)


def find_problems(
    ledger: Ledger, registry: FeatureRegistry, *, stores: Sequence[str], now: datetime
) -> tuple[Problem, ...]:
    """Everything that is wrong at an instant, as far as the ledger knows."""
    return tuple(_find(ledger, registry, stores, now))


def all_problems(
    ledger: Ledger, registry: FeatureRegistry, *, stores: Sequence[str], now: datetime
) -> tuple[Problem, ...]:
    """Everything that is wrong: what the ledger knows now, and what the watch found elsewhere at its last look."""
    known = find_problems(ledger, registry, stores=stores, now=now)
    return (*known, *known_to_watch(ledger.incidents(open_only=True)))


def _find(ledger: Ledger, registry: FeatureRegistry, stores: Sequence[str], now: datetime) -> Iterator[Problem]:
    for freshness in freshness_of(ledger, registry, stores=stores, now=now):
        yield from _stale(registry, registry.views[freshness.view], freshness)
        yield from _needs(registry, registry.views[freshness.view], freshness)
    failed = {one.subject for one in ledger.incidents(open_only=True) if one.kind == "run_failed"}
    for view in registry.views.values():
        for source in view.sources:
            yield from _silent(registry, view, source, ledger, now=now)
        yield from _failing(registry, view, ledger.failing(view.key))
        if view.key not in failed:  # its failed runs are told of, with their reason: this would be the same news again
            yield from find_missing(ledger, registry, view, now=now)
        yield from _unfinished(registry, view, ledger, now=now)
        for store in stores if view.is_served else ():
            yield from _unserved(registry, view, ledger, store, now=now)
            yield from _lost(registry, view, ledger, store)
            yield from _differs(registry, view, ledger, store)
        yield from _late(registry, view, ledger, now=now)
        yield from _held(registry, view, ledger.held(view.key))


def _place(freshness: Freshness) -> str:
    return f"store {freshness.store}" if freshness.store else "the lake"


def _how_old(freshness: Freshness) -> str:
    age = format_duration(freshness.age)
    if freshness.newest_event is None:
        return f"nothing was ever served, {age} after it could have been"
    return f"its newest event ({freshness.newest_event.isoformat()}) is {age} old"


def _stale(registry: FeatureRegistry, view: FeatureView, freshness: Freshness) -> Iterator[Problem]:
    if freshness.state in (FreshnessState.FRESH, FreshnessState.WAITING) or freshness.allowed is None:
        return
    yield problem_of_view(
        "stale",
        view,
        registry,
        place=_place(freshness),
        severity=freshness.state.value,
        message=f"{view.key} in {_place(freshness)} is stale: {_how_old(freshness)},"
        f" {format_duration(freshness.allowed)} are allowed",
    )


def _silent(
    registry: FeatureRegistry, view: FeatureView, source: Source, ledger: Ledger, *, now: datetime
) -> Iterator[Problem]:
    """A source that brings nothing new: its loads may succeed all the same, and what is computed looks fresh."""
    load = ledger.source_load(source.name)
    if load is None:
        return
    # one that never brought a row is as silent as one that stopped
    newest = load.watermark or ledger.first_loaded_at(source.name) or load.loaded_at
    state, allowed = compare(source.freshness, now - newest)
    if state is FreshnessState.FRESH or allowed is None:
        return
    yield problem_of_view(
        "source",
        view,
        registry,
        place=f"source {source.name}",
        severity=state.value,
        message=f"source {source.name} of {view.key} has brought nothing for {format_duration(now - newest)}"
        f" ({f'newest row {newest.isoformat()}' if load.watermark else 'no row ever'}), {format_duration(allowed)} are"
        f" allowed; loaded through {load.loaded_through.isoformat()}",
    )


def _needs(registry: FeatureRegistry, view: FeatureView, freshness: Freshness) -> Iterator[Problem]:
    """Services that need fresher values than they are given, whatever the view itself promises."""
    for service in registry.services_reading(view.key) if freshness.store else ():
        if not can_meet(view, service) or service.freshness is None or freshness.age <= service.freshness:
            continue
        yield Problem(
            kind="need",
            subject=f"{view.key} in {_place(freshness)} for {service.name}",
            severity="error",
            owner=service.owner,
            message=f"service {service.name} needs values of {view.key} no older than"
            f" {format_duration(service.freshness)}; in {_place(freshness)} {_how_old(freshness)}."
            f" Owner of the view: {view.owner.contact}",
            impact=KINDS["need"].impact,
            command=KINDS["need"].command,
        )


def can_meet(view: FeatureView, service: FeatureService) -> bool:
    """Whether a view that is on time is as fresh as the service needs.

    A daily view never is three hours fresh, and that is no incident: a service declares one need for all it reads.
    """
    partition = partition_starting(floor(view.begin, view.grain), view.grain)
    oldest = partition.end - partition.start + view.availability_delay
    return service.freshness is not None and oldest <= service.freshness


def _failing(registry: FeatureRegistry, view: FeatureView, failed: Sequence[BatchHistory]) -> Iterator[Problem]:
    """Partitions whose last finished attempt failed."""
    if not failed:
        return
    last = max(failed, key=lambda history: history.batch.seq)
    keys = ", ".join(history.batch.partition.key for history in failed[:5]) + (", …" if len(failed) > 5 else "")  # noqa: PLR2004
    yield problem_of_view(
        "failing",
        view,
        registry,
        severity="error",
        message=f"{view.key} fails for {len(failed)} partition(s) ({keys}); what was published before keeps serving."
        f" Last reason: {last.failure}",
    )


def _unfinished(registry: FeatureRegistry, view: FeatureView, ledger: Ledger, *, now: datetime) -> Iterator[Problem]:
    left = [one for one in ledger.unfinished(view.key) if now - one.opened_at > UNFINISHED_AFTER]
    if not left:
        return
    yield problem_of_view(
        "unfinished",
        view,
        registry,
        severity="warn",
        message=f"{view.key} has {len(left)} batch(es) opened more than {format_duration(UNFINISHED_AFTER)} ago and"
        f" never finished (first: {left[0].batch.partition.key}, run {left[0].run_id}); nobody sees them",
    )


def _unserved(
    registry: FeatureRegistry, view: FeatureView, ledger: Ledger, store: str, *, now: datetime
) -> Iterator[Problem]:
    synced = ledger.synced_position(view.key, store)
    first = next(iter(ledger.published_between(view.key, synced, synced + 1)), None)
    if first is None or now - first.published_at <= UNSERVED_AFTER:
        return
    yield problem_of_view(
        "unserved",
        view,
        registry,
        place=f"store {store}",
        severity="warn",
        message=f"{view.key} has {ledger.head(view.key) - synced} publish(es) that store {store} has not got, the first"
        f" ({first.partition.key}) since {format_duration(now - first.published_at)};"
        f" `feature-platform sync {view.key}` brings them",
    )


def _lost(registry: FeatureRegistry, view: FeatureView, ledger: Ledger, store: str) -> Iterator[Problem]:
    """The store lost what it held of a view, and no sync has brought it back yet."""
    incident = next(reversed(ledger.served_history(view.key, store).incidents), None)
    if incident is None or incident.until is not None:
        return
    yield problem_of_view(
        "lost",
        view,
        registry,
        place=f"store {store}",
        severity="error",
        message=f"store {store} was {incident.loss.value} after {incident.since.isoformat()} and does not hold"
        f" {view.key} as the ledger says; `feature-platform sync {view.key}` builds it again",
    )


def _differs(registry: FeatureRegistry, view: FeatureView, ledger: Ledger, store: str) -> Iterator[Problem]:
    """A comparison found other values than the ledger derives, and none has cleared it since."""
    found = ledger.open_difference(view.key, store)
    if found is None:
        return
    causes = ", ".join(f"{cause} {count}" for cause, count in found.causes.items() if count)
    yield problem_of_view(
        "parity",
        view,
        registry,
        place=f"store {store}",
        severity="error",
        message=f"{found.differing} of {found.compared} rows of {view.key} compared in store {store} at"
        f" {found.checked_at.isoformat(timespec='seconds')} differ from what the ledger derives ({causes});"
        f" `feature-platform parity {view.key} --full --repair` brings them back",
    )


def _late(registry: FeatureRegistry, view: FeatureView, ledger: Ledger, *, now: datetime) -> Iterator[Problem]:
    """Rows that came after the window of the view's policy, and recomputations that never began."""
    found = [(late, judge_late(late, view.late_data)) for late in ledger.late_partitions(view.key)]
    beyond = [late for late, state in found if state is LateState.BEYOND]
    overdue = [late for late, state in found if state is LateState.DUE and now - late.found_at > LATE_AFTER]
    if not beyond and not overdue:
        return
    said = []
    if beyond:
        said.append(
            f"{len(beyond)} partition(s) miss rows that came more than {format_duration(view.late_data.window)} after"
            f" their end ({format_partitions(late.partition for late in beyond)}); nothing is recomputed by itself"
        )
    if overdue:
        said.append(
            f"nothing recomputes {format_partitions(late.partition for late in overdue)}, though rows came too late"
        )
    yield problem_of_view(
        "late",
        view,
        registry,
        severity="warn",
        message=f"{view.key}: {'; '.join(said)}; `feature-platform late {view.key}` says what to do",
    )


def _held(registry: FeatureRegistry, view: FeatureView, held: Sequence[HeldBatch]) -> Iterator[Problem]:
    if not held:
        return
    yield problem_of_view(
        "held",
        view,
        registry,
        severity="warn",
        message=f"{view.key}: {format_partitions(one.batch.partition for one in held)} computed again for late rows,"
        f" held since {format_duration(max(one.age for one in held))}; look with"
        f" `feature-platform late diff {view.key}`, then `late approve` or `late reject`",
    )
