"""Answers as columns: numpy, Arrow, pandas. The only module of `online` that imports them; extras of the package.

Rule: no Python per value where the bytes allow it. The fixed sections of all rows become one structured array; texts,
blobs and lists are slices of the joined bytes. Rows that are not served as they are (missing, expired, replaced by
defaults) and those in an older layout are read apart and put in their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    slot_format,
)
from feature_platform.online.result import OnlineFeatures, ViewValues

if TYPE_CHECKING:
    import pandas as pd

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
    arrays = [
        _numpy(array, type_) for part in answer.by_view for array, type_ in zip(_arrays(part), part.types, strict=True)
    ]
    return dict(zip(answer.feature_names, arrays, strict=True))


def _numpy(array: pa.Array, type_: FeatureType) -> Array:
    found: Array
    if type_ in _WHOLE or type_ is ColumnType.BOOLEAN:
        if array.null_count:
            # the last digits of large integers go here; who needs them beside NULL asks for Arrow
            array = pc.cast(array.cast(pa.uint8()) if type_ is ColumnType.BOOLEAN else array, pa.float64(), safe=False)
        found = array.to_numpy(zero_copy_only=False)
    elif type_ in (ColumnType.FLOAT, ColumnType.DOUBLE):
        found = array.to_numpy(zero_copy_only=False)
    elif isinstance(type_, ListType) and type_.length is not None and not array.null_count:
        found = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, type_.length)
    else:
        found = np.empty(len(array), dtype=object)
        found[:] = array.to_pylist()
    return found


def _arrays(part: ViewValues) -> list[pa.Array]:
    """The features of one view, in the order asked."""
    values = part.values
    present = [i for i, value in enumerate(values) if value is not None and len(value) > PREFIX_BYTES]
    rows: Sequence[Any] = values if len(present) == len(values) else [values[i] for i in present]
    heads = np.frombuffer(b"".join([value[:HEADER_BYTES] for value in rows]), dtype=_HEADER)
    served = heads["event"] > int.from_bytes(part.served_after, "big")
    ids = heads["layout"]
    if len(rows) and len(rows) == len(values) and served.all() and (ids == ids[0]).all():
        return _of_layout(part, rows)
    return _assembled(part, np.array(present, dtype=np.int64)[served], ids[served])


def _assembled(part: ViewValues, served: Array, ids: Array) -> list[pa.Array]:
    """Rows of several kinds, each kind decoded by itself, in the order asked."""
    values = part.values
    pieces = []
    order = []
    for layout_id in np.unique(ids):
        places = served[ids == layout_id]
        pieces.append(_of_layout(part, [values[i] for i in places]))
        order.append(places)
    others = np.setdiff1d(np.arange(len(values)), served)
    if len(others) or not pieces:
        pieces.append(_of_rows(part, [part.row(i) for i in others]))
        order.append(others)
    places = pa.array(np.argsort(np.concatenate(order)))
    return [pa.concat_arrays(arrays).take(places) for arrays in zip(*pieces, strict=True)]


def _of_rows(part: ViewValues, rows: Sequence[Sequence[Any]]) -> list[pa.Array]:
    return [pa.array([row[i] for row in rows], arrow_type(type_)) for i, type_ in enumerate(part.types)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Where the bytes of a layout lie."""

    dtype: np.dtype[Any]
    places: dict[str, int]
    tails: tuple[int, ...]
    """Places of the columns whose bytes lie behind the fixed section."""


@lru_cache(maxsize=256)
def _shape(layout: Layout) -> _Shape:
    columns = [(f"c{i}", *_slot(type_)) for i, (_, type_) in enumerate(layout.columns)]
    return _Shape(
        dtype=np.dtype([("header", f"V{HEADER_BYTES}"), ("nulls", "u1", (layout.bitmap_bytes,)), *columns]),
        places={name: i for i, (name, _) in enumerate(layout.columns)},
        tails=tuple(i for i, (_, type_) in enumerate(layout.columns) if has_tail(type_)),
    )


