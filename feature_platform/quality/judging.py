"""Judging: what each expectation says of each batch, by SQL inside DuckDB.

Rule: every expectation is judged on exactly one batch, however many batches a run writes, so that the verdict does
not depend on how a backfill was cut. Whatever goes wrong while judging is a failed check, never a passed one.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_platform.domain.batch import Batch, CheckOutcome
from feature_platform.domain.feature_view import FeatureView
from feature_platform.quality import rules
from feature_platform.quality.validation import build_expectations

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


def judge(
    view: FeatureView,
    connection: duckdb.DuckDBPyConnection,
    batches: Sequence[Batch],
    *,
    schema: str = "lake.batches",
) -> tuple[CheckOutcome, ...]:
    """Judge the view's expectations on each batch.

    Works on a cursor of its own: the caller's transaction neither sees nor suffers anything.

    Args:
        view: the view, with its expectations.
        connection: DuckDB with the lake attached; the batches' rows are committed.
        batches: batches of this view.
        schema: where the view's physical table is.

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
        chunk = _gather(view, cursor, batches, schema)
        return tuple(outcome for batch in batches for outcome in _judge_batch(chunk, cursor, batch, expectations))
    finally:
        cursor.close()


def _gather(view: FeatureView, cursor: duckdb.DuckDBPyConnection, batches: Sequence[Batch], schema: str) -> _Chunk:
    """Make the chunk's rows available as one relation and count rows and NaN per batch."""
    # imported here: the lake's package loads DuckDB, which definitions must not
    from feature_platform.lake.sql import quote_identifier

    relation = f"chunk_{uuid.uuid4().hex}"
    ids = ", ".join(f"'{uuid.UUID(batch.batch_id)}'" for batch in batches)
    first = min(batch.partition.start for batch in batches).isoformat()
    last = max(batch.partition.start for batch in batches).isoformat()
    columns = ", ".join(map(quote_identifier, (*rules.column_types(view), "_batch_id")))
    rows_of_chunk = (
        f"select {columns} from {schema}.{quote_identifier(view.table)} where _batch_id in ({ids})"
        f" and _partition_start between timestamptz '{first}' and timestamptz '{last}'"
    )
    cursor.execute(f"create temp view {relation} as {rows_of_chunk}")
    floats = sorted({name for one in view.expectations for name in rules.float_columns_of(one, view)})
    nans = "".join(f", count(*) filter (where isnan({quote_identifier(name)}))" for name in floats)
    counted = cursor.execute(f"select _batch_id, count(*){nans} from {relation} group by all").fetchall()
    contents = {batch.batch_id: _Contents(rows=0, nan_counts={}) for batch in batches}
    for batch_id, rows, *counts in counted:
        contents[str(batch_id)] = _Contents(rows=rows, nan_counts=dict(zip(floats, counts, strict=True)))
    if sum(one.rows for one in contents.values()) <= COPY_UP_TO_ROWS:
        cursor.execute(f"create temp table {relation}_rows as from {relation}")
        relation = f"{relation}_rows"
    return _Chunk(view=view, relation=relation, contents=contents)


def _judge_batch(
    chunk: _Chunk, cursor: duckdb.DuckDBPyConnection, batch: Batch, expectations: Sequence[Any]
) -> Iterator[CheckOutcome]:
    view, contents = chunk.view, chunk.contents[batch.batch_id]
    objections = [
        rules.objection(
            declared,
            rows=contents.rows,
            nan_counts=contents.nan_counts,
            empty_allowed=rules.allows_empty(view),
            columns=rules.float_columns_of(declared, view),
        )
        for declared in view.expectations
    ]
    asked = [index for index, objected in enumerate(objections) if objected is None]
    name = f"batch_{uuid.UUID(batch.batch_id).hex}"
    cursor.execute(
        f"create or replace temp view {name} as"
        f" select * exclude (_batch_id) from {chunk.relation} where _batch_id = '{uuid.UUID(batch.batch_id)}'"
    )
    answers = _ask(cursor, name, [expectations[index] for index in asked])
    for index, (check, declared) in enumerate(zip(rules.check_names(view), view.expectations, strict=True)):
        passed, detail = answers.get(index, (False, objections[index] or {"error": "no answer"}))
        yield CheckOutcome(
            batch_id=batch.batch_id,
            check=check,
            kind="expectation",
            passed=passed,
            blocking=declared.severity == "error",
            detail=detail,
        )
    cursor.execute(f"drop view {name}")


def _ask(
    cursor: duckdb.DuckDBPyConnection, relation: str, expectations: Sequence[Any]
) -> dict[int, tuple[bool, dict[str, Any]]]:
    """Great Expectations' answers on one relation by the expectation's place: its metrics are computed together."""
    if not expectations:
        return {}
    # imported here because it costs seconds of CPU; it has been imported by now to build the expectations
    from great_expectations.core.batch import Batch as GxBatch
    from great_expectations.core.batch import BatchMarkers, LegacyBatchDefinition
    from great_expectations.core.batch_spec import BatchSpec
    from great_expectations.core.id_dict import IDDict
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData
    from great_expectations.validator.validator import Validator

    from feature_platform.quality.duckdb_dialect import engine_over

    engine = SqlAlchemyExecutionEngine(engine=engine_over(cursor), create_temp_table=False)
    gx_batch = GxBatch(
        data=SqlAlchemyBatchData(engine, table_name=relation, create_temp_table=False),
        batch_spec=BatchSpec(),
        batch_markers=BatchMarkers({"ge_load_time": relation}),
        batch_definition=LegacyBatchDefinition("lake", "batches", relation, IDDict()),
    )
    results = Validator(execution_engine=engine, data_context=_quiet_context(), batches=[gx_batch]).graph_validate(
        configurations=[expectation.configuration for expectation in expectations],
        # no samples of values: they may be personal data
        runtime_configuration={"result_format": {"result_format": "SUMMARY", "partial_unexpected_count": 0}},
    )
    return {int(result.expectation_config.id): _answer(result) for result in results}


@functools.cache
def _quiet_context() -> Any:
    """A context in memory whose only purpose is to keep progress bars out of the run's log."""
    import great_expectations
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


_REPORTED = ("observed_value", "element_count", "unexpected_count", "unexpected_percent", "missing_count")


def _answer(result: Any) -> tuple[bool, dict[str, Any]]:
    detail = {name: _plain(result.result[name]) for name in _REPORTED if result.result.get(name) is not None}
    if error := _error_in(result.exception_info):
        return False, detail | {"error": error}
    return bool(result.success), detail


def _error_in(info: Any) -> str:
    """The first exception in GX's report: one flat mapping, or one per metric."""
    if not isinstance(info, Mapping):
        return ""
    for one in (info, *info.values()):
        if isinstance(one, Mapping) and one.get("raised_exception"):
            return " ".join(str(one.get("exception_message") or "unknown error").split())[:1000]
    return ""


def _plain(value: Any) -> Any:
    """The value as JSON has it: numpy scalars become numbers, what JSON lacks becomes text."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in list(value)[:20]]
    return str(value)
