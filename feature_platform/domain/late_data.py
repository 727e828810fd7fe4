"""Late data: source rows that arrived after a partition which may read them was computed, and what the policy says.

Rule: a partition is late if a row it may read arrived after its watermark. Everything here is pure; whether a row was
late is recorded by a scan, what is late *now* follows from that and from the batches since.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.domain.feature_view import LateData, LatePolicy
from feature_platform.domain.windows import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedPartition:
    """A partition whose batch has read a source, or is about to: what a row must be, to come too late for it."""

    partition: Partition
    seen_through: datetime | None
    """Rows that arrived later were not read; None: none were."""
    lookback: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """How long rows took from their event time to their arrival."""

    p50: timedelta
    p90: timedelta
    p99: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRows:
    """Rows of one source that came too late for one partition of a view."""

    view: str
    partition: Partition
    row_count: int
    oldest_event: datetime
    first_arrival: datetime
    last_arrival: datetime
    longest_lag: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LateView:
    """What a scan found for one view."""

    view: str
    row_count: int
    """Rows that at least one partition had not read; a row may concern many partitions."""
    lags: Lags
    partitions: tuple[LateRows, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LateScan:
    """One look at the rows of a source that arrived in (arrived_after, arrived_through]."""

    source: str
    arrived_after: datetime
    arrived_through: datetime
    row_count: int
    overdue_rows: int
    """Rows that took longer than the source's declared reporting lag, whether or not a partition missed them."""
    lags: Lags | None
    """None without rows."""
    views: tuple[LateView, ...]
    seconds: float
    ledger_seq: int = 0
    """0 until it is recorded."""
    scanned_at: datetime | None = None


class LateState(enum.StrEnum):
    """What is to happen with late rows of a partition."""

    DUE = "due"
    """To be recomputed; nothing was tried yet."""
    RUNNING = "running"
    """A batch that has read them is being computed, or its process died."""
    FAILED = "failed"
    """A batch that has read them failed; it is not tried again for the same rows."""
    HELD = "held"
    """A batch that has read them waits for approval."""
    REJECTED = "rejected"
    """Such a batch was rejected: the values without these rows were meant to stay."""
    BEYOND = "beyond"
    """They arrived after the policy's window."""
    IGNORED = "ignored"
    """The policy is `ignore`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatePartition:
    """A partition whose active batch has not read rows that it may read."""

    view: str
    partition: Partition
    sources: tuple[str, ...]
    row_count: int
    oldest_event: datetime
    first_arrival: datetime
    last_arrival: datetime
    longest_lag: timedelta
    found_seq: int
    """Number of the last scan that found some of the rows."""
    found_at: datetime
    """Since when rows are known that no batch was opened for. Others that are found meanwhile do not make it later."""
    active_batch: str
    active_rows: int
    compute_seconds: float
    """Of the active batch: what computing it again is likely to cost."""
    attempt: str | None
    """State of the newest batch that has read the rows, and is not the active one; None if there is none."""
    attempt_batch: str | None


_ATTEMPTS = {"held": LateState.HELD, "rejected": LateState.REJECTED, "failed": LateState.FAILED}


def judge_late(late: LatePartition, policy: LateData) -> LateState:
    """What the policy says of a late partition."""
    if late.attempt is not None:
        return _ATTEMPTS.get(late.attempt, LateState.RUNNING)
    if policy.policy is LatePolicy.IGNORE:
        # without a window of its own, `ignore` means whatever comes
        beyond = late.last_arrival - late.partition.end > policy.window
        return LateState.BEYOND if beyond and policy.window else LateState.IGNORED
    # if some came within the window, the partition is computed again, and reads the others as well
    return LateState.BEYOND if late.first_arrival - late.partition.end > policy.window else LateState.DUE
