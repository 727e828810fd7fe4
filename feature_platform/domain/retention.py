"""Which batches may lose their rows: a pure function of what the ledger says.

Rule: a deletion changes no answer that is promised. What is active, waits for approval or is needed by a kept training
set stays, whatever its age. A batch that was never published is visible to nobody and goes after a safe age. A
superseded one goes only if the view declares for how long it is kept (`retention.superseded`), and then not before

- it has been superseded for that long,
- its rows have been dead for that long (its partition's end + ttl), so that no label younger than the retention can
  have seen it in any store; and where rows never die (no ttl), every store that ever served the view has been without
  it for that long.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from feature_platform.domain.durations import format_duration
from feature_platform.domain.windows import Partition

NEVER_PUBLISHED_AGE: Final = timedelta(days=7)
"""How long the rows of a failed, rejected or abandoned batch stay to be looked at."""
SHORTEST: Final = timedelta(days=1)
"""No retention is shorter: readers may use a list of batches for so long."""

StoreEnds = Mapping[str, Sequence[tuple[datetime, int]]]
"""Per store that a sync ever wrote the view to: when it was brought to which position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what nobody sees any more is kept; None: for ever."""

    superseded: timedelta | None = None
    """Superseded batches."""
    logged: timedelta | None = None
    """The view's rows in the feature log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFacts:
    """What the ledger says of a batch that was not retired."""

    batch_id: str
    seq: int
    partition: Partition
    rows: int | None
    """None: it was never recorded as computed, and may have rows."""
    bytes: int
    """As measured when it was computed; 0 if it was not."""
    last_at: datetime
    """When the last thing happened to it."""
    position: int | None = None
    """None: it was never published."""
    published_at: datetime | None = None
    is_waiting: bool = False
    """Held, and somebody may still approve it."""


class Fate(enum.StrEnum):
    """What becomes of a batch that is not active."""

    NEVER_PUBLISHED = "never published"
    SUPERSEDED = "superseded"
    WAITING = "waits for approval"
    NEEDED = "needed by training sets"
    UNDECLARED = "no retention is declared"
    YOUNG = "younger than its retention"
    ALIVE = "its rows have not been dead for its retention"
    IN_STORE = "a store may hold it"

    @property
    def goes(self) -> bool:
        """Whether the rows are to be deleted."""
        return self in (Fate.NEVER_PUBLISHED, Fate.SUPERSEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A batch that is not active, and what becomes of it."""

    batch: BatchFacts
    fate: Fate
    detail: str = ""
    """The sets or the store that keep it, or until when it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What else decides about the batches of one view."""

    retention: Retention
    ttl: timedelta | None
    needs: Mapping[str, Sequence[str]]
    """The kept training sets that need a batch, by batch id."""
    stores: StoreEnds
    now: datetime
    """By the ledger's clock."""


def judge(batches: Iterable[BatchFacts], circumstances: Circumstances) -> tuple[Judged, ...]:
    """Every batch of a view that is not active and may have rows, in the order of their numbers.

    Args:
        batches: all batches of the view that were not retired.
        circumstances: of the view.
    """
    published: defaultdict[datetime, list[BatchFacts]] = defaultdict(list)
    ordered = sorted(batches, key=lambda batch: batch.seq)
    for batch in ordered:
        if batch.position is not None:
            published[batch.partition.start].append(batch)
    found = []
    for batch in ordered:
        if batch.position is None:
            found.append(_judge_unpublished(batch, circumstances.now))
            continue
        later = [other for other in published[batch.partition.start] if other.seq > batch.seq]
        if later and batch.rows:
            found.append(_judge_superseded(batch, later, circumstances))
    return tuple(found)


def _judge_unpublished(batch: BatchFacts, now: datetime) -> Judged:
    if batch.is_waiting:
        return Judged(batch=batch, fate=Fate.WAITING, detail="see `feature-platform late`")
    until = batch.last_at + NEVER_PUBLISHED_AGE
    if now < until:
        return Judged(batch=batch, fate=Fate.YOUNG, detail=_until(until))
    return Judged(batch=batch, fate=Fate.NEVER_PUBLISHED)


def _judge_superseded(batch: BatchFacts, later: Sequence[BatchFacts], circumstances: Circumstances) -> Judged:
    ttl, now = circumstances.ttl, circumstances.now
    if sets := circumstances.needs.get(batch.batch_id):
        return Judged(batch=batch, fate=Fate.NEEDED, detail=", ".join(sets))
    kept = circumstances.retention.superseded
    if kept is None:
        return Judged(batch=batch, fate=Fate.UNDECLARED, detail="declare `retention: {superseded: …}` to let it go")
    first = min(later, key=lambda other: other.position or 0)
    until = max(one.published_at for one in (batch, first) if one.published_at is not None) + kept
    if now < until:
        return Judged(batch=batch, fate=Fate.YOUNG, detail=_until(until))
    if ttl is not None and now < (until := batch.partition.end + ttl + kept):
        return Judged(batch=batch, fate=Fate.ALIVE, detail=_until(until))
    was_seen = (batch.position or 0) < (first.position or 0)
    if ttl is None and was_seen and (store := _holding_store(first.position or 0, circumstances.stores, now - kept)):
        return Judged(
            batch=batch, fate=Fate.IN_STORE, detail=f"store {store} was not past it {format_duration(kept)} ago"
        )
    return Judged(batch=batch, fate=Fate.SUPERSEDED)


def _holding_store(without: int, stores: StoreEnds, at: datetime) -> str | None:
    """A store that had not been brought to a position by an instant."""
    behind = [
        name
        for name, ends in stores.items()
        if not any(ended_at <= at and position >= without for ended_at, position in ends)
    ]
    return min(behind, default=None)


def _until(instant: datetime) -> str:
    return f"until {instant.isoformat(' ', 'seconds')}"
