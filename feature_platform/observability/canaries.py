"""Stores that a value does not come through to, or that nobody has tried for long. As problems and as metrics.

Rule: judged by the ledger and a clock: a canary that is not run any more says nothing, and that is what is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Metric

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.durations import format_duration
from feature_platform.ledger import CanaryRead, Ledger
from feature_platform.observability.families import gauge
from feature_platform.observability.kinds import Problem, problem_of_platform

SILENT_AFTER: Final = timedelta(minutes=15)
"""Three rounds. A round that a deploy holds up, or one failover, is no reason to wake anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryState:
    """What is known of a store."""

    store: str
    last: CanaryRead | None
    """None: nobody ever tried."""
    good: CanaryRead | None
    """The newest value that came through."""
    since: datetime | None
    """Its event time; without one, the last deployment, from which on one is due; None if nothing is deployed."""

    def is_silent(self, now: datetime) -> bool:
        """Whether no value has come through for long."""
        return self.since is not None and now - self.since > SILENT_AFTER


def canary_states(ledger: Ledger, registry: FeatureRegistry, stores: Sequence[str]) -> tuple[CanaryState, ...]:
    """Every store, in this order; none if no view is served online."""
    return tuple(_state(ledger, store) for store in stores) if registry.served_views else ()


def _state(ledger: Ledger, store: str) -> CanaryState:
    last, good = ledger.last_canary(store), ledger.last_good_canary(store)
    since = good.written_at if good else next((one.deployed_at for one in ledger.deployments(limit=1)), None)
    return CanaryState(store=store, last=last, good=good, since=since)


def find_dead_canaries(
    ledger: Ledger, registry: FeatureRegistry, *, stores: Sequence[str], now: datetime
) -> Iterator[Problem]:
    """Stores whose last value did not come through, and those where none has for long.

    One that was read otherwise than it was written is an error at once. Another failure is a warning at first: the next
    round is five minutes away.
    """
    for state in canary_states(ledger, registry, stores):
        failed = state.last if state.last is not None and not state.last.is_ok else None
        is_silent = state.is_silent(now)
        if failed is None and not is_silent:
            continue
        is_wrong = failed is not None and failed.failed_at == "compare"
        yield problem_of_platform(
            "canary",
            f"store {state.store}",
            registry,
            severity="error" if is_silent or is_wrong else "warn",
            message=_said(state, at=_instant, now=now),  # kept for as long as it is open
            command=f"feature-platform canary --store {state.store}",
        )


def said_of(state: CanaryState, *, now: datetime) -> str:
    """One line for people who read it now."""
    return _said(state, at=lambda then: _ago(then, now), now=now)


def _said(state: CanaryState, *, at: Callable[[datetime], str], now: datetime) -> str:
    here, last = f"the canary of store {state.store}", state.last
    if last is not None and last.is_ok and not state.is_silent(now):
        took = f", {last.took.total_seconds():.2f} s from written to read" if last.took else ""
        return f"{here} came through {at(last.written_at)}{took}"
    before = f"the last value came through {at(state.good.written_at)}" if state.good else "none ever came through"
    if last is None:
        return f"{here} has never been tried"
    if last.is_ok:
        return f"{here} is not tried any more: {before}"
    return f"{here} failed at {last.failed_at} {at(last.written_at)} ({last.failure}); {before}"


def _instant(then: datetime) -> str:
    return f"at {then.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _ago(then: datetime, now: datetime) -> str:
    return f"{format_duration(timedelta(seconds=max(round((now - then).total_seconds()), 0)))} ago"


def canary_metrics(ledger: Ledger, registry: FeatureRegistry, *, store: str) -> Iterator[Metric]:
    """Of the exporter's own store."""
    states = canary_states(ledger, registry, [store])
    yield gauge(
        "canary_data_timestamp_seconds",
        "Event time of the newest canary that a client read as it was written; without one, since when one is due",
        ("store",),
        [((one.store,), one.since.timestamp()) for one in states if one.since],
    )
    yield gauge(
        "canary_ok",
        "1 if the last canary was read as it was written, else 0",
        ("store",),
        [((one.store,), int(one.last.is_ok)) for one in states if one.last],
    )
    yield gauge(
        "canary_seconds",
        "From written to read, of the newest canary that came through",
        ("store",),
        [((one.store,), one.good.took.total_seconds()) for one in states if one.good and one.good.took],
    )
