"""Column types: the closed set a feature or an entity key may have, under DuckDB's names.

The names are those a dbt contract (`data_type`) uses. A type outside the set is refused at `validate`, so that no
value can reach the online store that a client cannot decode. `DECIMAL(p,s)` and lists of numbers have parameters and
are records; all other types are members of one enumeration. Every type has a `value`: its canonical name.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

MAX_PRECISION = 38
MAX_LIST_LENGTH = 65_535
DEFAULT_SCALE = 0


class ColumnType(enum.StrEnum):
    """A column type without parameters; the value is DuckDB's canonical name."""

    BOOLEAN = "BOOLEAN"
    TINYINT = "TINYINT"
    SMALLINT = "SMALLINT"
    INTEGER = "INTEGER"
    BIGINT = "BIGINT"
    UTINYINT = "UTINYINT"
    USMALLINT = "USMALLINT"
    UINTEGER = "UINTEGER"
    UBIGINT = "UBIGINT"
    FLOAT = "FLOAT"
    DOUBLE = "DOUBLE"
    VARCHAR = "VARCHAR"
    BLOB = "BLOB"
    DATE = "DATE"
    TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True, slots=True)
class DecimalType:
    """Exact decimal numbers: `precision` digits, `scale` of them after the point."""

    precision: int
    scale: int

    @property
    def value(self) -> str:
        """DuckDB's name.

        >>> DecimalType(10, 2).value
        'DECIMAL(10,2)'
        """
        return f"DECIMAL({self.precision},{self.scale})"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class ListType:
    """Lists of numbers, e.g. embeddings: of any length, or all of one `length`. No element is NULL."""

    element: ColumnType
    length: int | None = None

    @property
    def value(self) -> str:
        """DuckDB's name.

        >>> ListType(ColumnType.FLOAT).value, ListType(ColumnType.FLOAT, 768).value
        ('FLOAT[]', 'FLOAT[768]')
        """
        return f"{self.element.value}[{'' if self.length is None else self.length}]"

    def __str__(self) -> str:
        return self.value


FeatureType = ColumnType | DecimalType | ListType
"""The type of a column."""

_ALIASES = {
    "BOOL": ColumnType.BOOLEAN,
    "INT1": ColumnType.TINYINT,
    "INT2": ColumnType.SMALLINT,
    "SHORT": ColumnType.SMALLINT,
    "INT": ColumnType.INTEGER,
    "INT4": ColumnType.INTEGER,
    "INT8": ColumnType.BIGINT,
    "LONG": ColumnType.BIGINT,
    "REAL": ColumnType.FLOAT,
    "FLOAT4": ColumnType.FLOAT,
    "FLOAT8": ColumnType.DOUBLE,
    "STRING": ColumnType.VARCHAR,
    "TEXT": ColumnType.VARCHAR,
    "BINARY": ColumnType.BLOB,
    "BYTEA": ColumnType.BLOB,
    "VARBINARY": ColumnType.BLOB,
    "TIMESTAMPTZ": ColumnType.TIMESTAMPTZ,
}

INTEGER_TYPES = (
    ColumnType.TINYINT,
    ColumnType.SMALLINT,
    ColumnType.INTEGER,
    ColumnType.BIGINT,
    ColumnType.UTINYINT,
    ColumnType.USMALLINT,
    ColumnType.UINTEGER,
    ColumnType.UBIGINT,
)

_SIGNED = {ColumnType.TINYINT: 8, ColumnType.SMALLINT: 16, ColumnType.INTEGER: 32, ColumnType.BIGINT: 64}
_UNSIGNED = {ColumnType.UTINYINT: 8, ColumnType.USMALLINT: 16, ColumnType.UINTEGER: 32, ColumnType.UBIGINT: 64}
INTEGER_RANGES: dict[FeatureType, range] = {
    **{type_: range(-(1 << (bits - 1)), 1 << (bits - 1)) for type_, bits in _SIGNED.items()},
    **{type_: range(1 << bits) for type_, bits in _UNSIGNED.items()},
}
"""What fits into each of the integer types."""

ENTITY_TYPES = frozenset({ColumnType.BOOLEAN, *INTEGER_TYPES, ColumnType.VARCHAR, ColumnType.DATE})
"""Types an entity key may have: those with one exact spelling per value (floats have none)."""

ELEMENT_TYPES = frozenset({*INTEGER_TYPES, ColumnType.FLOAT, ColumnType.DOUBLE})
"""Types the elements of a list may have."""

_BYTES: dict[FeatureType, int] = {
    **{type_: bits // 8 for type_, bits in (_SIGNED | _UNSIGNED).items()},
    ColumnType.BOOLEAN: 1,
    ColumnType.FLOAT: 4,
    ColumnType.DATE: 4,
    ColumnType.DOUBLE: 8,
    ColumnType.TIMESTAMPTZ: 8,
    ColumnType.VARCHAR: 16,
    ColumnType.BLOB: 256,
}
_DECIMAL_BYTES = 16
_LIST_LENGTH = 256

_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\s*\(\s*(\d{1,2})\s*(?:,\s*(\d{1,2})\s*)?\)")
_LIST = re.compile(r"([A-Z0-9]+)\s*\[\s*(\d{0,5})\s*\]")


def parse_column_type(name: str) -> FeatureType | None:
    """The column type a dbt contract names, or None if the platform has no such type.

    >>> parse_column_type("timestamptz")
    <ColumnType.TIMESTAMPTZ: 'TIMESTAMP WITH TIME ZONE'>
    >>> parse_column_type("numeric(10, 2)"), parse_column_type("float[3]").value
    (DecimalType(precision=10, scale=2), 'FLOAT[3]')
    >>> parse_column_type("hugeint") is None, parse_column_type("decimal") is None, parse_column_type("text[]") is None
    (True, True, True)
    """
    canonical = " ".join(name.upper().split())
    if match := _DECIMAL.fullmatch(canonical):
        precision, scale = int(match[1]), int(match[2] or DEFAULT_SCALE)
        return DecimalType(precision, scale) if 1 <= precision <= MAX_PRECISION and scale <= precision else None
    if match := _LIST.fullmatch(canonical):
        element, length = _simple(match[1]), int(match[2]) if match[2] else None
        if element not in ELEMENT_TYPES or (length is not None and not 1 <= length <= MAX_LIST_LENGTH):
            return None
        return ListType(element, length)
    return _simple(canonical)


def usual_bytes(type_: FeatureType) -> int:
    """About how many bytes a value takes in memory: exact for numbers, a guess where the type sets no length.

    >>> usual_bytes(ColumnType.DOUBLE), usual_bytes(ListType(ColumnType.FLOAT, 768)), usual_bytes(ColumnType.VARCHAR)
    (8, 3072, 16)
    """
    if isinstance(type_, DecimalType):
        return _DECIMAL_BYTES
    if isinstance(type_, ListType):
        return _BYTES[type_.element] * (type_.length or _LIST_LENGTH)
    return _BYTES[type_]


def in_lake(type_: FeatureType) -> FeatureType:
    """The type of the column in the lake: DuckLake has no lists of a fixed length.

    >>> in_lake(ListType(ColumnType.FLOAT, 768)).value
    'FLOAT[]'
    """
    return ListType(type_.element) if isinstance(type_, ListType) else type_


def _simple(canonical: str) -> ColumnType | None:
    if canonical in _ALIASES:
        return _ALIASES[canonical]
    try:
        return ColumnType(canonical)
    except ValueError:
        return None
