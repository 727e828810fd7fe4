"""May these partitions be computed now? And how new is what they can read?

Rule: a partition that has not ended, or whose sources may still lack rows that were on time, is never computed: its
batch would look complete and not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import duckdb

from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.windows import Partition, following
from feature_platform.errors import RequestError, SourceNotReadyError
from feature_platform.lake.sql import qualified, quote_identifier, quote_instant
from feature_platform.ledger import Ledger


def check_partitions(view: FeatureView, partitions: Sequence[Partition], *, now: datetime) -> tuple[Partition, ...]:
    """The partitions in order of time.

    Raises:
        RequestError: there is none, one is given twice, has another grain, begins before the view, or has not ended.
    """
    ordered = tuple(sorted(partitions))
    if not ordered:
        raise RequestError(f"no partitions of {view.key} to materialize", hint="name at least one")
    for before, after in pairwise(ordered):
        if before == after:
            raise RequestError(f"partition {after.key} of {view.key} is given twice", hint="name it once")
    for partition in ordered:
        if partition.grain != view.grain or partition.end != following(partition.start, view.grain):
            raise RequestError(
                f"{partition.key} is no partition of {view.key}",
                found=f"({partition.start.isoformat()}, {partition.end.isoformat()}]",
                allowed=f"one {view.grain}",
            )
    if ordered[0].start < view.begin:
        raise RequestError(
            f"partition {ordered[0].key} lies before the beginning of {view.key}",
            allowed=f"from {view.begin.isoformat()}",
            hint="name a later partition, or declare an earlier `begin`",
        )
    if ordered[-1].end > now:
        raise RequestError(
            f"partition {ordered[-1].key} of {view.key} has not ended yet",
            found=f"it ends at {ordered[-1].end.isoformat()}, now is {now.isoformat(timespec='seconds')}",
            hint=f"it can be computed from its end on; its schedule waits {view.availability_delay} more",
        )
    return ordered


def check_sources(view: FeatureView, partitions: Sequence[Partition], ledger: Ledger) -> None:
    """Every source must be loaded through the end of the last partition and its reporting lag.

    Raises:
        SourceNotReadyError: one is not.
    """
    end = max(partition.end for partition in partitions)
    for source in view.sources:
        needed = end + source.reporting_lag
        loaded = ledger.loaded_through(source.name)
        if loaded is None or loaded < needed:
            raise SourceNotReadyError(
                f"source {source.name} is not loaded far enough for {view.key}, partition {max(partitions).key}",
                found=f"loaded through {loaded.isoformat()}" if loaded else "never loaded",
                allowed=f"{needed.isoformat()} or later: the partition's end and a reporting lag"
                f" of {source.reporting_lag}",
                hint=f"load {source.name} and try again",
            )


def source_watermarks(
    lake: duckdb.DuckDBPyConnection, view: FeatureView, partitions: Sequence[Partition], *, snapshot: int
) -> dict[Partition, dict[str, datetime | None]]:
    """Per partition and source the newest arrival (`loaded_at_field`) among the source rows it can read.

    As of a snapshot before the run's SQL: a row that arrives meanwhile is then newer than the watermark, so that the
    partition counts as late and is computed again, rather than the row being overlooked for ever.
    """
    found: dict[Partition, dict[str, datetime | None]] = {partition: {} for partition in partitions}
    for source in view.sources:
        if source.event_time and source.loaded_at_field:
            for partition, newest in _watermarks_of(lake, source, sorted(partitions), snapshot).items():
                found[partition][source.name] = newest
    return found


def _watermarks_of(
    lake: duckdb.DuckDBPyConnection, source: Source, ordered: Sequence[Partition], snapshot: int
) -> dict[Partition, datetime | None]:
    """Reads the rows of the partitions' own time, then only what is older and yet arrived later (files are pruned)."""
    table = f"{qualified(source.schema, source.table)} at (version => {snapshot})"
    event_time, loaded_at = quote_identifier(str(source.event_time)), quote_identifier(source.loaded_at_field)
    first, last = ordered[0].start, ordered[-1].end
    rows = lake.execute(
        f"select bucket, max(loaded_at) from ("
        f"  select date_trunc('{ordered[0].grain.value}', {event_time}) as bucket, {loaded_at} as loaded_at"
        f"  from {table} where {event_time} >= {quote_instant(first)} and {event_time} < {quote_instant(last)}"
        f") group by 1"
    ).fetchall()
    in_partition = {start.astimezone(UTC): newest for start, newest in rows}
    known = in_partition.get(first)  # each partition can read the first one's rows
    newer = f" and {loaded_at} > {quote_instant(known)}" if known is not None else ""
    older = lake.execute(
        f"select max({loaded_at}) from {table} where {event_time} < {quote_instant(first)}{newer}"
    ).fetchone()
    newest: datetime | None = older[0] if older else None
    watermarks: dict[Partition, datetime | None] = {}
    buckets = sorted(in_partition)
    for partition in ordered:  # what lies between two partitions of the run is readable for the later one, too
        while buckets and buckets[0] < partition.end:
            arrived = in_partition[buckets.pop(0)]
            if arrived is not None and (newest is None or arrived > newest):
                newest = arrived
        watermarks[partition] = newest.astimezone(UTC) if newest is not None else None
    return watermarks