def _slot(type_: FeatureType) -> tuple[Any, ...]:
    if isinstance(type_, DecimalType):
        return ("<i8",) if type_.precision <= LONG_DIGITS else ("<i8", (2,))
    if isinstance(type_, ListType) and type_.length is not None:
        return "<" + NUMBERS[type_.element], (type_.length,)
    return ("<" + slot_format(type_),)


def _of_layout(part: ViewValues, values: Sequence[bytes]) -> list[pa.Array]:
    """The features of values in one layout; their lengths were checked when they came."""
    layout = part.decoders[values[0][PREFIX_BYTES:HEADER_BYTES]].layout
    shape = _shape(layout)
    size = shape.dtype.itemsize
    fixed = b"".join([value[:size] for value in values] if shape.tails else values)
    rows = np.frombuffer(fixed, dtype=shape.dtype)
    bitmaps = rows["nulls"]
    bits: Array | None = None
    with_nulls: frozenset[int] = frozenset()
    if bitmaps.any():
        bits = np.unpackbits(bitmaps, axis=1, count=len(layout.columns), bitorder="little").astype(bool)
        with_nulls = frozenset(np.flatnonzero(bits.any(axis=0)).tolist())
    tails: _Tails | None = None
    arrays = []
    for name, type_ in zip(part.features, part.types, strict=True):
        place = shape.places.get(name)
        if place is None:  # added after these were written
            arrays.append(pa.nulls(len(values), arrow_type(type_)))
            continue
        mask = bits[:, place] if bits is not None and place in with_nulls else None
        if has_tail(type_):
            tails = tails or _Tails(rows, shape, values)
            arrays.append(_tail_array(type_, tails, shape.tails.index(place), mask))
        else:
            arrays.append(_slot_array(type_, rows[f"c{place}"], mask))
    return arrays


class _Tails:
    """The bytes behind the fixed sections, joined, and where each column's begin and end."""

    def __init__(self, rows: Array, shape: _Shape, values: Sequence[bytes]) -> None:
        size = shape.dtype.itemsize
        self.joined = b"".join([value[size:] for value in values])
        lengths = np.column_stack([rows[f"c{place}"] for place in shape.tails]).astype(np.int64)
        ends = np.cumsum(lengths.reshape(-1))  # row by row, in each row column by column: as the bytes lie
        self._ends = ends.reshape(lengths.shape)
        self._lengths = lengths

    def offsets(self, column: int) -> Array:
        """Two offsets per row, begin and end of its bytes, and the end of all."""
        ends = self._ends[:, column]
        offsets = np.empty(2 * len(ends) + 1, dtype=np.int64)
        offsets[:-1:2], offsets[1::2], offsets[-1] = ends - self._lengths[:, column], ends, len(self.joined)
        return offsets


def _tail_array(type_: FeatureType, tails: _Tails, column: int, mask: Array | None) -> pa.Array:
    """Slices of the joined bytes: every second stretch between the offsets is a value."""
    offsets = tails.offsets(column)
    stretches = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(tails.joined)]
    )
    found = stretches.take(pa.array(np.arange(0, len(offsets) - 1, 2)))
    if isinstance(type_, ListType):
        _, bounds, data = found.buffers()
        edges = np.frombuffer(bounds, dtype=np.int64)[: len(found) + 1] // element_bytes(type_)
        flat = np.frombuffer(data or b"", dtype="<" + NUMBERS[type_.element], count=int(edges[-1]))
        return pa.LargeListArray.from_arrays(
            pa.array(edges), pa.array(flat, _ARROW[type_.element]), mask=None if mask is None else pa.array(mask)
        )
    if mask is not None:
        found = pc.if_else(pa.array(mask), pa.scalar(None, pa.large_binary()), found)
    return pc.cast(found, pa.large_string()) if type_ is ColumnType.VARCHAR else found


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
