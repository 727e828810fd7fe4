"""Round trips, injective keys, and columnar encoding equal to the row-by-row definition."""

from __future__ import annotations

import dataclasses
import math
import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from online_support import make_view
from thoroughness import examples

from feature_platform.domain.types import (
    ELEMENT_TYPES,
    ENTITY_TYPES,
    ColumnType,
    DecimalType,
    FeatureType,
    ListType,
)
from feature_platform.errors import BatchRejectedError, CorruptValueError
from feature_platform.online.codec import Layout, decode_prefix, from_micros, layout_id_of, to_micros
from feature_platform.online.decoding import RowDecoder, decode
from feature_platform.online.keys import entity_key, row_key
from feature_platform.sync import framing
from feature_platform.sync.encoding import encode_absent, encode_keys, encode_rows, encode_values

ADVERSARIAL = st.text(alphabet=st.sampled_from(list("%,{}:@2357BCD$\r\n\0 é漢😀")), max_size=6)
TEXT = st.one_of(ADVERSARIAL, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20))
INSTANTS = st.datetimes(timezones=st.just(UTC)).map(lambda t: t.astimezone(UTC))
EPOCH_NOW = datetime(2026, 3, 10, tzinfo=UTC)
FLOATS32 = st.floats(width=32)


def integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else st.integers(0, (1 << bits) - 1)


VALUES: dict[ColumnType, st.SearchStrategy[Any]] = {
    ColumnType.BOOLEAN: st.booleans(),
    ColumnType.TINYINT: integers(8),
    ColumnType.SMALLINT: integers(16),
    ColumnType.INTEGER: integers(32),
    ColumnType.BIGINT: integers(64),
    ColumnType.UTINYINT: integers(8, signed=False),
    ColumnType.USMALLINT: integers(16, signed=False),
    ColumnType.UINTEGER: integers(32, signed=False),
    ColumnType.UBIGINT: integers(64, signed=False),
    ColumnType.FLOAT: FLOATS32,
    ColumnType.DOUBLE: st.floats(),
    ColumnType.VARCHAR: TEXT,
    ColumnType.BLOB: st.binary(max_size=20),
    ColumnType.DATE: st.dates(),
    ColumnType.TIMESTAMPTZ: INSTANTS,
}
ARROW = {
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
    ColumnType.VARCHAR: pa.string(),
    ColumnType.BLOB: pa.binary(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
}
DECIMALS = st.integers(1, 38).flatmap(lambda p: st.builds(DecimalType, st.just(p), st.integers(0, p)))
LISTS = st.builds(ListType, st.sampled_from(sorted(ELEMENT_TYPES)), st.none() | st.integers(1, 5))
FEATURES = st.lists(st.sampled_from(list(ColumnType)) | DECIMALS | LISTS, min_size=1, max_size=12)


def values_of(type_: FeatureType) -> st.SearchStrategy[Any]:
    if isinstance(type_, DecimalType):
        limit = 10**type_.precision - 1
        return st.integers(-limit, limit).map(lambda unscaled: exact(unscaled, type_.scale))
    if isinstance(type_, ListType):
        length = type_.length
        return st.lists(VALUES[type_.element], min_size=length or 0, max_size=length or 5)
    return VALUES[type_]


def exact(unscaled: int, scale: int) -> Decimal:
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))


def arrow_of(type_: FeatureType) -> pa.DataType:
    if isinstance(type_, DecimalType):
        return pa.decimal128(type_.precision, type_.scale)
    if isinstance(type_, ListType):
        return pa.list_(ARROW[type_.element], type_.length or -1)
    return ARROW[type_]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and a == b


@st.composite
def rows(draw: st.DrawFn) -> tuple[tuple[tuple[str, FeatureType], ...], list[dict[str, Any]], list[datetime]]:
    columns = tuple((f"f{i}", type_) for i, type_ in enumerate(draw(FEATURES)))
    row = st.fixed_dictionaries({name: st.none() | values_of(type_) for name, type_ in columns})
    found = draw(st.lists(row, min_size=1, max_size=5))
    return columns, found, [draw(INSTANTS) for _ in found]


@given(rows(), st.integers(0, 2**63 - 1))
def test_what_is_encoded_is_decoded(drawn: Any, position: int) -> None:
    columns, found, instants = drawn
    layout = Layout.of(columns)
    for row, instant in zip(found, instants, strict=True):
        value = layout.encode(position, instant, row)
        assert decode_prefix(value).position == position
        assert decode_prefix(value).event_timestamp == instant
        assert layout_id_of(value) == layout.layout_id
        decoded = decode(layout, value)
        assert decoded.keys() == row.keys()
        assert all(same(decoded[name], row[name]) for name in row)


