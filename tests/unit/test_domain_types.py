"""The closed set of column types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_platform.domain.types import (
    ELEMENT_TYPES,
    ENTITY_TYPES,
    ColumnType,
    DecimalType,
    FeatureType,
    ListType,
    parse_column_type,
)


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
        ("bytea", ColumnType.BLOB),
        ("ubigint", ColumnType.UBIGINT),
        ("decimal(10,2)", DecimalType(10, 2)),
        (" Numeric ( 38 , 38 ) ", DecimalType(38, 38)),
        ("decimal(7)", DecimalType(7, 0)),
        ("real[]", ListType(ColumnType.FLOAT)),
        ("Float [ 768 ]", ListType(ColumnType.FLOAT, 768)),
        ("utinyint[2]", ListType(ColumnType.UTINYINT, 2)),
    ],
)
def test_aliases(name: str, type_: FeatureType) -> None:
    assert parse_column_type(name) == type_


@pytest.mark.parametrize(
    "name",
    [
        "timestamp",
        "decimal",
        "decimal(0,0)",
        "decimal(39,0)",
        "decimal(4,5)",
        "decimal(3,-1)",
        "hugeint",
        "double[][]",
        "varchar[]",
        "boolean[]",
        "float[0]",
        "float[65536]",
        "float[-1]",
        "json",
        "",
        "varchar(10)",
    ],
)
def test_types_outside_the_set(name: str) -> None:
    assert parse_column_type(name) is None


@given(st.text())
def test_any_text_is_a_type_or_none(name: str) -> None:
    assert parse_column_type(name) in [*ColumnType, None]


@given(st.integers(1, 38).flatmap(lambda p: st.builds(DecimalType, st.just(p), st.integers(0, p))))
def test_every_decimal_is_known_by_its_own_name(type_: DecimalType) -> None:
    assert parse_column_type(type_.value) == type_ == parse_column_type(str(type_).lower())


@given(st.builds(ListType, st.sampled_from(sorted(ELEMENT_TYPES)), st.none() | st.integers(1, 65_535)))
def test_every_list_is_known_by_its_own_name(type_: ListType) -> None:
    assert parse_column_type(type_.value) == type_ == parse_column_type(str(type_).lower())


def test_keys_have_one_spelling_per_value() -> None:
    assert not ENTITY_TYPES & {ColumnType.FLOAT, ColumnType.DOUBLE, ColumnType.TIMESTAMPTZ}
