"""Defaults as YAML and JSON have them, in the type of their feature."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from feature_platform.domain.defaults import parse_default
from feature_platform.domain.types import ColumnType, DecimalType, ListType

GOOD = [
    (ColumnType.BOOLEAN, False, False),
    (ColumnType.TINYINT, -128, -128),
    (ColumnType.UBIGINT, 2**64 - 1, 2**64 - 1),
    (ColumnType.DOUBLE, 1, 1.0),
    (ColumnType.FLOAT, 0.5, 0.5),
    (ColumnType.VARCHAR, "", ""),
    (ColumnType.BLOB, "00ff", b"\x00\xff"),
    (ColumnType.DATE, "2013-01-09", date(2013, 1, 9)),
    (ColumnType.TIMESTAMPTZ, "2013-01-09T01:00:00+00:00", datetime(2013, 1, 9, 1, tzinfo=UTC)),
    (DecimalType(5, 2), 12.5, Decimal("12.50")),
    (DecimalType(38, 0), "-1", Decimal(-1)),
    (ListType(ColumnType.FLOAT, 2), [0, 1.5], [0.0, 1.5]),
    (ListType(ColumnType.INTEGER), [], []),
]
BAD = [
    (ColumnType.BOOLEAN, 0),
    (ColumnType.BOOLEAN, "true"),
    (ColumnType.TINYINT, 128),
    (ColumnType.INTEGER, True),
    (ColumnType.INTEGER, 1.0),
    (ColumnType.UINTEGER, -1),
    (ColumnType.DOUBLE, "1"),
    (ColumnType.DOUBLE, True),
    (ColumnType.VARCHAR, 1),
    (ColumnType.BLOB, "xyz"),
    (ColumnType.DATE, "yesterday"),
    (ColumnType.TIMESTAMPTZ, "2013-01-09T01:00:00"),
    (DecimalType(5, 2), 1.234),
    (DecimalType(5, 2), 1000),
    (DecimalType(5, 2), "x"),
    (DecimalType(5, 2), "Infinity"),
    (ListType(ColumnType.FLOAT, 2), [1]),
    (ListType(ColumnType.FLOAT), ["a"]),
    (ListType(ColumnType.FLOAT), 1),
]


@pytest.mark.parametrize(("type_", "value", "expected"), GOOD)
def test_a_default_of_its_type(type_, value, expected) -> None:
    found = parse_default(type_, value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(("type_", "value"), BAD)
def test_a_default_of_another_type(type_, value) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_default(type_, value)
