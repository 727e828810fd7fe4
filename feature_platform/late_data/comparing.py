"""What a held batch would change: its rows beside those of the batch that is active.

Rule: counted in the lake, joined on the keys; no row is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

import duckdb

from feature_platform.domain.batch import Batch, PublishedBatch
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.domain.windows import Partition
from feature_platform.lake.sql import PARTITION_START, batches_rows, quote_identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDifference:
    """How a partition would change."""

    partition: Partition
    rows_before: int
    rows_after: int
    added: int
    removed: int
    changed: int
    """Rows with the same keys of which at least one feature differs."""
    features: Mapping[str, int]
    """In how many rows each feature differs; none that differs in no row."""


def compare_batches(
    lake: duckdb.DuckDBPyConnection, view: FeatureView, active: Sequence[PublishedBatch], held: Sequence[Batch]
) -> tuple[BatchDifference, ...]:
    """Per partition of the held batches, how it differs from the active batch; that may be missing.

    Args:
        lake: the lake.
        view: the feature view.
        active: its active batches; those of other partitions do not matter.
        held: batches that wait for approval.
    """
    partitions = {batch.partition.start: batch.partition for batch in held}
    before = [
        Batch(batch_id=one.batch_id, seq=one.seq, view=one.view, partition=one.partition)
        for one in active
        if one.partition.start in partitions
    ]
    found = {start.astimezone(UTC): row for start, *row in lake.execute(_statement(view, before, held)).fetchall()}
    return tuple(
        _difference(partition, view, found.get(start, [0] * (5 + len(view.features))))
        for start, partition in sorted(partitions.items())
    )


def _difference(partition: Partition, view: FeatureView, row: Sequence[int]) -> BatchDifference:
    rows_before, rows_after, added, removed, changed, *features = row
    return BatchDifference(
        partition=partition,
        rows_before=rows_before,
        rows_after=rows_after,
        added=added,
        removed=removed,
        changed=changed,
        features={name: count for name, count in zip(view.feature_names, features, strict=True) if count},
    )


def _statement(view: FeatureView, before: Sequence[Batch], after: Sequence[Batch]) -> str:
    keys = ", ".join(quote_identifier(name) for name in (*view.entity_names, EVENT_TIMESTAMP, PARTITION_START))
    differs = [f"b.{quote_identifier(name)} is distinct from a.{quote_identifier(name)}" for name in view.feature_names]
    both = "b._there and a._there"
    counts = [f"count(*) filter (where {both} and {one})" for one in (f"({' or '.join(differs)})", *differs)]
    nothing = f"(select * from {batches_rows(view, after)} as none where false)"
    return (
        f"select {PARTITION_START}, count(*) filter (where b._there), count(*) filter (where a._there),"
        f" count(*) filter (where b._there is null), count(*) filter (where a._there is null), {', '.join(counts)}"
        f" from (select *, true as _there from {batches_rows(view, before) if before else nothing} as rows) as b"
        f" full join (select *, true as _there from {batches_rows(view, after)} as rows) as a using ({keys})"
        f" group by {PARTITION_START}"
    )
