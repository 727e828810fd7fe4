"""Two rebuilds of one view, row by row: where they differ, and by how much two equal ones may.

Rule: rows meet on their typed keys and event time; NULL and NaN equal themselves. Numbers with a fraction differ only
beyond rounding: sums depend on the order of addition, so what two rebuilds from the same rows differ by is measured
first and is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from feature_platform.audit.report import Comparison, Example
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView
from feature_platform.domain.types import ColumnType, FeatureType
from feature_platform.lake.sql import quote_identifier, quote_instant

EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """What of a number is rounding: relative to the number, and to the greatest number of the feature."""

    relative: float
    scale: float
    coarse: float
    """Relative. Beyond this two rebuilds from the same rows do not agree at all."""


_ROUNDING: Mapping[FeatureType, Rounding] = {
    ColumnType.DOUBLE: Rounding(relative=1e-9, scale=1e-12, coarse=1e-6),
    ColumnType.FLOAT: Rounding(relative=1e-5, scale=1e-6, coarse=1e-3),
}
_SAFETY = 4.0
"""How much wider than measured the noise may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What two rebuilds from the same rows differ by."""

    differing: Mapping[str, int]
    """Per feature, rows that differ beyond rounding. A feature in here cannot be judged."""
    floors: Mapping[str, float]
    """Per feature with fractions, the absolute difference that is still rounding."""


def build_joined(view: FeatureView, later: str, cut: str, *, through: datetime) -> str:
    """Both rebuilds side by side: every row of either, up to an instant."""
    stamp = quote_identifier(EVENT_TIMESTAMP)
    keys = [quote_identifier(name) for name in (*view.entity_names, EVENT_TIMESTAMP)]
    sides = [
        f"(select *, true as _there from {quote_identifier(table)} where {stamp} <= {quote_instant(through)})"
        for table in (later, cut)
    ]
    meets = " and ".join(f"later.{key} is not distinct from cut.{key}" for key in keys)
    return f"{sides[0]} as later full outer join {sides[1]} as cut on {meets}"


def build_differs(column: Column, floor: float = 0.0) -> str:
    """Whether a row that both rebuilds may have differs in a feature."""
    name = quote_identifier(column.name)
    differs = f"later.{name} is distinct from cut.{name}"
    if rounding := _ROUNDING.get(column.type):
        differs = f"({differs} and not {_close(name, rounding.relative, floor)})"
    return f"(later._there is null or cut._there is null or {differs})"


def _close(name: str, relative: float, floor: float) -> str:
    """Finite and near. Not finite first, NaN would be near anything: DuckDB takes it for the greatest number."""
    later, cut = f"later.{name}::double", f"cut.{name}::double"
    return (
        f"coalesce(isfinite({later}) and isfinite({cut}) and abs({later} - {cut})"
        f" <= greatest({relative!r} * greatest(abs({later}), abs({cut})), {floor!r}), false)"
    )


def compare(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureView,
    later: str,
    cut: str,
    *,
    instant: datetime,
    floors: Mapping[str, float],
    examples: bool = True,
) -> Comparison:
    """How many rows of event_timestamp <= instant differ, per feature.

    Args:
        connection: has both tables.
        view: what they are rebuilds of.
        later: the rebuild that saw more.
        cut: the rebuild whose sources were cut.
        instant: where.
        floors: what is rounding, per feature.
        examples: whether to show rows.
    """
    joined = build_joined(view, later, cut, through=instant)
    conditions = {column.name: build_differs(column, floors.get(column.name, 0.0)) for column in view.features}
    counts = ", ".join(f"count(*) filter (where {condition})" for condition in conditions.values())
    rows, *differing = connection.execute(f"select count(*), {counts} from {joined}").fetchone() or (0,)
    found = {name: count for name, count in zip(conditions, differing, strict=True) if count}
    shown = {
        name: _examples(connection, view, name, joined=joined, differs=conditions[name], instant=instant)
        for name in (found if examples else ())
    }
    return Comparison(rows=rows, differing=found, examples=shown)


def _examples(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, name: str, *, joined: str, differs: str, instant: datetime
) -> tuple[Example, ...]:
    keys = [quote_identifier(key) for key in view.entity_names]
    stamp, feature = quote_identifier(EVENT_TIMESTAMP), quote_identifier(name)
    columns = ", ".join(
        [
            *(f"coalesce(later.{key}, cut.{key})::varchar" for key in keys),
            f"strftime(coalesce(later.{stamp}, cut.{stamp}), '%Y-%m-%dT%H:%M:%S.%fZ')",
            f"later.{feature}::varchar",
            f"cut.{feature}::varchar",
            "case when cut._there is null then 'only with later rows'"
            " when later._there is null then 'only without later rows' else 'always' end",
        ]
    )
    order = ", ".join(str(number) for number in range(1, len(keys) + 1))
    rows = connection.execute(
        f"select {columns} from {joined} where {differs} order by {len(keys) + 1} desc, {order} limit {EXAMPLES}"
    ).fetchall()
    return tuple(
        Example(
            keys=dict(zip(view.entity_names, row, strict=False)),
            event_timestamp=row[-4].replace(".000000Z", "Z"),
            instant=instant,
            with_later=row[-3],
            without_later=row[-2],
            exists=row[-1],
        )
        for row in rows
    )


def measure_noise(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, once: str, again: str, *, through: datetime
) -> Noise:
    """What two rebuilds from the same rows differ by."""
    joined = build_joined(view, once, again, through=through)
    scales = _scales(connection, view.features, once)
    counts, gaps = [], []
    for column in view.features:
        name = quote_identifier(column.name)
        rounding = _ROUNDING.get(column.type)
        if rounding is None:
            counts.append(build_differs(column))
            gaps.append("0.0")
            continue
        near = _close(name, rounding.coarse, rounding.coarse * 1e-3 * scales.get(column.name, 0.0))
        differs = f"later.{name} is distinct from cut.{name} and not {near}"
        counts.append(f"(later._there is null or cut._there is null or ({differs}))")
        gaps.append(f"coalesce(max(abs(later.{name}::double - cut.{name}::double)) filter (where {near}), 0.0)")
    measured = (
        connection.execute(
            f"select {', '.join([f'count(*) filter (where {count})' for count in counts] + gaps)} from {joined}"
        ).fetchone()
        or ()
    )
    differing, widest = measured[: len(counts)], measured[len(counts) :]
    floors = {
        column.name: max(_SAFETY * gap, _ROUNDING[column.type].scale * scales.get(column.name, 0.0))
        for column, gap in zip(view.features, widest, strict=True)
        if column.type in _ROUNDING
    }
    return Noise(
        differing={name: count for name, count in zip(view.feature_names, differing, strict=True) if count},
        floors=floors,
    )


def _scales(connection: duckdb.DuckDBPyConnection, features: Iterable[Column], table: str) -> dict[str, float]:
    """The greatest finite number of each feature that has fractions."""
    names = [column.name for column in features if column.type in _ROUNDING]
    if not names:
        return {}
    greatest = ", ".join(
        f"coalesce(max(abs({name}::double)) filter (where isfinite({name})), 0.0)"
        for name in map(quote_identifier, names)
    )
    found = connection.execute(f"select {greatest} from {quote_identifier(table)}").fetchone() or ()
    return dict(zip(names, found, strict=True))


def count_repeated(connection: duckdb.DuckDBPyConnection, view: FeatureView, table: str) -> int:
    """Keys with more than one row; such rows cannot be compared."""
    keys = ", ".join(quote_identifier(name) for name in (*view.entity_names, EVENT_TIMESTAMP))
    found = connection.execute(
        f"select count(*) from (select {keys} from {quote_identifier(table)} group by all having count(*) > 1)"
    ).fetchone()
    return int(found[0]) if found else 0
