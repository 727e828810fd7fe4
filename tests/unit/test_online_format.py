"""The golden vectors of docs/reference: those of the page, and those of every type in the file beside it."""

from __future__ import annotations

import json
import re
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from feature_platform.domain.types import ColumnType, DecimalType, FeatureType, ListType, parse_column_type
from feature_platform.errors import CorruptValueError
from feature_platform.online.codec import Layout, columns_from_json, decode_prefix, layout_id_of, tombstone
from feature_platform.online.decoding import decode
from feature_platform.online.keys import entity_key, row_key

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "online-format.md").read_text(encoding="utf-8")


def golden(what: str) -> str:
    return re.findall(rf"<!-- golden: {what} -->\n(.*?)\n<!-- /golden -->", TEXT, re.DOTALL)[0]


def table(what: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in golden(what).splitlines()[2:]]
    return [[cell.strip().strip("`") for cell in row] for row in rows]


LAYOUT_ID = re.findall(r"golden: layout (\w+)", TEXT)[0]
LAYOUT = Layout(columns_from_json(json.loads(golden(f"layout {LAYOUT_ID}").strip("`json\n"))))


def test_the_layout_has_the_id_and_the_order_that_are_written() -> None:
    assert f"{LAYOUT.layout_id:08x}" == LAYOUT_ID
    assert Layout.of(sorted(LAYOUT.columns)).columns == tuple(
        sorted(LAYOUT.columns, key=lambda c: (list(map(str, ORDER)).index(c[1]), c[0]))
    )


PARAMETRISED = {
    "`DECIMAL(p,s)`, p > 18": DecimalType(19, 2),
    "`DECIMAL(p,s)`, p ≤ 18": DecimalType(18, 2),
    "`type[]`": ListType(ColumnType.FLOAT),
    "`type[n]`": ListType(ColumnType.FLOAT, 3),
}
ORDER: list[FeatureType] = [
    PARAMETRISED.get(name) or ColumnType(name.strip("`"))
    for name in re.findall(r"^\| (`[^|]+) \| (?:\d+ bytes?,|n elements)", TEXT, re.MULTILINE)
]


def test_the_order_of_types_is_written_whole() -> None:
    assert set(ORDER) == {*ColumnType, *PARAMETRISED.values()}
    assert [type_ for _, type_ in Layout.of((type_.value, type_) for type_ in sorted(ORDER, key=str)).columns] == ORDER


@pytest.mark.parametrize("row", table("keys"), ids=lambda row: row[0])
def test_keys(row: list[str]) -> None:
    _, view, entity, expected = row
    values = json.loads(entity)
    kinds = {bool: ColumnType.BOOLEAN, int: ColumnType.INTEGER, str: ColumnType.VARCHAR}
    types = []
    named = {}
    for i, value in enumerate(values):
        is_date = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)
        types.append((str(i), ColumnType.DATE if is_date else kinds[type(value)]))
        named[str(i)] = date.fromisoformat(value) if is_date else value
    assert row_key(view, entity_key(types, named)).decode() == expected


@pytest.mark.parametrize("row", table("values"), ids=lambda row: row[0])
def test_values(row: list[str]) -> None:
    _, position, instant, values, expected = row
    value = bytes.fromhex(expected)
    prefix = decode_prefix(value)
    assert prefix.position == int(position)
    if not instant:
        assert prefix.event_timestamp is None
        assert tombstone(int(position)) == value
        return
    named: dict[str, Any] = {}
    for (name, type_), item in zip(LAYOUT.columns, json.loads(values), strict=True):
        named[name] = date.fromisoformat(item) if item and type_ is ColumnType.DATE else item
    at = datetime.fromisoformat(instant)
    assert LAYOUT.encode(int(position), at, named) == value
    assert prefix.event_timestamp == at
    assert layout_id_of(value) == LAYOUT.layout_id
    assert decode(LAYOUT, value) == named
    with pytest.raises(CorruptValueError):
        decode(LAYOUT, value + b"x")


VECTORS = json.loads((Path(__file__).parents[2] / "docs/reference/online-format.vectors.json").read_text("utf-8"))
LAYOUTS = {layout["id"]: Layout(columns_from_json(layout["columns"])) for layout in VECTORS["layouts"]}


def parsed(type_: FeatureType, text: Any) -> Any:
    """The value that a golden vector spells."""
    if text is None:
        return None
    if isinstance(type_, ListType):
        return [parsed(type_.element, item) for item in text]
    if isinstance(type_, DecimalType):
        return Decimal(text)
    kinds: dict[FeatureType, Any] = {
        ColumnType.BOOLEAN: {"true": True, "false": False}.__getitem__,
        ColumnType.FLOAT: float,
        ColumnType.DOUBLE: float,
        ColumnType.VARCHAR: str,
        ColumnType.BLOB: bytes.fromhex,
        ColumnType.DATE: date.fromisoformat,
        ColumnType.TIMESTAMPTZ: datetime.fromisoformat,
    }
    return kinds.get(type_, int)(text)


@pytest.mark.parametrize("vector", VECTORS["keys"], ids=lambda vector: vector["name"])
def test_key_vectors(vector: dict[str, Any]) -> None:
    types = [(str(i), parse_column_type(name)) for i, name in enumerate(vector["types"])]
    entity = {name: parsed(type_, text) for (name, type_), text in zip(types, vector["entity"], strict=True)}
    assert row_key(vector["view"], entity_key(types, entity)).decode() == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda vector: vector["name"])
def test_value_vectors(vector: dict[str, Any]) -> None:
    layout, value = LAYOUTS[vector["layout"]], bytes.fromhex(vector["hex"])
    row = {name: parsed(type_, text) for (name, type_), text in zip(layout.columns, vector["row"], strict=True)}
    instant = datetime.fromisoformat(vector["event_timestamp"])
    assert layout.encode(int(vector["position"]), instant, row) == value
    prefix = decode_prefix(value)
    assert (prefix.position, prefix.event_timestamp, layout_id_of(value)) == (
        int(vector["position"]),
        instant,
        layout.layout_id,
    )
    # repr: NaN, and the sign of zero
    assert repr(decode(layout, value)) == repr(row)


def test_layout_vectors() -> None:
    assert {id_: f"{layout.layout_id:08x}" for id_, layout in LAYOUTS.items()} == {id_: id_ for id_ in LAYOUTS}
    assert all(Layout.of(layout.columns) == layout for layout in LAYOUTS.values()), "wire order"
    (every,) = (layout for layout in VECTORS["layouts"] if layout["name"] == "every type")
    assert {*ColumnType} <= {type_ for _, type_ in LAYOUTS[every["id"]].columns}


def test_texts_may_be_longer_than_two_bytes_can_count() -> None:
    layout = Layout.of([("note", ColumnType.VARCHAR)])
    value = layout.encode(1, datetime.fromisoformat("2013-10-01T00:00:00Z"), {"note": "é" * 100_000})
    assert decode(layout, value) == {"note": "é" * 100_000}


@pytest.mark.parametrize("type_", ["HUGEINT", "INT4", "FLOAT[0]", "varchar"])
def test_a_document_names_types_by_their_one_name(type_: str) -> None:
    with pytest.raises(ValueError, match="does not know"):
        columns_from_json([["x", type_]])
