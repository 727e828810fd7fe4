"""Profiling: the profile of each new batch, in one pass of DuckDB over its rows.

Rule: memory is bounded whatever the batch holds. Quantiles are t-digests, distinct counts HyperLogLogs, texts are
counted into a fixed number of buckets; batches share a statement only up to `ROWS_PER_STATEMENT`, so that a run of many
large ones keeps the sketches of one at a time. (DuckDB's `reservoir_quantile` is six times faster and wrong: samples of
threads are merged as if they were rows, which put the median of 0 … 4,000,000 at 127,000.)
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView
from feature_platform.domain.profile import BUCKETS, QUANTILES, BatchProfile, FeatureProfile
from feature_platform.domain.types import INTEGER_TYPES, ColumnType, DecimalType, ListType

if TYPE_CHECKING:
    import duckdb

ROWS_PER_STATEMENT = 2_000_000
TOP_VALUES = 10
_FLOATS = (ColumnType.FLOAT, ColumnType.DOUBLE)
_INSTANTS = (ColumnType.DATE, ColumnType.TIMESTAMPTZ)


def profile_batches(
    view: FeatureView, lake: duckdb.DuckDBPyConnection, batches: Sequence[Batch], *, rows: Mapping[str, int]
) -> tuple[BatchProfile, ...]:
    """The profile of each batch, in their order.

    Args:
        view: their view.
        lake: DuckDB with the lake attached; the rows are committed.
        batches: batches of one run.
        rows: how many rows each holds, by batch id.
    """
    found: dict[str, BatchProfile] = {}
    for some in _together(batches, rows):
        found |= _profile(view, lake, some)
    return tuple(found.get(b.batch_id) or BatchProfile(batch_id=b.batch_id, row_count=0) for b in batches)


def _together(batches: Sequence[Batch], rows: Mapping[str, int]) -> Iterator[list[Batch]]:
    """Batches in order of time, so many at once as have few rows enough together."""
    some: list[Batch] = []
    total = 0
    for batch in sorted(batches, key=lambda batch: batch.partition):
        if some and total + rows.get(batch.batch_id, 0) > ROWS_PER_STATEMENT:
            yield some
            some, total = [], 0
        some.append(batch)
        total += rows.get(batch.batch_id, 0)
    if some:
        yield some


def _profile(
    view: FeatureView, lake: duckdb.DuckDBPyConnection, batches: Sequence[Batch]
) -> Mapping[str, BatchProfile]:
    # imported here: the lake's package loads DuckDB, which definitions must not
    from feature_platform.lake.sql import batches_rows

    relation = batches_rows(view, batches)
    # no parameters are bound: `lake.sql.batches_rows` says why
    result = lake.execute(build_profile(view, relation))
    names = [column[0] for column in result.description or ()]
    measured = {str(row[0]): dict(zip(names, row, strict=True)) for row in result.fetchall()}
    tops = {
        name: _top_values(lake.execute(build_top_values(name, relation)).fetchall())
        for name, rules in view.quality.features.items()
        if rules.top_values
    }
    return {
        batch_id: BatchProfile(
            batch_id=batch_id,
            row_count=values["rows"],
            features={
                column.name: _read(place, values, tops.get(column.name, {}).get(batch_id, ()))
                for place, column in enumerate(view.features)
            },
            key_nulls={column.name: values[f"k{place}"] for place, column in enumerate(view.entities)},
            first_event=values["first_event"].astimezone(UTC),
            last_event=values["last_event"].astimezone(UTC),
        )
        for batch_id, values in measured.items()
    }


def build_profile(view: FeatureView, relation: str) -> str:
    """The statement that profiles all batches of a relation: one row per batch."""
    from feature_platform.lake.sql import BATCH_ID, quote_identifier  # loads DuckDB

    columns = [
        "count(*) as rows",
        f"min({EVENT_TIMESTAMP}) as first_event",
        f"max({EVENT_TIMESTAMP}) as last_event",
        *(
            f"count(*) filter ({quote_identifier(column.name)} is null) as k{place}"
            for place, column in enumerate(view.entities)
        ),
    ]
    for place, column in enumerate(view.features):
        columns += [f"{sql} as f{place}_{name}" for name, sql in _statistics(column).items()]
    return f"select {BATCH_ID}, {', '.join(columns)} from {relation} as written group by {BATCH_ID}"


def _statistics(column: Column) -> dict[str, str]:
    """The aggregates of one feature, by name."""
    from feature_platform.lake.sql import quote_identifier  # loads DuckDB

    name, type_ = quote_identifier(column.name), column.type
    found = {"nulls": f"count(*) filter ({name} is null)", "distinct": f"approx_count_distinct({name})"}
    if isinstance(type_, ListType):
        return found | {"min": f"min(len({name}))", "max": f"max(len({name}))"}
    if type_ in _INSTANTS:
        return found | {"min": f"min({name})", "max": f"max({name})"}
    if type_ is ColumnType.VARCHAR:
        # md5, not DuckDB's own hash: that one may change with its version, and every text would seem to have moved
        bucket = f"md5_number_lower({name}) % {BUCKETS}"
        counts = ", ".join(f"count(*) filter ({bucket} = {number})" for number in range(BUCKETS))
        return found | {"buckets": f"[{counts}]"}
    if type_ is ColumnType.BOOLEAN:
        return found | {"mean": f"avg({name}::integer)"}
    if type_ in (*INTEGER_TYPES, *_FLOATS) or isinstance(type_, DecimalType):
        number = f"{name}::double"
        if type_ in _FLOATS:
            found["nans"] = f"count(*) filter (isnan({name}))"
            # aggregates leave NULL out; `filter` on each of them costs six times as much
            number = f"case when isfinite({name}) then {number} end"
        points = ", ".join(map(str, QUANTILES))
        return found | {
            "min": f"min({number})",
            "max": f"max({number})",
            "mean": f"avg({number})",
            "quantiles": f"approx_quantile({number}, [{points}])",
        }
    return found


def build_top_values(feature: str, relation: str) -> str:
    """The statement for the most frequent values of one feature per batch: batch, value, how often. It may spill."""
    from feature_platform.lake.sql import BATCH_ID, quote_identifier  # loads DuckDB

    name = quote_identifier(feature)
    return (
        f"select {BATCH_ID}, {name}::varchar, count(*) as times from {relation} as written where {name} is not null"
        f" group by {BATCH_ID}, {name}"
        f" qualify row_number() over (partition by {BATCH_ID} order by times desc, {name}) <= {TOP_VALUES}"
        f" order by {BATCH_ID}, times desc, {name}"
    )


def _top_values(rows: Sequence[tuple[Any, ...]]) -> Mapping[str, tuple[tuple[str, int], ...]]:
    top: defaultdict[str, tuple[tuple[str, int], ...]] = defaultdict(tuple)
    for batch_id, value, times in rows:
        top[str(batch_id)] += ((value, times),)
    return top


def _read(place: int, values: Mapping[str, Any], top: tuple[tuple[str, int], ...]) -> FeatureProfile:
    def value(name: str) -> Any:
        return values.get(f"f{place}_{name}")

    counted = value("buckets")
    return FeatureProfile(
        nulls=value("nulls"),
        nans=value("nans") or 0,
        distinct=value("distinct"),
        minimum=_plain(value("min")),
        maximum=_plain(value("max")),
        mean=_rounded(value("mean")),
        quantiles=tuple(_rounded(point) or 0.0 for point in value("quantiles") or ()),
        buckets=tuple(counted) if counted and any(counted) else (),
        top=top,
    )


def _plain(value: Any) -> float | str | None:
    """A bound as JSON has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return None if value is None or not math.isfinite(value) else float(value)


def _rounded(value: float | None) -> float | None:
    """Six digits that count: a profile is an estimate, and is kept for ever."""
    if value is None or not math.isfinite(value):
        return None
    # a t-digest of zeros answers with the least normal number
    return 0.0 if abs(value) <= sys.float_info.min else float(f"{value:.6g}")
