"""Rows of the lake to the bytes the store holds, columns at a time: no Python per row.

Rule: the bytes equal those of `online.keys` and `online.codec`, which define the format row by row
(tests/property/test_codec.py compares them).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView
from feature_platform.domain.types import ColumnType, DecimalType, FeatureType, ListType
from feature_platform.errors import BatchRejectedError
from feature_platform.online import keys
from feature_platform.online.codec import LONG_DIGITS, NUMBERS, SIGN_BIT, Layout, has_tail, numpy_slot, tombstone
from feature_platform.sync.plan import HORIZON

MAX_GRACE: Final = timedelta(days=7)
"""An expired row is kept for its ttl again, at most this long, so that a client can say `expired` and not `missing`."""

_MICROS_PER_MS: Final = 1000
_FIRST_MICROS: Final = -62_135_596_800_000_000
_LAST_MICROS: Final = 253_402_300_799_999_999
_FIRST_DAY: Final = -719_162
_LAST_DAY: Final = 2_932_896
_NOTHING: Final = pa.scalar(b"", pa.large_binary())


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Rows as the store holds them."""

    keys: pa.LargeBinaryArray
    values: pa.LargeBinaryArray
    keep_until: Any
    """Per row the instant in milliseconds until which its key must be kept; 0 = for ever."""

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, which: Any) -> Encoded:
        """Some of the rows: a mask or positions, as numpy has them."""
        places = np.flatnonzero(which) if which.dtype == bool else which
        chosen = pa.array(places)
        return Encoded(keys=self.keys.take(chosen), values=self.values.take(chosen), keep_until=self.keep_until[places])


def layout_of(view: FeatureView) -> Layout:
    """The layout in which rows of the view are written."""
    return Layout.of((column.name, column.type) for column in view.features)


def encode_rows(view: FeatureView, layout: Layout, position: int, batch: pa.RecordBatch) -> Encoded:
    """Rows from key columns, `_horizon`, `event_timestamp` and features.

    Raises:
        BatchRejectedError: an instant or a date lies outside the years 1 to 9999, or a list has a NULL element.
    """
    values = encode_values(view, layout, position, batch)
    events = _micros(view, EVENT_TIMESTAMP, batch)
    # the horizon bounds what the plan's range may bring back; the row itself must be kept for its own ttl as well
    until = _keep_until(view, np.maximum(events, _micros(view, HORIZON, batch)))
    return Encoded(keys=encode_keys(view, batch), values=values, keep_until=until)


def encode_absent(view: FeatureView, position: int, batch: pa.RecordBatch) -> Encoded:
    """Tombstones from key columns and `_horizon`."""
    values = pa.array([tombstone(position)] * batch.num_rows, pa.large_binary())
    until = _keep_until(view, _micros(view, HORIZON, batch))
    return Encoded(keys=encode_keys(view, batch), values=values, keep_until=until)


def encode_pushed(view: FeatureView, layout: Layout, number: Any, batch: pa.RecordBatch) -> Encoded:
    """Rows of a push: key columns, `event_timestamp`, and the features; its number, or that of each row.

    Raises:
        BatchRejectedError: as `encode_values`.
    """
    suffix = pa.scalar(keys.PUSHED, pa.large_binary())
    return Encoded(
        keys=pc.binary_join_element_wise(encode_keys(view, batch), suffix, _NOTHING),
        values=encode_values(view, layout, number, batch, is_pushed=True),
        keep_until=_keep_until(view, _micros(view, EVENT_TIMESTAMP, batch)),
    )


def encode_keys(view: FeatureView, batch: pa.RecordBatch) -> pa.LargeBinaryArray:
    """The row keys of a batch (`online.keys`)."""
    return row_keys(view.key, view.entities, batch)


def row_keys(view: str, entities: Iterable[Column], batch: pa.RecordBatch) -> pa.LargeBinaryArray:
    """The row keys that a batch has in a view (`name@version`) with these key columns."""
    components = []
    for column in entities:
        text = pc.cast(batch.column(column.name), pa.large_string())
        if column.type is ColumnType.VARCHAR:
            for plain, escaped in keys.ESCAPES:
                text = pc.replace_substring(text, plain, escaped)
            text = pc.if_else(pc.equal(pc.binary_length(text), 0), keys.EMPTY, text)
        components.append(pc.cast(text, pa.large_binary()))
    entity = pc.binary_join_element_wise(*components, pa.scalar(keys.SEPARATOR.encode(), pa.large_binary()))
    opening = pa.scalar(f"{view}:{{".encode(), pa.large_binary())
    return pc.binary_join_element_wise(opening, entity, pa.scalar(b"}", pa.large_binary()), _NOTHING)


