"""What becomes of rows that are handed to a store, and of a whole sync."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of some rows."""

    rows: int
    written: int = 0
    refused: int = 0
    """A later position was there."""
    bytes: int = 0
    """Sent to the server."""
    lines: range | None = None
    """Which rows of the lake they are, if that is known."""
    absent: bool = False
    """They are tombstones."""


@dataclass(slots=True)
class Counts:
    """What became of all rows so far."""

    entities: int = 0
    tombstones: int = 0
    written: int = 0
    refused: int = 0
    bytes: int = 0

    def add(self, done: Written) -> None:
        """Count some more."""
        self.entities += done.rows
        self.tombstones += done.rows if done.absent else 0
        self.written += done.written
        self.refused += done.refused
        self.bytes += done.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What a sync did."""

    view: str
    store: str
    from_position: int
    to_position: int
    entities: int
    """Asserted: written + refused + those long dead and not there."""
    written: int
    tombstones: int
    """Of the asserted entities, those that have no row."""
    refused: int
    """A later sync had been there."""
    bytes: int
    """Sent to the store."""
    seconds: float
    newest_event_timestamp: datetime | None
    """Of all rows the store now serves of this view; None if there are none."""


def and_then(first: SyncResult | None, second: SyncResult) -> SyncResult:
    """Two syncs, one after the other, as one."""
    if first is None:
        return second
    summed = ("entities", "written", "tombstones", "refused", "bytes", "seconds")
    return replace(
        second,
        from_position=first.from_position,
        **{name: getattr(first, name) + getattr(second, name) for name in summed},
    )
