"""Answers as columns: numpy, Arrow, pandas. The only module of `online` that imports them; extras of the package.

Rule: no Python per value where the bytes allow it. The fixed sections of all rows become one structured array; texts,
blobs and lists are slices of the joined bytes. Rows that are not served as they are (missing, expired, replaced by
defaults) and those in an older layout are read apart and put in their places. All that costs some microseconds per
column, whatever the number of rows; a few rows are read as Python values instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_platform.domain.types import ColumnType, DecimalType, FeatureType, ListType
from feature_platform.online.codec import (
    HEADER_BYTES,
    LONG_DIGITS,
    NUMBERS,
    PREFIX_BYTES,
    Layout,
    element_bytes,
    has_tail,
    numpy_slot,
)
from feature_platform.online.decoding import RowDecoder
from feature_platform.online.result import OnlineFeatures
from feature_platform.online.view_values import ViewValues

if TYPE_CHECKING:
    import pandas as pd

_FEW: Final = 32
_FEW_MIXED: Final = 256
"""Up to so many rows go by way of Python values: if all are alike, and if not."""
Array = npt.NDArray[Any]
_HEADER: Final = np.dtype([("position", ">u8"), ("event", ">u8"), ("layout", ">u4")])
_ARROW: Final[dict[FeatureType, pa.DataType]] = {
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.TINYINT: pa.int8(),
    ColumnType.SMALLINT: pa.int16(),
    ColumnType.INTEGER: pa.int32(),
    ColumnType.BIGINT: pa.int64(),
    ColumnType.UTINYINT: pa.uint8(),
    ColumnType.USMALLINT: pa.uint16(),
    ColumnType.UINTEGER: pa.uint32(),
    ColumnType.UBIGINT: pa.uint64(),
    ColumnType.FLOAT: pa.float32(),
    ColumnType.DOUBLE: pa.float64(),
    ColumnType.VARCHAR: pa.large_string(),
    ColumnType.BLOB: pa.large_binary(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
}
_PLAIN: Final = frozenset({*NUMBERS} - {ColumnType.VARCHAR, ColumnType.BLOB, ColumnType.DATE, ColumnType.TIMESTAMPTZ})
"""Types whose slots are numpy's own numbers."""
_WHOLE: Final = frozenset(type_ for type_, arrow in _ARROW.items() if pa.types.is_integer(arrow))


def arrow_type(type_: FeatureType) -> pa.DataType:
    """Arrow's type of a column."""
    if isinstance(type_, DecimalType):
        return pa.decimal128(type_.precision, type_.scale)
    if isinstance(type_, ListType):
        element = _ARROW[type_.element]
        return pa.large_list(element) if type_.length is None else pa.list_(element, type_.length)
    return _ARROW[type_]


def to_arrow(answer: OnlineFeatures) -> pa.Table:
    """Key columns and features as an Arrow table."""
    arrays = [pa.array(column, arrow_type(answer.entity_types[name])) for name, column in answer.entities.items()]
    for part in answer.by_view:
        arrays += _arrays(part)
    return pa.Table.from_arrays(arrays, names=[*answer.entities, *answer.feature_names])


def to_pandas(answer: OnlineFeatures) -> pd.DataFrame:
    """Key columns and features as a DataFrame in Arrow's types, which know NULL."""
    # half a second to import
    import pandas as pd

    frame: pd.DataFrame = to_arrow(answer).to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def to_numpy(answer: OnlineFeatures) -> dict[str, Array]:
    """Features as numpy arrays."""
    arrays = [array for part in answer.by_view for array in _numpy_arrays(part)]
    return dict(zip(answer.feature_names, arrays, strict=True))


def _numpy_arrays(part: ViewValues) -> list[Array]:
    """The features of one view, in the order asked."""
    if (rows := _usual(part)) is not None:
        return rows.numpy(part)
    if len(part.values) <= _FEW_MIXED:
        return list(map(_numpy_of_few, part.columns(), part.form.types))
    return [_numpy(array, type_) for array, type_ in zip(_mixed(part), part.form.types, strict=True)]


