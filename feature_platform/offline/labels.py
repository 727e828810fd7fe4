"""Labels (Feast's `entity_df`): what a caller asks features for, read into DuckDB once and validated as a whole.

Rule: every column comes back unchanged and every row in its place. Keys keep their types and are never converted by
guess: 1.7 is no key 1, and "1" is no key 1. A label with a NULL key is kept and gets NULL features; a label without a
time, or with a time that names no instant, is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.types import ColumnType, FeatureType
from feature_platform.errors import EntityError, RequestError, TimestampError, chosen_from
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline.label_input import naive_hint, open_labels
from feature_platform.offline.outages import AS_OF, IS_OUTAGE
from feature_platform.offline.parquet import copy_to_parquet
from feature_platform.offline.point_in_time import LABEL_ID, LABELS

_BESIDE_THE_TIME = frozenset({AS_OF, IS_OUTAGE, "_position", "_of"})
"""Columns that tables of the join have beside the labels' keys and time."""
_NUMBERS_OF_ROWS = frozenset({"file_row_number", "_row", "_nth"})
"""Columns that `explain` and `diff` read of a kept set."""
_INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Validated labels: they lie in table `LABELS` of the connection that loaded them."""

    columns: tuple[str, ...]
    """The caller's columns, in order."""
    valueless: Mapping[str, str]
    """Key and time columns without any value (empty or all NULL), and the type to read them as: theirs says nothing."""
    count: int
    oldest: datetime | None
    newest: datetime | None
    """None if there are no labels."""


def load_labels(
    connection: duckdb.DuckDBPyConnection, entity_df: Any, *, views: Sequence[FeatureView], timestamp_column: str
) -> Labels:
    """Read labels into the connection and validate them.

    Args:
        connection: a private connection; gets table `LABELS`.
        entity_df: a pandas DataFrame, Arrow data, a DuckDB relation or the path of a Parquet file.
        views: the views whose entities the labels must have.
        timestamp_column: name of the column that holds the labels' time.

    Raises:
        RequestError: this kind of input is unknown, or its columns cannot be told apart.
        EntityError: a key column is missing or has another type.
        TimestampError: the time is missing, has no time zone, or is NULL somewhere.
    """
    with open_labels(connection, entity_df, timestamp_column=timestamp_column, doing="reading the labels") as given:
        _check_names(given.names, views, timestamp_column)
        connection.execute(
            # the window without an order numbers rows as they come, and keeps that scan in order
            f"create table {LABELS} as select row_number() over () - 1 as {LABEL_ID}, * from {given.relation.sql}",
            dict(given.relation.parameters),
        )
    types = {row[0]: row[1] for row in connection.execute(f"describe {LABELS}").fetchall()}
    types.pop(LABEL_ID)
    count, oldest, newest = _check_times(connection, timestamp_column, types[timestamp_column])
    valueless = _check_keys(connection, views, types)
    if not count:
        valueless[timestamp_column] = ColumnType.TIMESTAMPTZ.value
    return Labels(columns=given.names, valueless=valueless, count=count, oldest=oldest, newest=newest)


def write_labels(
    connection: duckdb.DuckDBPyConnection,
    entity_df: Any,
    path: Path,
    *,
    views: Sequence[FeatureView],
    timestamp_column: str,
) -> None:
    """Stream labels to a Parquet file, in their order. Their values are validated by whoever loads them from there.

    Raises:
        RequestError: this kind of input is unknown, its columns cannot be told apart, or have names by which the rows
            of kept sets are found.
        EntityError: a key column is missing.
        TimestampError: the time is missing.
    """
    with open_labels(connection, entity_df, timestamp_column=timestamp_column, doing="keeping the labels") as given:
        _check_names(given.names, views, timestamp_column)
        if name := next((name for name in given.names if name.lower() in _NUMBERS_OF_ROWS), None):
            raise RequestError(f"the labels have a column {name}", hint="rename it: in a kept set rows are found by it")
        copy_to_parquet(connection, f"select * from {given.relation.sql}", path, given.relation.parameters)