def encode_values(
    view: FeatureView, layout: Layout, position: Any, batch: pa.RecordBatch, *, is_pushed: bool = False
) -> pa.LargeBinaryArray:
    """The values of a batch (`online.codec`). Those of pushed rows begin with the event time, then the push's number.

    Raises:
        BatchRejectedError: an instant or a date lies outside the years 1 to 9999, or a list has a NULL element.
    """
    count = batch.num_rows
    columns = [(f"c{i}", name, type_) for i, (name, type_) in enumerate(layout.columns)]
    fixed = np.zeros(
        count,
        dtype=np.dtype(
            [
                *((name, ">u8") for name in (("event", "position") if is_pushed else ("position", "event"))),
                ("layout", ">u4"),
                ("nulls", "u1", (layout.bitmap_bytes,)),
                *((slot, *numpy_slot(type_)) for slot, _, type_ in columns),
            ]
        ),
    )
    fixed["position"] = position
    # two's complement with the sign bit flipped: bytes order as instants do
    fixed["event"] = _micros(view, EVENT_TIMESTAMP, batch).view(np.uint64) ^ np.uint64(SIGN_BIT)
    fixed["layout"] = layout.layout_id
    nulls = np.zeros((count, len(columns)), dtype=bool)
    tails = []
    for i, (slot, name, type_) in enumerate(columns):
        values = batch.column(name)
        nulls[:, i] = pc.is_null(values).to_numpy(zero_copy_only=False)
        if has_tail(type_):
            binary = (
                _list_bytes(view, name, batch) if isinstance(type_, ListType) else pc.cast(values, pa.large_binary())
            )
            tails.append(pc.coalesce(binary, _NOTHING))
            fixed[slot] = pc.binary_length(tails[-1]).to_numpy(zero_copy_only=False)
        else:
            fixed[slot] = _numbers(view, name, type_, batch)
    fixed["nulls"] = np.packbits(nulls, axis=1, bitorder="little")
    start = pa.FixedSizeBinaryArray.from_buffers(pa.binary(fixed.dtype.itemsize), count, [None, pa.py_buffer(fixed)])
    return pc.binary_join_element_wise(pc.cast(start, pa.large_binary()), *tails, _NOTHING)


def _numbers(view: FeatureView, name: str, type_: FeatureType, batch: pa.RecordBatch) -> Any:
    values = batch.column(name)
    if isinstance(type_, DecimalType):
        return _unscaled(values, type_)
    if isinstance(type_, ListType):
        return _matrix(view, name, type_, values)
    if type_ is ColumnType.TIMESTAMPTZ:
        return _micros(view, name, batch)
    if type_ is ColumnType.DATE:
        days = pc.fill_null(pc.cast(values, pa.int32()), 0).to_numpy(zero_copy_only=False)
        _refuse_outside(view, name, days, _FIRST_DAY, _LAST_DAY)
        return days
    # filled while still typed: an integer must not pass through a float to carry a null
    return pc.fill_null(values, pa.scalar(0, pa.int8()).cast(values.type)).to_numpy(zero_copy_only=False)


def _unscaled(values: pa.Array, type_: DecimalType) -> Any:
    """Arrow's decimals are 16 bytes of two's complement, little-endian: those bytes, or the lower half."""
    filled = pc.fill_null(pc.cast(values, pa.decimal128(type_.precision, type_.scale)), 0)
    words = np.frombuffer(filled.buffers()[1], dtype="<i8").reshape(-1, 2)[filled.offset :][: len(filled)]
    return words[:, 0] if type_.precision <= LONG_DIGITS else words


def _matrix(view: FeatureView, name: str, type_: ListType, values: pa.Array) -> Any:
    """Lists of one length, a row each; zeros for NULL."""
    elements = values.flatten()
    _refuse_null_elements(view, name, elements)
    dtype = np.dtype("<" + NUMBERS[type_.element])
    matrix = np.zeros((len(values), type_.length or 0), dtype=dtype)
    held = pc.is_valid(values).to_numpy(zero_copy_only=False)
    matrix[held] = elements.to_numpy(zero_copy_only=False).reshape(-1, matrix.shape[1])
    return matrix


def _list_bytes(view: FeatureView, name: str, batch: pa.RecordBatch) -> pa.LargeBinaryArray:
    """The elements of each list, little-endian, side by side; NULL for NULL."""
    lists = batch.column(name)
    elements = lists.flatten()
    _refuse_null_elements(view, name, elements)
    raw = np.ascontiguousarray(elements.to_numpy(zero_copy_only=False))
    size = raw.dtype.itemsize
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths) * size))
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        len(lists),
        [None, pa.py_buffer(offsets), pa.py_buffer(raw.astype(raw.dtype.newbyteorder("<")))],
    )


def _refuse_null_elements(view: FeatureView, name: str, elements: pa.Array) -> None:
    if elements.null_count:
        raise BatchRejectedError(
            f"feature view {view.key} has lists with NULL elements in column {name!r}",
            found=f"{elements.null_count} NULL elements",
            allowed="NULL lists, empty lists, and lists of numbers",
            hint="fill the elements in the model, or make the list NULL, and materialize the partition again",
        )


def _micros(view: FeatureView, name: str, batch: pa.RecordBatch) -> Any:
    """Microseconds since 1970 UTC; 0 for NULL."""
    values = pc.cast(pc.cast(batch.column(name), pa.timestamp("us", "UTC")), pa.int64())
    micros = pc.fill_null(values, 0).to_numpy(zero_copy_only=False)
    _refuse_outside(view, name, micros, _FIRST_MICROS, _LAST_MICROS)
    return micros


def _refuse_outside(view: FeatureView, name: str, values: Any, first: int, last: int) -> None:
    if len(values) and (values.min() < first or values.max() > last):
        raise BatchRejectedError(
            f"feature view {view.key} has a value in column {name!r} that no client can read",
            found="an infinite or very distant date or instant",
            allowed="the years 1 to 9999",
            hint="bound the column in the model, or make it NULL, and materialize the partition again",
        )


def _keep_until(view: FeatureView, last_event: Any) -> Any:
    """Instant in milliseconds until which the store keeps a key; 0 = for ever."""
    if view.ttl is None:
        return np.zeros(len(last_event), dtype=np.int64)
    kept = (view.ttl + min(view.ttl, MAX_GRACE)) // timedelta(microseconds=1)
    # rounded up: a key must not go before its row is dead
    return -((-(last_event + kept)) // _MICROS_PER_MS)
