"""What a request returns: values, and for each view how far they can be trusted.

Rule: a value that is None says why. With status `fresh` or `stale` the feature itself is NULL; with `expired` the row
is older than the view's ttl; with `missing` the entity has no row. The answer holds the bytes that came; rows, columns
and arrays are made of them when they are asked for, and nothing that was not asked for is decoded.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, overload

from feature_platform.domain.feature_service import Remedy
from feature_platform.domain.types import FeatureType
from feature_platform.online.codec import HEADER_BYTES, PREFIX_BYTES, decode_prefix
from feature_platform.online.decoding import RowDecoder

_EVENT: Final = itemgetter(slice(8, PREFIX_BYTES))

if TYPE_CHECKING:
    # extras: imported by the methods that make them
    import numpy as np
    import pandas as pd
    import pyarrow as pa


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

    __slots__ = ("decoders", "defaults", "features", "key", "names", "nothing", "remedies", "types")

    def __init__(
        self,
        *,
        key: str,
        features: tuple[str, ...],
        names: tuple[str, ...],
        types: tuple[FeatureType, ...],
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
        self.remedies = remedies
        """What is done about statuses that are not just flagged."""
        self.defaults = defaults
        self.nothing: tuple[None, ...] = (None,) * len(names)


class ViewValues:
    """One view's part of an answer: the bytes of each entity's row, and how old they may be."""

    __slots__ = ("_alike", "_dead", "_stale", "form", "served_after", "values")

    def __init__(
        self,
        form: ViewForm,
        values: Sequence[bytes | None],
        *,
        alike: RowDecoder | None,
        dead: bytes,
        stale: bytes,
    ) -> None:
        self.form = form
        self.values = values
        """Per entity what the store holds; None if nothing."""
        # the latest event times, as values have them, that have reached ttl and promised freshness
        self._dead = dead
        self._stale = stale
        # reads all of the values, if every entity has a row, and all rows one layout
        self._alike = alike
        self.served_after = max(dead, stale) if form.remedies.get(FeatureStatus.STALE) is Remedy.DEFAULT else dead
        """Rows whose event time (as in their bytes) is later than this are served as they are, all others are not."""

    def status(self, index: int) -> FeatureStatus:
        """What became of the view for one entity. Event times compare as their bytes do."""
        value = self.values[index]
        if value is None or len(value) == PREFIX_BYTES:
            return FeatureStatus.MISSING
        event = value[8:PREFIX_BYTES]
        if event <= self._dead:
            return FeatureStatus.EXPIRED
        return FeatureStatus.STALE if event <= self._stale else FeatureStatus.FRESH

    def statuses(self) -> list[FeatureStatus]:
        """What became of the view for every entity."""
        return [self.status(index) for index in range(len(self.values))]

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
        return decoder.decode_named(self.values[index])  # type: ignore[arg-type]

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
            return list(map(decoder.decode_named, self.values))  # type: ignore[arg-type]
        return [self.named(index) for index in range(len(self.values))]

    def _reads_all(self) -> RowDecoder | None:
        """What reads all values, if all are alike and served as they are."""
        if self._alike is None or min(map(_EVENT, self.values)) <= self.served_after:  # type: ignore[arg-type]
            return None
        return self._alike

    def _decoder(self, index: int) -> RowDecoder | None:
        """What reads an entity's row; None if it has none that is served as it is."""
        value = self.values[index]
        if value is None or value[8:PREFIX_BYTES] <= self.served_after or len(value) == PREFIX_BYTES:
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


class OnlineRow:
    """One entity's answer."""

    __slots__ = ("_answer", "_index", "_values", "_views")

    def __init__(self, answer: OnlineFeatures, index: int) -> None:
        self._answer = answer
        self._index = index
        self._values: dict[str, Any] | None = None
        self._views: dict[str, ViewReading] | None = None

    @property
    def entity(self) -> Mapping[str, Any]:
        """The key columns."""
        return {name: column[self._index] for name, column in self._answer.entities.items()}

    @property
    def values(self) -> Mapping[str, Any]:
        """By feature name; by `<view>__<feature>` where the plain name is taken by another view or by a key column.

        Raises:
            CorruptValueError: a value cannot be read.
        """
        if self._values is None:
            self._values = self._answer.named(self._index)
        return self._values

    @property
    def views(self) -> Mapping[str, ViewReading]:
        """By `name@version`."""
        if self._views is None:
            now = self._answer.requested_at
            self._views = {part.form.key: part.reading(self._index, now) for part in self._answer.by_view}
        return self._views

    def to_dict(self) -> dict[str, Any]:
        """Key columns and values."""
        return {**self.entity, **self.values}

    def __eq__(self, other: object) -> bool:
        """Whether the same was answered for the same entity, equally old."""
        if not isinstance(other, OnlineRow):
            return NotImplemented
        return (self.entity, self.values, self.views) == (other.entity, other.values, other.views)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"OnlineRow(entity={self.entity!r}, values={self.values!r}, views={self.views!r})"


