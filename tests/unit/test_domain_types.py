"""The closed set of column types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_platform.domain.types import ENTITY_TYPES, ColumnType, parse_column_type


@given(st.sampled_from(ColumnType), st.booleans())
def test_every_type_is_known_by_its_own_name(type_: ColumnType, lower: bool) -> None:
    assert parse_column_type(type_.value.lower() if lower else f"  {type_.value} ") is type_


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("timestamptz", ColumnType.TIMESTAMPTZ),
        ("timestamp  with time zone", ColumnType.TIMESTAMPTZ),
        ("text", ColumnType.VARCHAR),
        ("int", ColumnType.INTEGER),
        ("real", ColumnType.FLOAT),
        ("bool", ColumnType.BOOLEAN),
    ],
)
def test_aliases(name: str, type_: ColumnType) -> None:
    assert parse_column_type(name) is type_


@pytest.mark.parametrize("name", ["timestamp", "decimal(10,2)", "hugeint", "double[]", "json", "", "varchar(10)"])
def test_types_outside_the_set(name: str) -> None:
    assert parse_column_type(name) is None


@given(st.text())
def test_any_text_is_a_type_or_none(name: str) -> None:
    assert parse_column_type(name) in [*ColumnType, None]


def test_keys_have_one_spelling_per_value() -> None:
    assert not ENTITY_TYPES & {ColumnType.FLOAT, ColumnType.DOUBLE, ColumnType.TIMESTAMPTZ}
