"""One view's part of an answer: the bytes that came, what they hold, and how far it can be trusted.

Rule: the bytes are kept as they came. Statuses compare event times as bytes do; values are decoded when asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from feature_platform.domain.feature_service import Remedy
from feature_platform.domain.types import FeatureType
from feature_platform.online.codec import HEADER_BYTES, POSITION_BYTES, PREFIX_BYTES, SIGN_BIT, decode_prefix
from feature_platform.online.decoding import RowDecoder

_EVENT: Final = itemgetter(slice(POSITION_BYTES, PREFIX_BYTES))


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


class ViewForm:
    """What is the same in every answer to one question about one view."""

    __slots__ = (
        "decoders",
        "defaults",
        "features",
        "key",
        "names",
        "nothing",
        "remedies",
        "stale_after",
        "ttl",
        "types",
    )

    def __init__(
        self,
        *,
        key: str,
        features: tuple[str, ...],
        names: tuple[str, ...],
        types: tuple[FeatureType, ...],
        ttl: int | None,
        stale_after: int | None,
        remedies: Mapping[FeatureStatus, Remedy],
        defaults: tuple[Any, ...],
    ) -> None:
        self.key = key
        """`name@version`."""
        self.features = features
        """As the view names them, in the order asked for."""
        self.names = names
        """As the answer names them."""
        self.types = types
        self.decoders: dict[bytes, RowDecoder] = {}
        """By the four bytes of the layout's id, as far as values have been met."""
        self.ttl = ttl
        self.stale_after = stale_after
        """Ages at which a row expires and is stale, in microseconds; None: never."""
        self.remedies = remedies
        """What is done about statuses that are not just flagged."""
        self.defaults = defaults
        self.nothing: tuple[None, ...] = (None,) * len(names)


class ViewValues:
    """One view's part of an answer: the bytes of each entity's row, and how old they may be."""

    __slots__ = ("_alike", "_dead", "_now", "form", "served_after", "values")

    def __init__(self, form: ViewForm, values: Sequence[bytes | None], *, alike: RowDecoder | None, now: int) -> None:
        self.form = form
        self.values = values
        """Per entity what the store holds; None if nothing."""
        self._now = now
        # the latest event time, as values have them, that has reached ttl
        self._dead = dead = threshold(now, form.ttl)
        # reads all of the values, if every entity has a row, and all rows one layout
        self._alike = alike
        self.served_after = dead
        """Rows whose event time (as in their bytes) is later than this are served as they are, all others are not."""
        if form.remedies and form.remedies.get(FeatureStatus.STALE) is Remedy.DEFAULT:
            self.served_after = max(dead, threshold(now, form.stale_after))

    def status(self, index: int) -> FeatureStatus:
        """What became of the view for one entity. Event times compare as their bytes do."""
        return status_of(self.values[index], self._dead, threshold(self._now, self.form.stale_after))

    def statuses(self) -> list[FeatureStatus]:
        """What became of the view for every entity."""
        dead, stale = self._dead, threshold(self._now, self.form.stale_after)
        return [status_of(value, dead, stale) for value in self.values]

    def row(self, index: int) -> Sequence[Any]:
        """The features of one entity, as the service wants them served.

        Raises:
            CorruptValueError: the value cannot be read.
        """
        decoder = self._decoder(index)
        if decoder is None:
            form = self.form
            return form.defaults if form.remedies.get(self.status(index)) is Remedy.DEFAULT else form.nothing
        return decoder.decode(self.values[index])  # type: ignore[arg-type]

    def named(self, index: int) -> dict[str, Any]:
        """The same by the names that the answer gives the features.

        Raises:
            CorruptValueError: the value cannot be read.
        """
        decoder = self._decoder(index)
        if decoder is None:
            return dict(zip(self.form.names, self.row(index), strict=True))
        return decoder.named_rows(self.values[index : index + 1])[0]  # type: ignore[arg-type]

    def columns(self) -> list[list[Any]]:
        """The features of all entities, each as a list.

        Raises:
            CorruptValueError: a value cannot be read.
        """
        if (decoder := self._reads_all()) is not None:
            return decoder.columns(self.values)  # type: ignore[arg-type]
        rows = [self.row(index) for index in range(len(self.values))]
        return list(map(list, zip(*rows, strict=True))) if rows else [[] for _ in self.form.names]

    def rows_named(self) -> list[dict[str, Any]]:
        """`named` of all entities.

        Raises:
            CorruptValueError: a value cannot be read.
        """
        if (decoder := self._reads_all()) is not None:
            return decoder.named_rows(self.values)  # type: ignore[arg-type]
        return [self.named(index) for index in range(len(self.values))]

    def _reads_all(self) -> RowDecoder | None:
        """What reads all values, if all are alike and served as they are."""
        if self._alike is None or min(map(_EVENT, self.values)) <= self.served_after:  # type: ignore[arg-type]
            return None
        return self._alike

    def _decoder(self, index: int) -> RowDecoder | None:
        """What reads an entity's row; None if it has none that is served as it is."""
        value = self.values[index]
        if value is None or value[POSITION_BYTES:PREFIX_BYTES] <= self.served_after or len(value) == PREFIX_BYTES:
            return None
        return self._alike or self.form.decoders[value[PREFIX_BYTES:HEADER_BYTES]]

    def reading(self, index: int, now: datetime) -> ViewReading:
        """How far one entity's values can be trusted."""
        value = self.values[index]
        prefix = None if value is None else decode_prefix(value)
        event = None if prefix is None else prefix.event_timestamp
        return ViewReading(
            status=self.status(index),
            event_timestamp=event,
            age=None if event is None else now - event,
            position=None if prefix is None else prefix.position,
        )


def status_of(value: bytes | None, dead: bytes, stale: bytes) -> FeatureStatus:
    """What a value amounts to, by the latest event times (`threshold`) that have reached ttl and are stale."""
    if value is None or len(value) == PREFIX_BYTES:
        return FeatureStatus.MISSING
    event = value[POSITION_BYTES:PREFIX_BYTES]
    if event <= dead:
        return FeatureStatus.EXPIRED
    return FeatureStatus.STALE if event <= stale else FeatureStatus.FRESH


def threshold(now: int, bound: int | None) -> bytes:
    """The latest event time, as a value's prefix has it, whose age has reached the bound; before any if it has none."""
    if bound is None:
        return b""
    try:
        return (now - bound + SIGN_BIT).to_bytes(8, "big")
    except OverflowError:  # a bound of many thousand years
        return b""
