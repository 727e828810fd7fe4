"""dbt's data tests → what each says of each batch.

Rule: a check that could not speak has failed. Only `severity: warn` keeps a failed check from blocking.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import duckdb

from feature_platform.domain.batch import Batch, CheckOutcome
from feature_platform.lake.sql import BATCH_ID, PARTITION_START
from feature_platform.materialization.dbt_run import Invocation, NodeResult, severity_of
from feature_platform.quality import SAMPLES, said_of, sample

_SHOWN = 5


def judge_data_tests(
    lake: duckdb.DuckDBPyConnection,
    invocation: Invocation,
    batches: Sequence[Batch],
    *,
    declared: Iterable[Any],
    samples: bool = False,
) -> tuple[CheckOutcome, ...]:
    """One outcome per batch and test. A test judges all batches at once, so a failure is looked up per batch.

    Args:
        lake: to look failures up.
        invocation: what dbt said.
        batches: the batches of the run.
        declared: dbt's nodes of all tests that had to speak.
        samples: whether outcomes may hold some of the rows that failed.
    """
    outcomes: list[CheckOutcome] = []
    for result in invocation.results:
        if result.resource_type != "test":
            continue
        failures = {} if result.status == "pass" else _failures_per_batch(lake, result, batches)
        sampled = _samples(lake, result, failures) if samples else {}
        outcomes += [_outcome(result, batch, failures, sampled.get(batch.batch_id, [])) for batch in batches]
    spoken = {result.unique_id for result in invocation.results}
    silent = [node for node in declared if node.unique_id not in spoken]
    return (*outcomes, *(_silence(node, batch) for node in silent for batch in batches))


def _silence(node: Any, batch: Batch) -> CheckOutcome:
    """A test that dbt left out, whatever the reason, has failed."""
    return CheckOutcome(
        batch_id=batch.batch_id,
        check=node.name,
        kind="data_test",
        passed=False,
        blocking=severity_of(node) != "warn",
        detail={"message": "dbt did not run this test", "status": "left out"},
    )


def blocking_failures(outcomes: Iterable[CheckOutcome]) -> tuple[CheckOutcome, ...]:
    """The outcomes that keep a batch from being published."""
    return tuple(outcome for outcome in outcomes if outcome.blocking and not outcome.passed)


def describe_failures(failures: Sequence[CheckOutcome], batches: Sequence[Batch]) -> str:
    """The failed checks by name, with the partitions they failed on."""
    keys = {batch.batch_id: batch.partition.key for batch in batches}
    by_check: dict[str, list[CheckOutcome]] = {}
    for failure in failures:
        by_check.setdefault(failure.check, []).append(failure)
    lines = []
    for check, failed in list(by_check.items())[:_SHOWN]:
        where = ", ".join(keys[failure.batch_id] for failure in failed[:_SHOWN]) + (" …" if failed[_SHOWN:] else "")
        lines.append(f"{check} on {where}: {said_of(failed[0]) or dict(failed[0].detail)}")
    if len(by_check) > _SHOWN:
        lines.append(f"and {len(by_check) - _SHOWN} more checks")
    return "\n           ".join(lines)


def _outcome(
    result: NodeResult, batch: Batch, failures: Mapping[str, int | None], sampled: Sequence[Any]
) -> CheckOutcome:
    passed = result.status == "pass" or batch.batch_id not in failures
    detail: dict[str, Any] = {"seconds": round(result.seconds, 4)}
    if not passed:
        detail |= {
            "message": result.message,
            "status": result.status,
            "failing_rows": failures[batch.batch_id],
            "compiled_path": result.compiled_path,
        } | ({"samples": sampled} if sampled else {})
    return CheckOutcome(
        batch_id=batch.batch_id,
        check=result.name,
        kind="data_test",
        passed=passed,
        blocking=result.severity != "warn",
        detail=detail,
    )


def _failures_per_batch(
    lake: duckdb.DuckDBPyConnection, result: NodeResult, batches: Sequence[Batch]
) -> dict[str, int | None]:
    """Failing rows per batch, if the test's SQL returns `_batch_id`; else every batch of the run has failed."""
    ours = {batch.batch_id for batch in batches}
    if result.status in {"warn", "fail"} and result.compiled_sql:
        with suppress(duckdb.Error):
            rows = lake.execute(
                f"select {BATCH_ID}::varchar, count(*) from ({result.compiled_sql}) as failing group by 1"
            ).fetchall()
            found: dict[str, int | None] = {batch_id: count for batch_id, count in rows if batch_id in ours}
            if found:
                return found
    return dict.fromkeys(ours)


def _samples(
    lake: duckdb.DuckDBPyConnection, result: NodeResult, failures: Mapping[str, int | None]
) -> dict[str, list[Any]]:
    """Some failing rows per batch; a batch has a count only if the test's SQL says of which batch its rows are."""
    found = {}
    for batch_id in (batch_id for batch_id, count in failures.items() if count):
        rows = lake.execute(
            f"select * from ({result.compiled_sql}) as failing where {BATCH_ID} = '{batch_id}' limit {SAMPLES}"
        ).fetchall()
        names = [column[0] for column in lake.description or ()]
        shown = [place for place, name in enumerate(names) if name not in (BATCH_ID, PARTITION_START)]
        found[batch_id] = sample({names[place]: row[place] for place in shown} for row in rows)
    return found
