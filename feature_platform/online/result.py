"""What a request returns: values, and for each view how far they can be trusted.

Rule: a value that is None says why. With status `fresh` or `stale` the feature itself is NULL; with `expired` the row
is older than the view's ttl; with `missing` the entity has no row. The answer holds the bytes that came; rows, columns
and arrays are made of them when they are asked for, and nothing that was not asked for is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, repeat
from operator import ior
from typing import TYPE_CHECKING, Any, overload

from feature_platform.domain.types import FeatureType
from feature_platform.online.view_values import FeatureStatus, ViewReading, ViewValues

if TYPE_CHECKING:
    # extras: imported by the methods that make them
    import numpy as np
    import pandas as pd
    import pyarrow as pa


class OnlineRow:
    """One entity's answer."""

    __slots__ = ("_answer", "_index", "_views")

    def __init__(self, answer: OnlineFeatures, index: int) -> None:
        self._answer = answer
        self._index = index
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
        rows = self._answer.all_named
        return self._answer.named(self._index) if rows is None else rows[self._index]

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
        "all_named",
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
        # rows point here and not the other way round: an answer goes as soon as nobody holds it, without a collection
        self._all_asked = False
        self._decoded: dict[int, dict[str, Any]] = {}
        self.all_named: list[dict[str, Any]] | None = None
        """`named` of all entities, once it was asked for while the rows were gone through."""

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
        return tuple(self)

    def __len__(self) -> int:
        return len(self.by_view[0].values)

    def __iter__(self) -> Iterator[OnlineRow]:
        # the values of all of them are likely wanted: together they cost less
        self._all_asked = True
        return map(OnlineRow, repeat(self), range(len(self)))

    @overload
    def __getitem__(self, index: int) -> OnlineRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[OnlineRow, ...]: ...
    def __getitem__(self, index: int | slice) -> OnlineRow | tuple[OnlineRow, ...]:
        found = range(len(self))[index]
        return OnlineRow(self, found) if isinstance(found, int) else tuple([OnlineRow(self, at) for at in found])

    def __repr__(self) -> str:
        return f"OnlineFeatures({len(self)} rows, {', '.join(self.feature_names)})"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Key columns and values of every row."""
        return [row.to_dict() for row in self]

    def named(self, index: int) -> dict[str, Any]:
        """The values of one entity, by the names of the answer.

        Raises:
            CorruptValueError: a value cannot be read.
        """
        if self._all_asked and self.all_named is None:
            self.all_named = _merged([part.rows_named() for part in self.by_view])
        if self.all_named is not None:
            return self.all_named[index]
        if index not in self._decoded:
            (self._decoded[index],) = _merged([[part.named(index)] for part in self.by_view])
        return self._decoded[index]

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


def _merged(parts: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows, *others = parts
    for other in others:
        rows = list(map(ior, rows, other))  # the dicts were made for this answer: none is copied
    return rows


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
