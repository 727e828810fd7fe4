"""What a request returns: values, and for each view how far they can be trusted.

Rule: a value that is None says why. With status `fresh` or `stale` the feature itself is NULL; with `expired` the row
is older than the view's ttl; with `missing` the entity has no row.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, overload


class FeatureStatus(enum.StrEnum):
    """What became of one view for one entity."""

    FRESH = "fresh"
    STALE = "stale"
    """Served, but older than the freshness the view promises."""
    EXPIRED = "expired"
    """A row is there, but its age has reached the view's ttl: all its features are None."""
    MISSING = "missing"
    """The entity has no row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewReading:
    """One view's answer for one entity."""

    status: FeatureStatus
    event_timestamp: datetime | None
    """The instant as of which the values are true."""
    age: timedelta | None
    """From that instant to the request, by the client's clock."""
    position: int | None
    """Ledger position of the sync that wrote the row; with the event timestamp it leads to the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRow:
    """One entity's answer."""

    entity: Mapping[str, Any]
    values: Mapping[str, Any]
    """By feature name; by `<view>__<feature>` where the plain name is taken by another view or by a key column."""
    views: Mapping[str, ViewReading]
    """By `name@version`."""

    def to_dict(self) -> dict[str, Any]:
        """Key columns and values."""
        return {**self.entity, **self.values}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFeatures:
    """The answer to a request: one row per entity, in the order asked."""

    rows: tuple[OnlineRow, ...]
    request_id: str | None = None
    """Under which the request was logged; None if the client has no log."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[OnlineRow]:
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> OnlineRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[OnlineRow, ...]: ...
    def __getitem__(self, index: int | slice) -> OnlineRow | tuple[OnlineRow, ...]:
        return self.rows[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Key columns and values of every row."""
        return [row.to_dict() for row in self.rows]
