"""Looking for late rows: those of a source that arrived since the last look, mapped to the partitions they missed.

Rule: first how far the source is loaded, then which partitions are computed, then the rows. A batch opened after the
second question reads all that the first one called loaded, so no row falls between two looks. A look that dies leaves
nothing and is repeated; of two at once the ledger takes one.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import duckdb

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.late_data import ComputedPartition, Lags, LateRows, LateScan, LateView
from feature_platform.lake.sql import qualified
from feature_platform.late_data import sql
from feature_platform.late_data.chain import next_interval, readers, scannable
from feature_platform.ledger import Ledger


def scan_all(
    ledger: Ledger, lake: duckdb.DuckDBPyConnection, registry: FeatureRegistry, *, run_id: str
) -> Iterator[LateScan]:
    """Look at every source that was loaded further since; what was found and recorded."""
    for source in scannable(registry):
        if (found := scan(ledger, lake, registry, source, run_id=run_id)) is not None:
            yield found


def scan(
    ledger: Ledger, lake: duckdb.DuckDBPyConnection, registry: FeatureRegistry, source: Source, *, run_id: str
) -> LateScan | None:
    """Look at the rows of a source that arrived since the last look; None if there is nothing to record.

    That is so if it was not loaded further, if none of its views has computed anything yet, or if another look was
    recorded meanwhile.
    """
    interval = next_interval(ledger, registry, source)
    if interval is None:
        return None
    began = time.perf_counter()
    closed = [(view, ledger.computed_partitions(view.key, source.name)) for view in readers(registry, source)]
    rows = sql.arrived_rows(source, qualified(source.schema, source.table), interval.after, interval.through)
    count, overdue, quantiles, longest = _row(lake, sql.count_arrived(rows, source.reporting_lag))
    views = [_look(lake, rows, view, partitions) for view, partitions in closed] if count else []
    found = LateScan(
        source=source.name,
        arrived_after=interval.after,
        arrived_through=interval.through,
        row_count=count,
        overdue_rows=overdue,
        lags=as_lags(quantiles, longest) if count else None,
        views=tuple(view for view in views if view is not None),
        seconds=time.perf_counter() - began,
    )
    return None if ledger.record_scan(found, run_id=run_id, previous=interval.previous) is None else found


def _look(
    lake: duckdb.DuckDBPyConnection, rows: str, view: FeatureView, closed: Sequence[ComputedPartition]
) -> LateView | None:
    """What came too late for a view; None if nothing did."""
    by_reach: defaultdict[timedelta | None, list[ComputedPartition]] = defaultdict(list)
    for one in closed:
        by_reach[one.lookback].append(one)
    partitions: list[LateRows] = []
    lags: list[tuple[int, Lags]] = []
    # one reach, unless the SQL of the view changed since its older partitions were computed
    for lookback, alike in by_reach.items():
        known = {sql.microseconds(one.partition.end): one.partition for one in alike}
        late = lake.execute(sql.late_rows(rows, view.grain, alike, lookback)).fetchall()
        partitions += [
            LateRows(
                view=view.key,
                partition=known[end],
                row_count=count,
                oldest_event=sql.instant_of(oldest),
                first_arrival=sql.instant_of(first),
                last_arrival=sql.instant_of(last),
                longest_lag=timedelta(microseconds=longest),
            )
            for end, count, oldest, first, last, longest in late
        ]
        if late:
            count, quantiles, longest = _row(lake, sql.late_lags(rows, view.grain, alike, lookback))
            lags.append((count, as_lags(quantiles, longest)))
    if not partitions:
        return None
    # rows that concern partitions of several reaches are told of once, by the reach that has most of them
    count, most = max(lags, key=lambda found: found[0])
    return LateView(
        view=view.key,
        row_count=count,
        lags=most,
        partitions=tuple(sorted(partitions, key=lambda late: late.partition)),
    )


def _row(lake: duckdb.DuckDBPyConnection, statement: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = lake.execute(statement).fetchone() or ()
    return row


def as_lags(quantiles: Sequence[int], longest: int) -> Lags:
    """Lags from microseconds. DuckDB's estimate takes the greatest of negative numbers to be 0, hence the bound."""
    p50, p90, p99 = (timedelta(microseconds=min(value, longest)) for value in quantiles)
    return Lags(p50=p50, p90=p90, p99=p99, longest=timedelta(microseconds=longest))