def _array_of_few(column: list[Any], type_: FeatureType) -> pa.Array:
    return pa.array(column, arrow_type(type_))


def _numpy_of_few(column: list[Any], type_: FeatureType) -> Array:
    found: Array
    if type_ in _PLAIN:
        whole = type_ in (ColumnType.FLOAT, ColumnType.DOUBLE) or None not in column
        found = np.array(column, dtype=numpy_slot(type_)[0] if whole else np.float64)  # None becomes NaN
    elif type_ in (ColumnType.VARCHAR, ColumnType.BLOB):
        found = np.empty(len(column), dtype=object)
        found[:] = column
    else:
        found = _numpy(_array_of_few(column, type_), type_)
    return found


def _numpy(array: pa.Array, type_: FeatureType) -> Array:
    found: Array
    if type_ in _WHOLE or type_ is ColumnType.BOOLEAN:
        if array.null_count:
            # the last digits of large integers go here; who needs them beside NULL asks for Arrow
            array = pc.cast(array.cast(pa.uint8()) if type_ is ColumnType.BOOLEAN else array, pa.float64(), safe=False)
        found = array.to_numpy(zero_copy_only=False)
    elif type_ in (ColumnType.FLOAT, ColumnType.DOUBLE, ColumnType.VARCHAR, ColumnType.BLOB):
        found = array.to_numpy(zero_copy_only=False)
    elif isinstance(type_, ListType) and type_.length is not None and not array.null_count:
        found = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, type_.length)
    else:
        found = np.empty(len(array), dtype=object)
        found[:] = array.to_pylist()
    return found


def _usual(part: ViewValues) -> _Rows | None:
    """The usual case, without a look at each value: many rows, all in one layout, all served as they are. Else None."""
    values = part.values
    if not values or len(values) <= _FEW or None in values or len(first := values[0] or b"") <= PREFIX_BYTES:
        return None
    rows = _Rows.read(part, first[PREFIX_BYTES:HEADER_BYTES], values)  # type: ignore[arg-type]
    bound = int.from_bytes(part.served_after, "big")
    return rows if rows is not None and (rows.fixed["event"] > bound).all() else None


def _arrays(part: ViewValues) -> list[pa.Array]:
    """The features of one view, in the order asked."""
    if (rows := _usual(part)) is not None:
        return rows.arrays(part)
    if len(part.values) <= _FEW_MIXED:
        return list(map(_array_of_few, part.columns(), part.form.types))
    return _mixed(part)


def _mixed(part: ViewValues) -> list[pa.Array]:
    """The same, where some entities have no row, or rows are in several layouts or not served as they are."""
    values = part.values
    bound = int.from_bytes(part.served_after, "big")
    present = [i for i, value in enumerate(values) if value is not None and len(value) > PREFIX_BYTES]
    heads = np.frombuffer(b"".join([(values[i] or b"")[:HEADER_BYTES] for i in present]), dtype=_HEADER)
    served = heads["event"] > bound
    return _assembled(part, np.array(present, dtype=np.int64)[served], heads["layout"][served])


def _assembled(part: ViewValues, served: Array, ids: Array) -> list[pa.Array]:
    """Rows of several kinds, each kind decoded by itself, in the order asked."""
    values = part.values
    pieces = []
    order = []
    for layout_id in np.unique(ids):
        places = served[ids == layout_id]
        rows = _Rows.read(part, int(layout_id).to_bytes(4, "big"), [values[i] or b"" for i in places])
        assert rows is not None  # noqa: S101 - chosen by their layout
        pieces.append(rows.arrays(part))
        order.append(places)
    others = np.setdiff1d(np.arange(len(values)), served)
    if len(others) or not pieces:
        pieces.append(_of_rows(part, [part.row(i) for i in others]))
        order.append(others)
    places = pa.array(np.argsort(np.concatenate(order)))
    return [pa.concat_arrays(arrays).take(places) for arrays in zip(*pieces, strict=True)]


