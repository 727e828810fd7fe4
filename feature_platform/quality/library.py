"""Great Expectations itself: how it is asked, and its answers as plain values.

Rule: the library decides, DuckDB counts. An expectation that compares one aggregate with bounds is asked with that
aggregate, computed for all batches of a run by one statement; any other is asked with a relation, on which the library
computes its own metrics. Per batch the second way costs some 30 ms of CPU in the library, the first next to nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feature_platform.quality.values import SAMPLES, plain, sample

if TYPE_CHECKING:
    import duckdb

Answer = tuple[bool, dict[str, Any]]
"""Whether the expectation is met, and what was observed."""

AGGREGATES: Mapping[str, str] = {
    "table.row_count": "count(*)",
    "column.mean": "avg(1.0::double * {column})",
    "column.max": "max({column})",
    "column.min": "min({column})",
    "column.sum": "sum({column})",
    "column.standard_deviation": "stddev_samp({column})",
    "column.distinct_values.count": "count(distinct {column})",
}
"""SQL of the metrics that are one aggregate, by the library's names: what its own SQL would compute (tested)."""

_COUNTS = frozenset({"table.row_count", "column.distinct_values.count"})


def aggregate_of(expectation: Any) -> str | None:
    """The aggregate's metric if that is all the expectation looks at."""
    needed = tuple(getattr(expectation, "metric_dependencies", ()))
    simple = len(needed) == 1 and needed[0] in AGGREGATES
    return needed[0] if simple and getattr(expectation, "row_condition", None) is None else None


def judge_aggregate(expectation: Any, metric: str, value: Any) -> Answer:
    """The library's verdict on one aggregate. A batch without rows has no value, or a count of 0."""
    if value is None and metric in _COUNTS:
        value = 0
    try:
        # the hook each expectation implements; the library's version is pinned exactly
        verdict = expectation._validate(metrics={metric: value})  # noqa: SLF001
    except (TypeError, ValueError) as error:
        return False, {"error": f"{type(error).__name__}: {error}"}
    return bool(verdict["success"]), _reported(verdict["result"])


def ask(
    cursor: duckdb.DuckDBPyConnection, relation: str, expectations: Sequence[Any], *, samples: bool = False
) -> dict[int, Answer]:
    """Great Expectations' answers on one relation by the expectation's place: its metrics are computed together.

    Args:
        cursor: DuckDB, which has the relation.
        relation: the rows of one batch.
        expectations: the library's objects.
        samples: whether some of the values or rows that failed are part of the answer.
    """
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
        runtime_configuration={
            "result_format": {"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES if samples else 0}
        },
    )
    answers = {int(result.expectation_config.id): _answer(result) for result in results}
    if not samples:
        return answers
    for result in results:
        place = int(result.expectation_config.id)
        passed, detail = answers[place]
        if not passed and "error" not in detail and (failed := _failed_values(result, cursor, relation)):
            detail["samples"] = sample(failed)
    return answers


@functools.cache
def _quiet_context() -> Any:
    """A context in memory whose only purpose is to keep progress bars out of the run's log."""
    import great_expectations
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


_REPORTED = ("observed_value", "element_count", "unexpected_count", "unexpected_percent", "missing_count")


def _answer(result: Any) -> Answer:
    detail = _reported(result.result)
    if error := _error_in(result.exception_info):
        return False, detail | {"error": error}
    return bool(result.success), detail


def _failed_values(result: Any, cursor: duckdb.DuckDBPyConnection, relation: str) -> Sequence[Any]:
    """Values of a column or of several, or the rows of a query, which the library gives only if it may give all."""
    asked = result.expectation_config.kwargs
    if (query := asked.get("unexpected_rows_query")) is None or asked.get("row_condition") is not None:
        return result.result.get("partial_unexpected_list") or ()
    rows = cursor.execute(f"select * from ({query.format(batch=relation)}) as failing limit {SAMPLES}").fetchall()
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _reported(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(result[name]) for name in _REPORTED if result.get(name) is not None}


def _error_in(info: Any) -> str:
    """The first exception in GX's report: one flat mapping, or one per metric."""
    if not isinstance(info, Mapping):
        return ""
    for one in (info, *info.values()):
        if isinstance(one, Mapping) and one.get("raised_exception"):
            return " ".join(str(one.get("exception_message") or "unknown error").split())[:1000]
    return ""
