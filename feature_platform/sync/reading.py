"""Reading `state(k)` from the lake, a batch of rows at a time.

Rule: one snapshot for all statements of a reading, because maintenance may delete superseded rows between two of them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import NotDeployedError
from feature_platform.lake.streaming import record_batches
from feature_platform.sync import plan as plans

ROWS_PER_BATCH: Final = 10_000
BATCH_BYTES: Final = 1_250_000
"""A batch has at most so many rows, and about so many bytes: a few are there at a time, each in several forms (Arrow,
values, commands)."""
HASHES_AT_ONCE: Final = 1_000_000
"""8 MB of them; for each further million the key columns are read once more, but not more often than so."""
MOST_READS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Part of a state."""

    rows: pa.RecordBatch
    """Key columns and `_horizon`; with a row, also `event_timestamp` and the features."""
    absent: bool
    """These entities have no row."""
    total: int
    """Entities of all parts."""
    lines: range | None = None
    """The lake's numbers of these rows, if they follow each other."""


def read_plan(
    lake: duckdb.DuckDBPyConnection, view: FeatureView, plan: plans.SyncPlan, *, first_row: int = 0
) -> Generator[Part]:
    """All that a plan asserts. Each entity comes once.

    Args:
        lake: an open connection.
        view: the view.
        plan: what to read.
        first_row: rows of the newest batch with smaller numbers have been written before.

    Raises:
        NotDeployedError: the lake lacks the view's table or a column of it.
    """
    if plan.touched is None:
        return
    newest = plan.newest
    if newest is None or not has_distinct_entities(lake, view, newest):
        yield from read_state(lake, view, plan, plans.find_touched(view, plan.touched))
        return
    yield from read_state(lake, view, plan, plans.find_rest(view, newest), newest=newest, first_row=first_row)


def has_distinct_entities(lake: duckdb.DuckDBPyConnection, view: FeatureView, newest: plans.Newest) -> bool:
    """Whether no entity has two rows in the newest batch; False also if two entities only share a hash."""
    parts = min(MOST_READS, -(-newest.row_count // HASHES_AT_ONCE))
    hashes = np.empty(newest.row_count // parts * 11 // 10 + 1, dtype=np.uint64)
    for part in range(parts):
        hashed = run(lake, view, plans.key_hashes(view, newest.batch, part=part, parts=parts))
        count = 0
        for batch in record_batches(hashed, ROWS_PER_BATCH):
            if count + batch.num_rows > len(hashes):
                hashes = np.concatenate((hashes, np.empty(len(hashes) + batch.num_rows, dtype=np.uint64)))
            hashes[count : count + batch.num_rows] = batch.column(0).to_numpy()
            count += batch.num_rows
        hashes[:count].sort()
        if (hashes[1:count] == hashes[: max(count - 1, 0)]).any():
            return False
    return True


def read_state(
    lake: duckdb.DuckDBPyConnection,
    view: FeatureView,
    plan: plans.SyncPlan,
    find: plans.Statement,
    *,
    newest: plans.Newest | None = None,
    first_row: int = 0,
) -> Generator[Part]:
    """`state(k)` of the entities that a statement of `find_touched` collects. Each entity comes once.

    Args:
        lake: an open connection.
        view: the view.
        plan: where its rows are.
        find: collects the entities.
        newest: this batch comes first; none of its entities may be among those collected.
        first_row: the smallest number of a row of the newest batch to read.

    Raises:
        NotDeployedError: the lake lacks the view's table or a column of it.
    """
    lake.execute("begin transaction")
    try:
        run(lake, view, find)
        ((total,),) = lake.execute(f"select count(*) from {plans.TOUCHED}").fetchall()
        missing = total
        if newest is not None:
            total += newest.row_count
            for rows in stream(lake, view, plans.read_newest(view, newest, first_row=first_row)):
                yield Part(rows=rows, absent=False, total=total, lines=_lines(rows))
        for batches in plan.active if missing else ():
            for rows in stream(lake, view, plans.read_rows(view, batches)):
                missing -= rows.num_rows
                yield Part(rows=rows, absent=False, total=total)
            if not missing:
                return
            run(lake, view, plans.forget_found(view, batches))
        for rows in stream(lake, view, plans.read_absent(view)):
            yield Part(rows=rows, absent=True, total=total)
    finally:
        with suppress(duckdb.Error):  # what failed before says more; left open it would end the process at the close
            lake.execute("rollback")


def first_row_of(lake: duckdb.DuckDBPyConnection, view: FeatureView, batch: plans.BatchRange) -> int | None:
    """The lake's number of a batch's first row; None if other rows lie between its own."""
    ((first, last, count),) = run(lake, view, plans.row_numbers(view, batch)).fetchall()
    return first if count and last - first + 1 == count else None


def _lines(rows: pa.RecordBatch) -> range | None:
    numbers = rows.column(plans.ROW).to_numpy(zero_copy_only=False)
    follow = bool((np.diff(numbers) == 1).all())
    return range(int(numbers[0]), int(numbers[-1]) + 1) if follow else None


def stream(lake: duckdb.DuckDBPyConnection, view: FeatureView, statement: plans.Statement) -> Iterator[pa.RecordBatch]:
    """The rows of a statement, never all at once."""
    yield from record_batches(run(lake, view, statement), rows_per_batch(view))


def rows_per_batch(view: FeatureView) -> int:
    """How many rows of a view are read at a time: fewer where rows are wide."""
    return max(1, min(ROWS_PER_BATCH, BATCH_BYTES // view.row_bytes))


def run(lake: duckdb.DuckDBPyConnection, view: FeatureView, statement: plans.Statement) -> Any:
    """Execute a statement.

    Raises:
        NotDeployedError: the lake lacks the view's table or a column of it.
    """
    try:
        return lake.execute(statement.sql, statement.parameters)
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise NotDeployedError(
            f"the lake does not hold feature view {view.key} as it is declared",
            found=str(error).splitlines()[0],
            hint="run `feature-platform deploy`",
        ) from error
