"""What a plan asserts, as batches of rows ready for the store.

Rule: reading happens here, encoding wherever the caller does it, so that it can go on while the next batch is read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import duckdb

from feature_platform.domain.feature_view import FeatureView
from feature_platform.sync import plan as plans
from feature_platform.sync.encoding import Encoded, encode_absent, encode_rows, layout_of
from feature_platform.sync.reading import Part, read_plan, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """Part of what a plan asserts."""

    encode: Callable[[], Encoded]
    """Makes the rows as the store holds them; may run in another thread."""
    rows: int
    absent: bool
    """They are tombstones."""
    total: int
    """Entities the whole plan asserts."""
    lines: range | None
    """Which rows of the lake they are, if that is known."""


def assertions(
    lake: duckdb.DuckDBPyConnection, view: FeatureView, plan: plans.SyncPlan, *, first_row: int = 0
) -> Generator[Assertion]:
    """Everything a plan asserts, but rows of its newest batch with smaller numbers. Each entity comes once.

    Raises:
        NotDeployedError: the lake lacks the view's table or a column of it.
    """
    layout = layout_of(view)

    def encode(part: Part) -> Encoded:
        if part.absent:
            return encode_absent(view, plan.to_position, part.rows)
        return encode_rows(view, layout, plan.to_position, part.rows)

    for part in read_plan(lake, view, plan, first_row=first_row):
        yield Assertion(
            encode=partial(encode, part),
            rows=part.rows.num_rows,
            absent=part.absent,
            total=part.total,
            lines=part.lines,
        )


def newest_event(lake: duckdb.DuckDBPyConnection, view: FeatureView, plan: plans.SyncPlan) -> datetime | None:
    """The greatest event time of `state(k)`; the newest partitions have it."""
    if not plan.active:
        return None
    (row,) = run(lake, view, plans.newest_event(view, plan.active[0])).fetchall()
    newest: datetime | None = row[0]
    return newest