class OnlineFeatures:
    """The answer to a request: one row per entity, in the order asked."""

    __slots__ = (
        "_all_asked",
        "_decoded",
        "_rows",
        "by_view",
        "entities",
        "entity_types",
        "keys_of",
        "request_id",
        "requested_at",
    )

    def __init__(
        self,
        *,
        entities: Mapping[str, Sequence[Any]],
        entity_types: Mapping[str, FeatureType],
        by_view: Sequence[ViewValues],
        keys_of: Sequence[Sequence[bytes]],
        requested_at: datetime,
    ) -> None:
        self.entities = entities
        """The key columns, as asked."""
        self.entity_types = entity_types
        self.by_view = by_view
        """What each view answers, as it came."""
        self.keys_of = keys_of
        """Per view the keys that were read, one for each entity."""
        self.request_id: str | None = None
        """Under which the request was logged; None if the client has no log."""
        self.requested_at = requested_at
        """The client's clock when the values were there: ages count up to this instant."""
        self._rows: tuple[OnlineRow, ...] | None = None
        self._all_asked = False
        self._decoded: Sequence[Sequence[dict[str, Any]]] | None = None

    @property
    def feature_names(self) -> list[str]:
        """Names of the features in the answer, in the order asked."""
        return [name for part in self.by_view for name in part.form.names]

    @property
    def logged_parts(self) -> list[tuple[str, Sequence[bytes], Sequence[bytes | None]]]:
        """Per view the keys that were read and what came: what the feature log keeps."""
        return [(part.form.key, keys, part.values) for part, keys in zip(self.by_view, self.keys_of, strict=True)]

    @property
    def rows(self) -> tuple[OnlineRow, ...]:
        """The rows."""
        if self._rows is None:
            self._rows = tuple([OnlineRow(self, index) for index in range(len(self))])
        return self._rows

    def __len__(self) -> int:
        return len(self.by_view[0].values)

    def __iter__(self) -> Iterator[OnlineRow]:
        # the values of all of them are likely wanted: together they cost a fifth less
        self._all_asked = True
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> OnlineRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[OnlineRow, ...]: ...
    def __getitem__(self, index: int | slice) -> OnlineRow | tuple[OnlineRow, ...]:
        return self.rows[index]

    def __repr__(self) -> str:
        return f"OnlineFeatures({len(self)} rows, {', '.join(self.feature_names)})"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Key columns and values of every row."""
        return [row.to_dict() for row in self]

    def named(self, index: int) -> dict[str, Any]:
        """The values of one entity, by the names of the answer; a dict of the caller's own.

        Raises:
            CorruptValueError: a value cannot be read.
        """
        if self._all_asked and self._decoded is None:
            self._decoded = [part.rows_named() for part in self.by_view]
        if self._decoded is None:
            first, *others = [part.named(index) for part in self.by_view]
        else:
            first, *others = [rows[index] for rows in self._decoded]
        for other in others:
            first |= other
        return first

    def to_columns(self) -> dict[str, list[Any]]:
        """Key columns and features, each as a list."""
        columns: dict[str, list[Any]] = {name: list(column) for name, column in self.entities.items()}
        columns.update(
            zip(self.feature_names, chain.from_iterable(part.columns() for part in self.by_view), strict=True)
        )
        return columns

    def statuses(self) -> dict[str, list[FeatureStatus]]:
        """Per view (`name@version`) the status of every entity."""
        return {part.form.key: part.statuses() for part in self.by_view}

    def ages(self) -> dict[str, list[timedelta | None]]:
        """Per view (`name@version`) the age of every entity's values, None where there are none."""
        now = self.requested_at
        return {part.form.key: [part.reading(i, now).age for i in range(len(self))] for part in self.by_view}

    def to_numpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """Features as numpy arrays; the extra `columnar`.

        NULL, expired and missing are NaN; integers and booleans become float64 where a column has such. Lists of one
        length are matrices if none is NULL. Columns of other types hold Python objects, None among them.

        Raises:
            ConfigurationError: numpy is not installed.
            CorruptValueError: a value cannot be read.
        """
        arrays: dict[str, np.ndarray[Any, Any]] = _columnar().to_numpy(self)
        return arrays

    def to_arrow(self) -> pa.Table:
        """Key columns and features as an Arrow table, in the types of the views; the extra `columnar`.

        Raises:
            ConfigurationError: pyarrow is not installed.
            CorruptValueError: a value cannot be read.
        """
        return _columnar().to_arrow(self)

    def to_pandas(self) -> pd.DataFrame:
        """Key columns and features as a DataFrame with Arrow's types; the extra `pandas`.

        Raises:
            ConfigurationError: pandas or pyarrow is not installed.
            CorruptValueError: a value cannot be read.
        """
        frame: pd.DataFrame = _columnar().to_pandas(self)
        return frame


def _columnar() -> Any:
    # numpy takes longer to import than all of the client
    from feature_platform.errors import ConfigurationError

    try:
        from feature_platform.online import columnar
    except ImportError as error:
        raise ConfigurationError(
            "columns as arrays need packages that are not installed",
            found=str(error),
            hint="pip install 'feature-platform[columnar]' (or [pandas])",
        ) from error
    return columnar