def _check_names(names: Sequence[str], views: Iterable[FeatureView], timestamp_column: str) -> None:
    repeated = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if repeated:
        raise RequestError(
            "columns of the labels cannot be told apart",
            found=chosen_from(name for name in names if name.lower() in repeated),
            allowed="names that differ in more than upper and lower case",
        )
    if unnamed := [name for name in names if not name or "\0" in name]:
        raise RequestError(
            "a column of the labels has no name that a Parquet file can hold",
            found=f"{unnamed[0]!r}, column {names.index(unnamed[0])}",
            hint="rename or drop it; an index that was saved with a pandas frame may look like this",
        )
    if LABEL_ID in map(str.lower, names) or timestamp_column.lower() in _BESIDE_THE_TIME:
        own = LABEL_ID if LABEL_ID in map(str.lower, names) else timestamp_column
        raise RequestError(f"the labels have a column {own}", hint="rename it: the platform uses this name")
    missing: dict[str, list[str]] = {}
    for view in views:
        for entity in view.entity_names:
            if entity not in names:
                missing.setdefault(entity, []).append(view.key)
    if missing:
        raise EntityError(
            "the labels lack key columns",
            found=f"columns {chosen_from(names)}",
            allowed="; ".join(f"{entity} (needed by {', '.join(keys)})" for entity, keys in missing.items()),
            hint="add the columns, or rename yours to these names",
        )
    if timestamp_column not in names:
        raise TimestampError(
            f"the labels have no column {timestamp_column!r}",
            found=f"columns {chosen_from(names)}",
            hint="pass timestamp_column= with the name of the column that holds each label's time",
        )


def _check_times(
    connection: duckdb.DuckDBPyConnection, column: str, kind: str
) -> tuple[int, datetime | None, datetime | None]:
    """How many labels there are, and the oldest and newest of their times."""
    time = quote(column)
    (count, present), *_ = connection.execute(f"select count(*), count({time}) from {LABELS}").fetchall()
    if present < count:
        (row,), *_ = connection.execute(f"select min({LABEL_ID}) from {LABELS} where {time} is null").fetchall()
        raise TimestampError(
            f"{count - present} of {count} labels have no time",
            found=f"NULL in column {column!r}, first in row {row}",
            hint="drop these rows, or give them the instant at which the prediction was made",
        )
    if not count:
        return 0, None, None
    if kind != ColumnType.TIMESTAMPTZ:
        naive = kind.startswith("TIMESTAMP")
        # numbers without a unit are nanoseconds to pandas: seconds would all lie in 1970
        unit = ', unit="s"' if kind in _INTEGERS or kind in ("FLOAT", "DOUBLE") else ""
        raise TimestampError(
            f"column {column!r} of the labels {'has no time zone' if naive else 'is no timestamp'}",
            found=kind,
            allowed=ColumnType.TIMESTAMPTZ.value,
            hint=naive_hint(column)
            if naive
            else f'convert it, e.g. df["{column}"] = pandas.to_datetime(df["{column}"]{unit}, utc=True)'
            + ", with the unit that it has" * bool(unit),
        )
    # a Python datetime holds years 1 to 9999; a day is left for the delay and the zone
    (strange,), *_ = connection.execute(
        f"select count(*) from {LABELS} where not isfinite({time})"
        f" or {time} not between timestamptz '1000-01-01 00:00:00+00' and timestamptz '9000-01-01 00:00:00+00'"
    ).fetchall()
    if strange:
        raise TimestampError(
            f"{strange} of {count} labels have an impossible time",
            found=f"column {column!r} holds infinite instants, or ones outside the years 1000 to 9000",
            hint="check the unit of the column: seconds read as milliseconds look like this",
        )
    (oldest, newest), *_ = connection.execute(f"select min({time}), max({time}) from {LABELS}").fetchall()
    return count, oldest, newest


def _check_keys(
    connection: duckdb.DuckDBPyConnection, views: Iterable[FeatureView], types: Mapping[str, str]
) -> dict[str, str]:
    """The key columns without values; every other key column must have its entity's type."""
    valueless: dict[str, str] = {}
    wrong: dict[str, FeatureType] = {}
    for view in views:
        for entity in view.entities:
            if _same_kind(types[entity.name], entity.type):
                continue
            (values,), *_ = connection.execute(f"select count({quote(entity.name)}) from {LABELS}").fetchall()
            if values:
                wrong[entity.name] = entity.type
            else:
                valueless[entity.name] = entity.type.value
    if wrong:
        name, kind = next(iter(wrong.items()))
        number = kind.value in _INTEGERS
        raise EntityError(
            "key columns of the labels have another type than the entity",
            found=", ".join(f"{name} {types[name]}" for name in wrong),
            allowed=", ".join(f"{name} {kind.value}" for name, kind in wrong.items()),
            hint=f'convert it yourself, e.g. df["{name}"] = df["{name}"].astype("{"Int64" if number else "string"}"),'
            f" or in SQL: cast({name} as {kind.value})",
        )
    return valueless


def _same_kind(found: str, declared: FeatureType) -> bool:
    """Whether values of both types can be equal without converting either: integers of any width are one kind."""
    if declared.value in _INTEGERS:
        return found in _INTEGERS
    if declared is ColumnType.VARCHAR:
        return found == declared.value or found.startswith("ENUM")
    return found == declared.value
