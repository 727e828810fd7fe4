"""Column types: the closed set a feature or an entity key may have, under DuckDB's names.

The names are those a dbt contract (`data_type`) uses. A type outside the set is refused at `validate`, so that no
value can reach the online store that a client cannot decode.
"""

from __future__ import annotations

import enum


class ColumnType(enum.StrEnum):
    """A column type; the value is DuckDB's canonical name."""

    BOOLEAN = "BOOLEAN"
    TINYINT = "TINYINT"
    SMALLINT = "SMALLINT"
    INTEGER = "INTEGER"
    BIGINT = "BIGINT"
    FLOAT = "FLOAT"
    DOUBLE = "DOUBLE"
    VARCHAR = "VARCHAR"
    DATE = "DATE"
    TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"


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
    "TIMESTAMPTZ": ColumnType.TIMESTAMPTZ,
}

ENTITY_TYPES = frozenset(
    {
        ColumnType.BOOLEAN,
        ColumnType.TINYINT,
        ColumnType.SMALLINT,
        ColumnType.INTEGER,
        ColumnType.BIGINT,
        ColumnType.VARCHAR,
        ColumnType.DATE,
    }
)
"""Types an entity key may have: those with one exact spelling per value (floats have none)."""


def parse_column_type(name: str) -> ColumnType | None:
    """The column type a dbt contract names, or None if the platform has no such type.

    >>> parse_column_type("timestamptz")
    <ColumnType.TIMESTAMPTZ: 'TIMESTAMP WITH TIME ZONE'>
    >>> parse_column_type("hugeint") is None
    True
    """
    canonical = " ".join(name.upper().split())
    if canonical in _ALIASES:
        return _ALIASES[canonical]
    try:
        return ColumnType(canonical)
    except ValueError:
        return None
