"""What a sync must assert, as values: which batches it reads, and the SQL that reads them. No input or output.

Rule: a plan (k0, k] asserts `state(k)` (a row, or none) for every entity with a row in a batch published in (k0, k] or
superseded there; never the difference of two states. `state(k)` of an entity is its row with the greatest event time
among the batches active at k.

Active batches belong to disjoint partitions, so every row of a newer partition is later than every row of an older one.
The plan therefore looks for the entities' rows from the newest partitions backwards, a growing step at a time, and
stops when every entity has been found: one new hour of a view with years of history reads that hour, not the years.

Rows of the newest active batch are final wherever they have no second row in it. A large one that the plan touches is
therefore sent as it is read, without a join or a list of its entities, and only the rest is looked for (`Newest`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView
from feature_platform.lake.sql import BATCH_ID, PARTITION_START, batches_table, quote_instant
from feature_platform.lake.sql import quote_identifier as quote

TOUCHED = "_touched"
"""Temporary table: the entities whose row is still to be found."""
HORIZON = "_horizon"
"""Greatest event time of an entity in the plan's range, superseded batches included: bounds how long a late copy of an
older plan could bring back one of its rows."""

ROW = "_row"
"""The lake's number of a row: it never changes, and rows of one insert follow each other."""

FIRST_STEP = 8
STEP_GROWTH = 4
NEWEST_ROWS = 100_000
"""A newest batch with fewer rows is read with the others: asking whether it repeats an entity would cost more."""
MAX_LISTED_IDS = 200
"""Up to this many batch ids are listed, so that DuckLake can skip files by them; more go in as one list value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """SQL and its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRange:
    """Batches to read, and the partitions they lie in."""

    batch_ids: tuple[str, ...]
    first_start: datetime
    last_start: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest active batch, if it is large and the plan touches it."""

    batch: BatchRange
    row_count: int
    rest: BatchRange | None
    """What else the plan touches."""
    horizon: datetime | None
    """No touched row of another batch is later than this; None if all are earlier than the batch's own rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """The range of events a sync covers, and the batches it reads for it."""

    from_position: int
    to_position: int
    touched: BatchRange | None
    """Published or superseded in the range; None if they hold no rows."""
    active: tuple[BatchRange, ...]
    """The batches that make `state(to_position)`, newest partitions first."""
    newest: Newest | None = None


def plan_sync(
    from_position: int,
    to_position: int,
    *,
    published: Iterable[PublishedBatch],
    superseded: Iterable[PublishedBatch],
    active: Iterable[PublishedBatch],
) -> SyncPlan:
    """The plan that brings a store from one position to another.

    Args:
        from_position: k0, where the store is.
        to_position: k, where it shall be.
        published: batches published in (k0, k].
        superseded: batches active at k0 that are no longer active at k.
        active: batches active at k.
    """
    touched = {batch.batch_id: batch for batch in (*published, *superseded) if batch.row_count}
    newest_first = sorted((b for b in active if b.row_count), key=lambda b: b.partition.start, reverse=True)
    steps = []
    start, size = 0, FIRST_STEP
    while start < len(newest_first):
        steps.append(_range(newest_first[start : start + size]))
        start, size = start + size, size * STEP_GROWTH
    return SyncPlan(
        from_position=from_position,
        to_position=to_position,
        touched=_range(tuple(touched.values())) if touched else None,
        active=tuple(steps),
        newest=_newest(newest_first[0], touched) if newest_first else None,
    )


def _newest(batch: PublishedBatch, touched: Mapping[str, PublishedBatch]) -> Newest | None:
    if batch.batch_id not in touched or batch.row_count < NEWEST_ROWS:
        return None
    rest = tuple(other for other in touched.values() if other.batch_id != batch.batch_id)
    as_late = [other.partition.end for other in rest if other.partition.start >= batch.partition.start]
    return Newest(
        batch=_range((batch,)),
        row_count=batch.row_count,
        rest=_range(rest) if rest else None,
        horizon=max(as_late, default=None),
    )


def find_touched(view: FeatureView, batches: BatchRange, among: Statement | None = None) -> Statement:
    """Collect the entities that the plan asserts, with their horizon; only those `among` (a predicate), if given."""
    keys = _keys(view)
    where, parameters = in_batches(batches)
    if among is not None:
        where, parameters = f"{where} and ({among.sql})", (*parameters, *among.parameters)
    return Statement(
        sql=f"create temporary table {TOUCHED} as select {keys}, max({EVENT_TIMESTAMP}) as {HORIZON}"
        f" from {batches_table(view)} where {where} group by {keys}",
        parameters=parameters,
    )


