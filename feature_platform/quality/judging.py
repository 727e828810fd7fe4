"""Judging: what each expectation says of each batch, by SQL inside DuckDB.

Rule: every expectation is judged on exactly one batch, however many batches a run writes, so that the verdict does
not depend on how a backfill was cut. Whatever goes wrong while judging is a failed check, never a passed one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_platform.domain.batch import Batch, CheckOutcome
from feature_platform.domain.feature_view import Expectation, FeatureView
from feature_platform.quality import library, rules
from feature_platform.quality.validation import build_expectations
from feature_platform.quality.values import plain

if TYPE_CHECKING:
    import duckdb

COPY_UP_TO_ROWS = 2_000_000
"""Chunks up to this size are copied to a temporary table (it may spill): one read of the lake instead of several
per batch. Larger ones are judged where they lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What the rules need to know of a batch before the library is asked."""

    rows: int
    nan_counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """The rows of all batches of a run, as one relation, and what each batch holds."""

    view: FeatureView
    relation: str
    contents: Mapping[str, _Contents]
    expectations: tuple[Any, ...]
    """The library's objects, in the order of the declaration."""


def judge(
    view: FeatureView,
    connection: duckdb.DuckDBPyConnection,
    batches: Sequence[Batch],
) -> tuple[CheckOutcome, ...]:
    """Judge the view's expectations on each batch.

    Works on a cursor of its own: the caller's transaction neither sees nor suffers anything.

    Args:
        view: the view, with its expectations.
        connection: DuckDB with the lake attached; the batches' rows are committed.
        batches: batches of this view.

    Returns:
        One outcome per batch and expectation, batch by batch.

    Raises:
        InvalidDeclarationsError: an expectation is not one the platform can judge.
    """
    if not view.expectations or not batches:
        return ()
    expectations = build_expectations(view)
    cursor = connection.cursor()
    try:
        cursor.execute("set TimeZone = 'UTC'")
        chunk = _gather(view, cursor, batches, expectations)
        aggregates = _aggregates(chunk, cursor)
        return tuple(
            outcome
            for batch in batches
            for outcome in _judge_batch(chunk, cursor, batch, aggregates.get(batch.batch_id, {}))
        )
    finally:
        cursor.close()


def _gather(
    view: FeatureView,
    cursor: duckdb.DuckDBPyConnection,
    batches: Sequence[Batch],
    expectations: tuple[Any, ...],
) -> _Chunk:
    """Make the chunk's rows available as one relation and count rows and NaN per batch."""
    # imported here: the lake's package loads DuckDB, which definitions must not
    from feature_platform.lake.sql import batches_rows, quote_identifier

    relation = f"chunk_{uuid.uuid4().hex}"
    columns = ", ".join(map(quote_identifier, (*rules.column_types(view), "_batch_id")))
    cursor.execute(f"create temp view {relation} as select {columns} from {batches_rows(view, batches)} as written")
    floats = sorted({name for one in view.expectations for name in rules.float_columns_of(one, view)})
    nans = "".join(f", count(*) filter (where isnan({quote_identifier(name)}))" for name in floats)
    counted = cursor.execute(f"select _batch_id, count(*){nans} from {relation} group by all").fetchall()
    contents = {batch.batch_id: _Contents(rows=0, nan_counts={}) for batch in batches}
    for batch_id, rows, *counts in counted:
        contents[str(batch_id)] = _Contents(rows=rows, nan_counts=dict(zip(floats, counts, strict=True)))
    if sum(one.rows for one in contents.values()) <= COPY_UP_TO_ROWS:
        cursor.execute(f"create temp table {relation}_rows as from {relation}")
        relation = f"{relation}_rows"
    return _Chunk(view=view, relation=relation, contents=contents, expectations=expectations)


def _aggregates(chunk: _Chunk, cursor: duckdb.DuckDBPyConnection) -> dict[str, dict[int, Any]]:
    """Per batch the value of each expectation that looks at one aggregate, by the expectation's place."""
    from feature_platform.lake.sql import quote_identifier  # loads DuckDB

    wanted = {
        place: library.AGGREGATES[metric].format(column=quote_identifier(getattr(expectation, "column", "")))
        for place, expectation in enumerate(chunk.expectations)
        if (metric := library.aggregate_of(expectation)) is not None
    }
    if not wanted:
        return {}
    rows = cursor.execute(
        f"select _batch_id, {', '.join(wanted.values())} from {chunk.relation} group by _batch_id"
    ).fetchall()
    return {str(batch_id): dict(zip(wanted, values, strict=True)) for batch_id, *values in rows}


def _judge_batch(
    chunk: _Chunk, cursor: duckdb.DuckDBPyConnection, batch: Batch, aggregates: Mapping[int, Any]
) -> Iterator[CheckOutcome]:
    view = chunk.view
    answers: dict[int, library.Answer] = {}
    open_places = []
    for place, (declared, expectation) in enumerate(zip(view.expectations, chunk.expectations, strict=True)):
        if (objected := _objection(chunk, batch, declared)) is not None:
            answers[place] = (False, objected)
        elif (metric := library.aggregate_of(expectation)) is not None:
            answers[place] = library.judge_aggregate(expectation, metric, aggregates.get(place))
        else:
            open_places.append(place)
    if open_places:
        answers |= _ask(chunk, cursor, batch, open_places)
    for place, (check, declared) in enumerate(zip(rules.check_names(view), view.expectations, strict=True)):
        passed, detail = answers.get(place, (False, {"error": "no answer"}))
        yield CheckOutcome(
            batch_id=batch.batch_id,
            check=check,
            kind="expectation",
            passed=passed,
            blocking=declared.severity == "error",
            detail=detail if passed else detail | _asked(declared),
        )


def _asked(declared: Expectation) -> dict[str, Any]:
    """What was asked for, beside what was observed: whoever is woken need not look for it in the YAML."""
    asked = {name: plain(value) for name, value in declared.arguments.items() if not name.startswith("column")}
    return {"declared": asked} if asked else {}


def _objection(chunk: _Chunk, batch: Batch, declared: Expectation) -> dict[str, Any] | None:
    contents = chunk.contents[batch.batch_id]
    return rules.objection(
        declared,
        rows=contents.rows,
        nan_counts=contents.nan_counts,
        empty_allowed=rules.allows_empty(chunk.view),
        columns=rules.float_columns_of(declared, chunk.view),
    )


def _ask(
    chunk: _Chunk, cursor: duckdb.DuckDBPyConnection, batch: Batch, places: Sequence[int]
) -> dict[int, library.Answer]:
    """The library's answers for which it needs the batch's rows."""
    batch_id = uuid.UUID(batch.batch_id)
    relation = f"batch_{batch_id.hex}"
    cursor.execute(
        f"create or replace temp view {relation} as"
        f" select * exclude (_batch_id) from {chunk.relation} where _batch_id = '{batch_id}'"
    )
    asked = [chunk.expectations[place] for place in places]
    answers = library.ask(cursor, relation, asked, samples=chunk.view.quality.samples)
    cursor.execute(f"drop view {relation}")
    return answers