@given(rows(), st.data())
@settings(max_examples=examples(100))
def test_the_features_asked_for_come_in_the_order_asked_for(drawn: Any, data: st.DataObject) -> None:
    columns, found, instants = drawn
    layout = Layout.of(columns)
    asked = data.draw(st.permutations([*(name for name, _ in columns), "added later"]))
    asked = asked[: data.draw(st.integers(1, len(asked)))]
    decoder = RowDecoder(layout, asked)
    for row, instant in zip(found, instants, strict=True):
        value = layout.encode(1, instant, row)
        values = decoder.decode(value)
        assert len(values) == len(asked)
        assert all(same(item, row.get(name)) for item, name in zip(values, asked, strict=True))
        for damaged in (value[: data.draw(st.integers(20, len(value) - 1))] if len(value) > 20 else b"", value + b"x"):
            with pytest.raises(CorruptValueError):
                decoder.decode(damaged)


@pytest.mark.parametrize("name", ["f", "two words", "class", "__class__", "ﬁ", "__init__"])
@pytest.mark.parametrize("count", [1, 29, 30, 31, 64])
def test_a_row_has_the_names_that_are_asked_for(name: str, count: int) -> None:
    features = [name, *(f"f{i}" for i in range(1, count))]
    layout = Layout.of((feature, ColumnType.DOUBLE) for feature in features)
    written = [{feature: None if i == 2 * row else float(i) for i, feature in enumerate(features)} for row in range(3)]
    read = RowDecoder(layout, features).named_rows([layout.encode(1, EPOCH_NOW, row) for row in written])
    assert [list(row.items()) for row in read] == [list(row.items()) for row in written]
    # rows share nothing that shows
    read[0]["more"] = 1
    del read[1][name]
    assert [name in row for row in read] == [True, False, True]
    assert read[2] == written[2]
    assert all(type(row) is dict for row in read)


@pytest.mark.parametrize("length", [None, 2])
def test_a_list_with_a_null_element_is_refused(length: int | None) -> None:
    type_ = ListType(ColumnType.FLOAT, length)
    batch = pa.RecordBatch.from_pydict(
        {
            "v": pa.array([None, [1.0, None]], arrow_of(type_)),
            "event_timestamp": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
        }
    )
    with pytest.raises(BatchRejectedError, match="NULL elements"):
        encode_values(make_view(features={"v": type_}), Layout.of([("v", type_)]), 1, batch)


@given(rows(), st.integers(0, 2**63 - 1))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=examples(100))
def test_columns_encode_to_the_same_bytes_as_rows(drawn: Any, position: int) -> None:
    columns, found, instants = drawn
    view = make_view(features=dict(columns))
    layout = Layout.of(columns)
    arrays: dict[str, pa.Array] = {
        name: pa.array([row[name] for row in found], arrow_of(type_)) for name, type_ in columns
    }
    arrays["event_timestamp"] = pa.array(instants, pa.timestamp("us", "UTC"))
    batch = pa.RecordBatch.from_pydict(arrays)
    encoded = encode_values(view, layout, position, batch).to_pylist()
    if len(found) > 1:  # a slice shares its buffers with the whole
        assert encode_values(view, layout, position, batch.slice(1)).to_pylist() == encoded[1:]
    for value, row, instant in zip(encoded, found, instants, strict=True):
        expected = layout.encode(position, instant, row)
        # a NaN's payload is the float's own affair
        assert value == expected or all(
            same(a, b) for a, b in zip(*map(_plain(layout), (value, expected)), strict=True)
        )


def _plain(layout: Layout) -> Any:
    return lambda value: [value[:20].hex(), *decode(layout, value).values()]


ENTITY = st.lists(st.sampled_from(sorted(ENTITY_TYPES)), min_size=1, max_size=3)


@st.composite
def entities(draw: st.DrawFn) -> tuple[tuple[tuple[str, ColumnType], ...], list[dict[str, Any]]]:
    columns = tuple((f"e{i}", type_) for i, type_ in enumerate(draw(ENTITY)))
    strategies = {name: ADVERSARIAL if type_ is ColumnType.VARCHAR else VALUES[type_] for name, type_ in columns}
    return columns, draw(st.lists(st.fixed_dictionaries(strategies), min_size=2, max_size=6))


@given(entities())
@example(((("a", ColumnType.VARCHAR), ("b", ColumnType.VARCHAR)), [{"a": "1", "b": "23"}, {"a": "12", "b": "3"}]))
@example(((("a", ColumnType.VARCHAR), ("b", ColumnType.VARCHAR)), [{"a": "", "b": ","}, {"a": ",", "b": ""}]))
@example(((("a", ColumnType.VARCHAR),), [{"a": ""}, {"a": "%"}, {"a": "%25"}, {"a": "}{"}, {"a": "\0"}]))
def test_different_entities_have_different_keys(drawn: Any) -> None:
    columns, found = drawn
    encoded = {}
    for entity in found:
        key = entity_key(columns, entity)
        assert encoded.setdefault(key, entity) == entity
        assert b"{" not in key and b"}" not in key and key, "the hash tag must be the whole entity key"