def _of_rows(part: ViewValues, rows: Sequence[Sequence[Any]]) -> list[pa.Array]:
    return [pa.array([row[i] for row in rows], arrow_type(type_)) for i, type_ in enumerate(part.form.types)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Where the bytes of a layout lie."""

    dtype: np.dtype[Any]
    places: dict[str, int]
    tails: tuple[int, ...]
    """Places of the columns whose bytes lie behind the fixed section."""


@lru_cache(maxsize=256)
def _shape(layout: Layout) -> _Shape:
    columns = [(f"c{i}", *numpy_slot(type_)) for i, (_, type_) in enumerate(layout.columns)]
    return _Shape(
        dtype=np.dtype([*_HEADER.descr, ("nulls", "u1", (layout.bitmap_bytes,)), *columns]),
        places={name: i for i, (name, _) in enumerate(layout.columns)},
        tails=tuple(i for i, (_, type_) in enumerate(layout.columns) if has_tail(type_)),
    )


class _Rows:
    """Values in one layout, as one structured array and the bytes behind."""

    def __init__(self, fixed: Array, decoder: RowDecoder, values: Sequence[bytes]) -> None:
        self.fixed = fixed
        self._decoder = decoder
        self._shape = _shape(decoder.layout)
        self._values = values

    @classmethod
    def read(cls, part: ViewValues, layout_id: bytes, values: Sequence[bytes]) -> _Rows | None:
        """The values, or None if some have another layout.

        Raises:
            CorruptValueError: one is longer or shorter than its layout and the lengths in it say.
        """
        decoder = part.form.decoders[layout_id]
        shape = _shape(decoder.layout)
        size = shape.dtype.itemsize
        joined = b"".join(map(itemgetter(slice(size)), values))
        if len(joined) == len(values) * size:
            fixed = np.frombuffer(joined, dtype=shape.dtype)
            if not (fixed["layout"] == int.from_bytes(layout_id, "big")).all():
                return None
            lengths = np.fromiter(map(len, values), np.int64, len(values)) - size
            for place in shape.tails:
                lengths -= fixed[f"c{place}"]
            if not lengths.any():
                return cls(fixed, decoder, values)
        for value in values:
            if value[PREFIX_BYTES:HEADER_BYTES] == layout_id:
                decoder.decode(value)  # says what is wrong with it
        return None

    def numpy(self, part: ViewValues) -> list[Array]:
        """The features, in the order asked: numbers and texts without a way through Arrow."""
        found = []
        for name, type_ in zip(part.form.features, part.form.types, strict=True):
            place = self._shape.places.get(name)
            mask = None if place is None else self._mask(place)
            if place is not None and type_ in _PLAIN:
                numbers: Array = self.fixed[f"c{place}"].copy()
                if mask is not None:
                    numbers = numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)
                    numbers[mask] = np.nan
                found.append(numbers)
            elif place is not None and type_ is ColumnType.VARCHAR and self._texts is not None:
                texts: Array = self._texts[self._shape.tails.index(place) :: len(self._shape.tails)].copy()
                if mask is not None:
                    texts[mask] = None
                found.append(texts)
            else:
                found.append(_numpy(self._array(name, type_), type_))
        return found

    def arrays(self, part: ViewValues) -> list[pa.Array]:
        """The features, in the order asked."""
        return [self._array(name, type_) for name, type_ in zip(part.form.features, part.form.types, strict=True)]

    def _array(self, name: str, type_: FeatureType) -> pa.Array:
        place = self._shape.places.get(name)
        if place is None:  # added after these were written
            return pa.nulls(len(self.fixed), arrow_type(type_))
        mask = self._mask(place)
        if has_tail(type_):
            return self._tail_array(type_, self._shape.tails.index(place), mask)
        return _slot_array(type_, self.fixed[f"c{place}"], mask)

    def _mask(self, place: int) -> Array | None:
        """Where a column is NULL, if it is anywhere."""
        bits, with_nulls = self._nulls
        return bits[:, place] if with_nulls[place] else None

    @cached_property
    def _nulls(self) -> tuple[Array, list[bool]]:
        """Per row and column whether it is NULL, and which columns have such."""
        bits = np.unpackbits(self.fixed["nulls"], axis=1, count=len(self._shape.places), bitorder="little")
        with_nulls: list[bool] = np.asarray(bits.any(axis=0)).tolist()
        return bits.view(np.bool_), with_nulls

    @cached_property
    def _texts(self) -> Array | None:
        """All stretches of the bytes behind as texts; None if they are not all plain ASCII."""
        joined, edges = self._tail_bytes, self._edges
        if not joined.isascii():
            return None
        buffers = [None, pa.py_buffer(edges), pa.py_buffer(joined)]
        texts: Array = pa.Array.from_buffers(pa.large_string(), len(edges) - 1, buffers).to_numpy(zero_copy_only=False)
        return texts

    @cached_property
    def _tail_bytes(self) -> bytes:
        return b"".join(map(itemgetter(slice(self._shape.dtype.itemsize, None)), self._values))

    @cached_property
    def _edges(self) -> Array:
        """Where each stretch of the bytes behind begins and the last ends: row by row, in each column by column."""
        lengths = np.column_stack([self.fixed[f"c{place}"] for place in self._shape.tails])
        edges: Array = np.zeros(lengths.size + 1, dtype=np.int64)
        np.cumsum(lengths.reshape(-1), out=edges[1:])
        return edges

    def _tail_array(self, type_: FeatureType, column: int, mask: Array | None) -> pa.Array:
        """A column's stretches of the joined bytes, copied side by side."""
        joined, edges = self._tail_bytes, self._edges
        # what is ASCII in all is UTF-8 in each; else each is looked at
        is_text = type_ is ColumnType.VARCHAR and joined.isascii()
        kind = pa.large_string() if is_text else pa.large_binary()
        stretches = pa.Array.from_buffers(kind, len(edges) - 1, [None, pa.py_buffer(edges), pa.py_buffer(joined)])
        places = np.arange(column, len(edges) - 1, len(self._shape.tails))
        if not isinstance(type_, ListType):
            found = stretches.take(pa.array(places, mask=mask))
            if type_ is not ColumnType.VARCHAR or is_text:
                return found
            try:
                return found.cast(pa.large_string())
            except pa.ArrowInvalid:
                for value in self._values:
                    self._decoder.decode(value)  # says which is no UTF-8
                raise
        found = stretches.take(pa.array(places))
        _, bounds, data = found.buffers()
        lists = np.frombuffer(bounds, dtype=np.int64)[: len(found) + 1] // element_bytes(type_)
        flat = np.frombuffer(data or b"", dtype="<" + NUMBERS[type_.element], count=int(lists[-1]))
        return pa.LargeListArray.from_arrays(
            pa.array(lists), pa.array(flat, _ARROW[type_.element]), mask=None if mask is None else pa.array(mask)
        )


def _slot_array(type_: FeatureType, slots: Array, mask: Array | None) -> pa.Array:
    target = arrow_type(type_)
    if isinstance(type_, DecimalType):
        words: Array = np.empty((len(slots), 2), dtype="<i8")
        if type_.precision > LONG_DIGITS:
            words[:] = slots
        else:
            words[:, 0], words[:, 1] = slots, slots >> 63  # the sign, in all the upper bits
        whole = pa.Array.from_buffers(target, len(slots), [None, pa.py_buffer(words)])
        return whole if mask is None else pc.if_else(pa.array(mask), pa.scalar(None, target), whole)
    flat = np.ascontiguousarray(slots)
    if isinstance(type_, ListType):
        elements = pa.array(flat.reshape(-1), _ARROW[type_.element])
        return pa.FixedSizeListArray.from_arrays(elements, type_.length, mask=None if mask is None else pa.array(mask))
    if type_ in (ColumnType.DATE, ColumnType.TIMESTAMPTZ):
        number = pa.int32() if type_ is ColumnType.DATE else pa.int64()
        return pa.array(flat, number, mask=mask).view(target)
    return pa.array(flat, target, mask=mask)
