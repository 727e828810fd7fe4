"""Partitions that came due and that no run ever began to compute: nothing failed in the ledger, and nothing is there.

Rule: what came due since the view was first deployed is the platform's to compute, however long it was down; what lies
before that is a backfill's, and a person's. A partition with any batch is not missing: whether that failed, is held or
was never finished, other kinds tell. One whose runs were cut off is to be computed again all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.due import came_due
from feature_platform.domain.feature_view import FeatureView, LatePolicy
from feature_platform.domain.windows import Partition
from feature_platform.ledger import Ledger
from feature_platform.observability.kinds import Problem, problem_of_view

MISSING_AFTER = timedelta(hours=2)
"""A partition's run begins when it is due, or when the source is there, or the backfill before it has ended."""
BEGUN_AGAIN_AFTER = timedelta(minutes=15)
"""Dagster itself begins a run again that died, within minutes."""
MAX_ATTEMPTS = 6
"""Dagster makes three of one request. What kills its runs again and again is a matter for people, who are told."""


def missing_partitions(ledger: Ledger, view: FeatureView, *, by: datetime) -> tuple[Partition, ...]:
    """What became due by an instant, since the view was first deployed, and has no batch; oldest first."""
    due = _came_due(ledger, view, by=by)
    return ledger.never_begun(view.key, *due) if due else ()


def cut_off_partitions(ledger: Ledger, view: FeatureView, *, now: datetime) -> tuple[Partition, ...]:
    """What became due since the view was first deployed, and whose runs died, but not too many of them; oldest first.

    Recomputations included, unless their results wait for approval: who asked for such a one asks again.
    """
    due = _came_due(ledger, view, by=now)
    if due is None:
        return ()
    again = view.late_data.policy is not LatePolicy.VERSION
    return ledger.cut_off(view.key, *due, before=now - BEGUN_AGAIN_AFTER, attempts=MAX_ATTEMPTS, again=again)


def _came_due(ledger: Ledger, view: FeatureView, *, by: datetime) -> tuple[Partition, Partition] | None:
    deployed_at = ledger.first_deployed(view.key)
    return came_due(view, after=deployed_at, by=by) if deployed_at is not None else None


def loaded_for(ledger: Ledger, view: FeatureView) -> datetime:
    """The latest end of a partition that the sources of a view are loaded far enough for, reporting lag included."""
    ends = []
    for source in view.sources:
        loaded = ledger.loaded_through(source.name)
        ends.append(loaded - source.reporting_lag if loaded is not None else datetime.min.replace(tzinfo=UTC))
    return min(ends, default=datetime.max.replace(tzinfo=UTC))


def find_missing(ledger: Ledger, registry: FeatureRegistry, view: FeatureView, *, now: datetime) -> Iterator[Problem]:
    """What of a view is missing for longer than it takes to be computed by itself, as one problem."""
    missing = missing_partitions(ledger, view, by=now - MISSING_AFTER)
    if not missing:
        return
    first, last = missing[0].key, missing[-1].key
    loaded = loaded_for(ledger, view)
    waiting = sum(one.end > loaded for one in missing)
    yield problem_of_view(
        "missing",
        view,
        registry,
        severity="error",
        message=f"{view.key} has no batch of {len(missing)} partition(s) that came due"
        f" ({first if first == last else f'{first} to {last}'})"
        + (f"; {waiting} of them wait for their sources" if waiting else ""),
    )