def find_rest(view: FeatureView, newest: Newest) -> Statement:
    """Collect the entities that the plan asserts and that have no row in the newest batch, with their horizon."""
    if newest.rest is None:
        return Statement(
            sql=f"create temporary table {TOUCHED} as select {_keys(view)}, {EVENT_TIMESTAMP} as {HORIZON}"
            f" from {batches_table(view)} limit 0"
        )
    where, parameters = in_batches(newest.batch)
    same = " and ".join(f"held.{key} = {batches_table(view)}.{key}" for key in map(quote, view.entity_names))
    absent = f"not exists (select 1 from {batches_table(view)} as held where {where} and {same})"
    return find_touched(view, newest.rest, Statement(sql=absent, parameters=parameters))


def key_hashes(view: FeatureView, batches: BatchRange, *, part: int, parts: int) -> Statement:
    """A hash of each row's entity; those of one part of all hashes."""
    where, parameters = in_batches(batches)
    hashed = f"hash({_keys(view)})"
    return Statement(
        sql=f"select {hashed} as hashed from {batches_table(view)} where {where} and {hashed} % {parts} = {part}",
        parameters=parameters,
    )


def row_numbers(view: FeatureView, batches: BatchRange) -> Statement:
    """The first of the lake's numbers of these rows, the last, and how many there are."""
    where, parameters = in_batches(batches)
    return Statement(
        sql=f"select min(rowid), max(rowid), count(*) from {batches_table(view)} where {where}", parameters=parameters
    )


def read_newest(view: FeatureView, newest: Newest, *, first_row: int = 0) -> Statement:
    """The rows of the newest batch as they lie there, with the lake's number of each; those from a number on."""
    where, parameters = in_batches(newest.batch)
    horizon = EVENT_TIMESTAMP
    if newest.horizon is not None:
        horizon = f"greatest({EVENT_TIMESTAMP}, {quote_instant(newest.horizon)})"
    return Statement(
        sql=f"select {typed(view.entities)}, {horizon} as {HORIZON}, {EVENT_TIMESTAMP}, {typed(view.features)}"
        f", rowid as {ROW} from {batches_table(view)} where {where} and rowid >= {first_row}",
        parameters=parameters,
    )


def read_rows(view: FeatureView, batches: BatchRange) -> Statement:
    """`state(k)` of the touched entities that have a row in these batches."""
    keys = _keys(view)
    where, parameters = in_batches(batches)
    return Statement(
        sql=f"with newest as (select {keys}, max({EVENT_TIMESTAMP}) as {EVENT_TIMESTAMP} from {batches_table(view)}"
        f" semi join {TOUCHED} using ({keys}) where {where} group by {keys})"
        f" select {typed(view.entities)}, {HORIZON}, {EVENT_TIMESTAMP}, {typed(view.features)}"
        f" from {batches_table(view)} join newest using ({keys}, {EVENT_TIMESTAMP})"
        f" join {TOUCHED} using ({keys}) where {where}",
        parameters=parameters * 2,
    )


def forget_found(view: FeatureView, batches: BatchRange) -> Statement:
    """Take the entities that have a row in these batches off the list of those still to be found."""
    where, parameters = in_batches(batches)
    keys = [quote(name) for name in view.entity_names]
    same = " and ".join(f"found.{key} = {TOUCHED}.{key}" for key in keys)
    return Statement(
        sql=f"delete from {TOUCHED} where exists"
        f" (select 1 from {batches_table(view)} as found where {where} and {same})",
        parameters=parameters,
    )


def read_absent(view: FeatureView) -> Statement:
    """The entities that no active batch has a row of."""
    return Statement(sql=f"select {typed(view.entities)}, {HORIZON} from {TOUCHED}")


def newest_event(view: FeatureView, batches: BatchRange) -> Statement:
    """The greatest event time among these batches."""
    where, parameters = in_batches(batches)
    return Statement(
        sql=f"select max({EVENT_TIMESTAMP}) from {batches_table(view)} where {where}", parameters=parameters
    )


def _range(batches: Sequence[PublishedBatch]) -> BatchRange:
    starts = [batch.partition.start for batch in batches]
    return BatchRange(
        batch_ids=tuple(batch.batch_id for batch in batches), first_start=min(starts), last_start=max(starts)
    )


def in_batches(batches: BatchRange) -> tuple[str, tuple[Any, ...]]:
    """Predicate for rows of these batches.

    The partitions' bounds skip files that hold many batches.
    """
    ids = batches.batch_ids
    listed = len(ids) <= MAX_LISTED_IDS
    within = ", ".join("?" * len(ids)) if listed else "select unnest(?::varchar[])"
    first, last = quote_instant(batches.first_start), quote_instant(batches.last_start)
    return (
        f"{PARTITION_START} between {first} and {last} and {BATCH_ID} in ({within})",
        ids if listed else (list(ids),),
    )


def _keys(view: FeatureView) -> str:
    return ", ".join(quote(name) for name in view.entity_names)


def typed(columns: Iterable[Column]) -> str:
    """The columns in the types they are declared with."""
    return ", ".join(f"cast({quote(c.name)} as {c.type.value}) as {quote(c.name)}" for c in columns)
