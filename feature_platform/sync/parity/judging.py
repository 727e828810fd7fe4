"""What a pair of values says: the one the store holds, and the one the ledger derives. Pure.

Rule: values are compared without their position, because a row that events leave alone keeps the position of the sync
that wrote it. What counts is what a client is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from feature_platform.errors import CorruptValueError
from feature_platform.online.codec import POSITION_BYTES, PREFIX_BYTES, Layout, Prefix, decode_prefix, layout_id_of
from feature_platform.online.decoding import decode


class Outcome(StrEnum):
    """How one entity's two values stand to each other."""

    MATCH = "match"
    MISMATCH = "mismatch"
    """Another row than the ledger derives."""
    MISSING = "missing"
    """The ledger derives a living row; the store has none."""
    EXTRA = "extra"
    """The store has a row; the ledger derives none."""
    EXPIRED = "expired"
    """The row has reached its ttl on both sides, or only the ledger still knows it. No difference."""


DIFFERENCES: Final = (Outcome.MISMATCH, Outcome.MISSING, Outcome.EXTRA)


class Cause(StrEnum):
    """Why the values differ, where it can be proven."""

    LATE_SYNC = "late sync"
    """The store holds what the ledger derives at the store's own position; later events wait for a sync."""
    STORE_LOST = "store lost data"
    """A completed sync had brought the store further than it says it is: emptied, or taken over by a replica."""
    LOST_WRITE = "lost write"
    """The store says it is past the event that changed this, and holds what was true before it, or nothing."""
    CODE_CHANGE = "code change"
    """The row was written under another declaration of the view."""
    UNKNOWN = "unknown"
    """No batch of this ledger explains what is there: something else wrote it, or it is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where store and ledger are."""

    store: int
    """Position of the store, by its own word."""
    synced: int
    """The furthest position that a completed sync brought it to, by the ledger."""
    head: int
    """The ledger's last position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a value that differs."""

    stored: bytes | None
    as_of_store: bool
    """It is what the ledger derives at the store's own position."""
    published: bool
    """Some published batch has this row, active or superseded."""
    known: bool
    """The ledger's batches know the entity."""


def outcome(
    stored: bytes | None, expected: bytes | None, *, same: bool, now: datetime, ttl: timedelta | None
) -> Outcome:
    """How the two stand to each other.

    Args:
        stored: the store's value.
        expected: the value the ledger derives, at whatever position; None if it derives no row.
        same: whether they are the same to a reader (`same`).
        now: the instant of the comparison.
        ttl: the view's; at this age a row is dead.
    """
    if expected is None:
        return Outcome.MATCH if is_none(stored) else Outcome.EXTRA
    dead = ttl is not None and _is_dead(expected, now, ttl)
    if stored is None and dead:
        return Outcome.EXPIRED
    if same:
        return Outcome.EXPIRED if dead else Outcome.MATCH
    return Outcome.MISSING if is_none(stored) else Outcome.MISMATCH


def same(stored: bytes | None, expected: bytes | None, layout: Layout, layouts: Mapping[int, Layout]) -> bool:
    """Whether a client is answered the same: a row of an older layout answers NULL for features it does not have."""
    if stored is None or is_none(stored) or expected is None:
        return is_none(stored) and expected is None
    if stored[POSITION_BYTES:] == expected[POSITION_BYTES:]:
        return True
    older = layouts.get(layout_id_of(stored))
    if older is None or older.layout_id == layout.layout_id:
        return False
    try:
        event, held = decode_prefix(stored).event_timestamp, decode(older, stored)
    except CorruptValueError:
        return False
    if event is None:
        return False
    row = {name: held.get(name) for name, _ in layout.columns}
    return layout.encode(0, event, row)[POSITION_BYTES:] == expected[POSITION_BYTES:]


def is_none(stored: bytes | None) -> bool:
    """No key, or a tombstone: the client is told that the row is missing."""
    return stored is None or len(stored) == PREFIX_BYTES


def prefix_of(stored: bytes | None) -> Prefix | None:
    """Position and event time; None if there is no value or it is damaged."""
    if stored is None:
        return None
    try:
        return decode_prefix(stored)
    except CorruptValueError:
        return None


def cause(evidence: Evidence, places: Places, layout: Layout) -> tuple[Cause, str]:
    """The cause that can be proven, and why."""
    stored, prefix = evidence.stored, prefix_of(evidence.stored)
    if reason := _not_of_this_ledger(evidence, prefix, places):
        return Cause.UNKNOWN, reason
    if _awaits_a_sync(evidence, prefix, places):
        if places.store < places.synced:
            return Cause.STORE_LOST, f"a sync had ended at {places.synced}; the store says {places.store}"
        return Cause.LATE_SYNC, f"the store is at {places.store} of {places.head}"
    if stored is None or is_none(stored) or evidence.published:
        held = f"what was true as of position {prefix.position}" if prefix else "nothing"
        return Cause.LOST_WRITE, f"the store says it is at position {places.store}, and holds {held}"
    written = layout_id_of(stored)
    if written == layout.layout_id:
        return Cause.UNKNOWN, "no published batch has this row"
    return Cause.CODE_CHANGE, f"written in layout {written:08x}; declared is {layout.layout_id:08x}"


def _not_of_this_ledger(evidence: Evidence, prefix: Prefix | None, places: Places) -> str | None:
    if evidence.stored is not None and prefix is None:
        return "the value is damaged: too short, or with an impossible instant"
    if not evidence.known:
        return "no batch in the lake has this entity"
    if prefix is not None and prefix.position > places.head:
        return f"written at position {prefix.position}; this ledger ends at {places.head}"
    return None


def _awaits_a_sync(evidence: Evidence, prefix: Prefix | None, places: Places) -> bool:
    """Whether the store is behind, and holds what it says, or already part of what a sync under way brings."""
    ahead = prefix is not None and prefix.position > places.store
    explained = is_none(evidence.stored) or evidence.published
    return places.store < places.head and (evidence.as_of_store or (ahead and explained))


def _is_dead(value: bytes, now: datetime, ttl: timedelta) -> bool:
    event = decode_prefix(value).event_timestamp
    return event is not None and now - event >= ttl
