"""Writing the canary's batch: lake, ledger, audit, publish, as a run of a view does without its SQL.

Rule: what is written is read back from the lake before it is published; a batch that fails anywhere is given up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from feature_platform.domain.batch import Batch, CheckOutcome, Measured
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.domain.windows import floor, partition_starting
from feature_platform.errors import CheckFailedError, FeaturePlatformError, NotDeployedError, reason_of
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import (
    batches_rows,
    batches_table,
    quote_identifier,
    quote_instant,
    quote_literal,
    table_columns,
)
from feature_platform.ledger import Ledger, deployment_lock
from feature_platform.settings import Settings

LOCK_WAIT: Final = timedelta(seconds=20)
"""Maintenance holds the lock for a slice at a time; a deploy that takes longer is no failure of the canary's."""
CHECK: Final = "rows_are_as_written"
_BYTES_PER_VALUE: Final = 8
"""As runs estimate rows that lie in the lake's catalog."""

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A batch that is published, and what each store must answer."""

    batch: Batch
    at: datetime
    """The event time of its rows."""
    values: Mapping[str, Values]
    """By store: the features."""


def draw(batch: Batch, at: datetime) -> Values:
    """Features that no batch before had."""
    return {
        "number": batch.seq,
        "fraction": secrets.randbelow(2**53) / 2**53,
        "token": secrets.token_hex(16),
        "written_at": at,
        "nothing": None,
    }


def write_batch(
    settings: Settings,
    ledger: Ledger,
    lake: duckdb.DuckDBPyConnection,
    view: FeatureView,
    stores: Sequence[str],
    *,
    run_id: str,
) -> Written:
    """Write one row for each store, check that the lake holds them, and publish.

    Raises:
        LockBusyError: a deploy did not end in time.
        FeaturePlatformError: the lake or the ledger refused; nothing is published.
    """
    with deployment_lock(ledger.connection, exclusive=False, wait=LOCK_WAIT):
        ledger.check_clock()
        at = ledger.now()
        partition = partition_starting(floor(at - timedelta(microseconds=1), view.grain), view.grain)
        (batch,) = ledger.open_batches(view, [partition], run_id=run_id)
        written = Written(batch=batch, at=at, values={store: draw(batch, at) for store in stores})
        with _giving_up(settings, batch):
            began = time.perf_counter()
            rows = sorted((store, at, *values.values()) for store, values in written.values.items())
            with lake_errors(f"writing {view.key}"):
                _insert(lake, view, batch, rows)
                seconds = time.perf_counter() - began
                found = _select(lake, view, batch)
            ledger.record_computed([_measured(view, batch, len(found), seconds)])
            _audit(ledger, batch, rows=rows, found=found)
            ledger.publish([batch.batch_id])
    return written


def _insert(lake: duckdb.DuckDBPyConnection, view: FeatureView, batch: Batch, rows: Sequence[tuple[Any, ...]]) -> None:
    """Literals, not parameters, for the reason that `batches_rows` gives."""
    columns = ", ".join(quote_identifier(column.name) for column in table_columns(view))
    ends = (batch.batch_id, batch.partition.start)
    values = ", ".join(f"({', '.join(map(_literal, (*row, *ends)))})" for row in rows)
    try:
        lake.execute(f"insert into {batches_table(view)} ({columns}) values {values}")
    except duckdb.CatalogException as error:
        raise NotDeployedError(
            "the lake has no table for the canary",
            found=str(error).splitlines()[0],
            hint="run `feature-platform deploy`",
        ) from error


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, datetime):
        return quote_instant(value)
    if isinstance(value, float):
        return f"double {quote_literal(repr(value))}"  # a bare one is a decimal, which is rounded twice (seen)
    return quote_literal(str(value))


def _select(lake: duckdb.DuckDBPyConnection, view: FeatureView, batch: Batch) -> list[tuple[Any, ...]]:
    columns = ", ".join(map(quote_identifier, (*view.entity_names, EVENT_TIMESTAMP, *view.feature_names)))
    rows = lake.execute(f"select {columns} from {batches_rows(view, [batch])} as written order by all")
    return [*rows.fetchall()]


def _measured(view: FeatureView, batch: Batch, rows: int, seconds: float) -> Measured:
    return Measured(
        batch_id=batch.batch_id,
        row_count=rows,
        byte_count=rows * len(table_columns(view)) * _BYTES_PER_VALUE,
        compute_seconds=seconds,
        peak_memory_bytes=0,
        source_watermark=None,
    )


def _audit(ledger: Ledger, batch: Batch, *, rows: Sequence[tuple[Any, ...]], found: Sequence[tuple[Any, ...]]) -> None:
    passed = found == rows
    outcome = CheckOutcome(
        batch_id=batch.batch_id,
        check=CHECK,
        kind="data_test",
        passed=passed,
        blocking=True,
        detail={} if passed else {"message": f"written {rows}, found {found}"},
    )
    ledger.record_checks([outcome])
    ledger.record_audited([batch.batch_id], passed=passed)
    if not passed:
        raise CheckFailedError(
            "the lake does not hold what was written to it; nothing was published",
            outcomes=(outcome,),
            found=str(found),
            allowed=str(rows),
        )


@contextmanager
def _giving_up(settings: Settings, batch: Batch) -> Iterator[None]:
    """Give the batch up if the block fails. Best effort, as in a run."""
    try:
        yield
    except BaseException as error:
        with suppress(FeaturePlatformError), Ledger.connect(settings.ledger_url) as ledger:
            ledger.record_failed([batch.batch_id], reason_of(error))
        raise
