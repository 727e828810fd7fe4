"""The golden vectors of docs/reference/online-format.md."""

from __future__ import annotations

import json
import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from feature_platform.domain.types import ColumnType
from feature_platform.errors import CorruptValueError
from feature_platform.online.codec import Layout, columns_from_json, decode_prefix, layout_id_of, tombstone
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


ORDER = [ColumnType(name) for name in re.findall(r"^\| `([A-Z ]+)` \| \d bytes?,", TEXT, re.MULTILINE)]


def test_the_order_of_types_is_written_whole() -> None:
    assert set(ORDER) == set(ColumnType)
    assert [type_ for _, type_ in Layout.of((type_.value, type_) for type_ in ColumnType).columns] == ORDER


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
    assert LAYOUT.decode(value) == named
    with pytest.raises(CorruptValueError):
        LAYOUT.decode(value + b"x")
