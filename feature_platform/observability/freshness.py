"""Freshness by data time: the age of the newest `event_timestamp` that is served, against the view's SLA. Pure.

Rule: what counts is the data, not the runs. Computing an old partition again, or publishing without a sync, makes
nothing fresh; and a view goes stale by the clock alone.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import FeatureView, FreshnessSla
from feature_platform.domain.windows import aware_utc


class FreshnessState(enum.StrEnum):
    """How the age compares with the SLA."""

    WAITING = "waiting"
    """Nothing was ever served, and it is not overdue yet."""
    FRESH = "fresh"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFacts:
    """What the ledger knows of a view in one store."""

    store: str | None
    """None for a view that is not served online: what is published counts."""
    newest_event: datetime | None
    """Newest event time that a completed sync covers; None if nothing was ever served."""
    expected_since: datetime
    """From when on the view was expected to serve: the age of one that never did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """The verdict on a view in one store."""

    view: str
    store: str | None
    state: FreshnessState
    newest_event: datetime | None
    age: timedelta
    """Of the newest event; without one, how long the view has been expected to serve."""
    allowed: timedelta | None
    """The bound it broke, or the tightest if it broke none; None without an SLA."""


def newest_event(active: Iterable[PublishedBatch]) -> datetime | None:
    """The newest event time batches can hold: the end of the last partition with rows.

    An empty batch makes nothing fresh: it has no event time.
    """
    return max((batch.partition.end for batch in active if batch.row_count), default=None)


def judge_freshness(view: FeatureView, facts: ServedFacts, *, now: datetime) -> Freshness:
    """Compare the age of the newest served event with the SLA; what was never served is never fresh."""
    # in UTC: Python subtracts two instants of one zone by their wall clocks, an hour wrong across a change of time
    age = aware_utc(now) - aware_utc(facts.newest_event or facts.expected_since)
    state, allowed = compare(view.freshness, age)
    if facts.newest_event is None and state is FreshnessState.FRESH:
        state = FreshnessState.WAITING
    return Freshness(
        view=view.key, store=facts.store, state=state, newest_event=facts.newest_event, age=age, allowed=allowed
    )


def compare(sla: FreshnessSla, age: timedelta) -> tuple[FreshnessState, timedelta | None]:
    """The state of something so old, and the bound that it broke or, if none, the tightest."""
    if sla.error_after is not None and age > sla.error_after:
        return FreshnessState.ERROR, sla.error_after
    if sla.warn_after is not None and age > sla.warn_after:
        return FreshnessState.WARN, sla.warn_after
    return FreshnessState.FRESH, sla.warn_after or sla.error_after