@given(entities())
@settings(max_examples=examples(100))
def test_columns_make_the_same_keys_as_rows(drawn: Any) -> None:
    columns, found = drawn
    view = make_view(entities=dict(columns))
    arrays = {name: pa.array([row[name] for row in found], ARROW[type_]) for name, type_ in columns}
    keys = encode_keys(view, pa.RecordBatch.from_pydict(arrays)).to_pylist()
    assert keys == [row_key(view.key, entity_key(columns, entity)) for entity in found]


@given(st.lists(INSTANTS, min_size=2, max_size=5))
def test_prefixes_order_as_instants_do(instants: list[datetime]) -> None:
    layout = Layout.of([("f", ColumnType.BOOLEAN)])
    encoded = sorted(layout.encode(7, instant, {"f": None})[8:16] for instant in instants)
    assert [from_micros(struct.unpack(">Q", e)[0] - (1 << 63)) for e in encoded] == sorted(instants)


@given(st.lists(st.tuples(ADVERSARIAL, INSTANTS), min_size=1, max_size=60))
@settings(max_examples=examples(50))
def test_frames_are_what_a_client_library_would_send(found: Any) -> None:
    """Parsed back by libvalkey's parser: keys, values and instants in their places, whatever the command."""
    view = make_view(features={"s": ColumnType.VARCHAR})
    layout = Layout.of([("s", ColumnType.VARCHAR)])
    batch = pa.RecordBatch.from_pydict(
        {
            "carrier": pa.array([text for text, _ in found]),
            "_horizon": pa.array([instant for _, instant in found], pa.timestamp("us", "UTC")),
            "event_timestamp": pa.array([instant for _, instant in found], pa.timestamp("us", "UTC")),
            "s": pa.array([text for text, _ in found]),
        }
    )
    keys = [row_key(view.key, entity_key([("carrier", ColumnType.VARCHAR)], {"carrier": s})) for s, _ in found]
    for rows, values in (
        (encode_rows(view, layout, 3, batch), [layout.encode(3, t, {"s": s}) for s, t in found]),
        (encode_absent(view, 3, batch), [bytes(7) + b"\x03" + bytes(8)] * len(found)),
    ):
        assert len(rows) == len(found)
        frames, count = framing.call(rows)
        calls = _parsed(frames, count)
        rows_of = [int(call[2]) for call in calls]
        assert max(rows_of) <= framing.KEYS_PER_CALL
        assert [key for call, n in zip(calls, rows_of, strict=True) for key in call[3 : 3 + n]] == keys
        assert [value for call, n in zip(calls, rows_of, strict=True) for value in call[3 + n :: 2]] == values
        assert {call[4 + n] for call, n in zip(calls, rows_of, strict=True)} == {b"0"}
        assert [key for got in _parsed(*framing.get(rows)) for key in got[1:]] == keys

        expiring = dataclasses.replace(rows, keep_until=np.arange(len(rows)) * 997)
        until = [str(i * 997).encode() for i in range(len(rows))]
        new = [[b"SET", k, v, b"NX", b"PXAT", u] for k, v, u in zip(keys, values, until, strict=True)]
        assert _parsed(framing.set_if_absent(expiring, expires=True), len(rows)) == new
        assert _parsed(framing.set_if_absent(rows, expires=False), len(rows)) == [c[:4] for c in new]
        old = pa.array([b"o" * (i % 7) for i in range(len(rows))], pa.large_binary())
        swaps = _parsed(framing.replace(expiring, old, expires=True), 2 * len(rows))
        assert swaps[::2] == [[b"PEXPIREAT", k, u, b"GT"] for k, u in zip(keys, until, strict=True)]
        assert swaps[1::2] == [
            [b"SET", k, v, b"IFEQ", o, b"KEEPTTL"] for k, v, o in zip(keys, values, old.to_pylist(), strict=True)
        ]
        assert _parsed(framing.replace(rows, old, expires=False), len(rows)) == [swap[:5] for swap in swaps[1::2]]


def _parsed(frames: bytes, count: int) -> list[list[bytes]]:
    import libvalkey

    reader = libvalkey.Reader()
    reader.feed(frames)
    commands = [reader.gets() for _ in range(count)]
    assert reader.gets() is False
    return commands


def test_micros_are_exact() -> None:
    assert from_micros(to_micros(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))).year == 9999
    assert date(1, 1, 1).toordinal() == 1
