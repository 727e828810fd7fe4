"""Batches in a ledger as runs leave them, without a run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from feature_platform.domain.batch import CheckOutcome, Measured, PublishedBatch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Partition
from feature_platform.ledger import Ledger


def measured(batch_id: str, row_count: int = 1, *, watermark: datetime | None = None) -> Measured:
    """What computing cost does not matter here."""
    return Measured(
        batch_id=batch_id,
        row_count=row_count,
        byte_count=1,
        compute_seconds=0.1,
        peak_memory_bytes=1,
        source_watermark=watermark,
    )


def publish_batches(
    ledger: Ledger,
    view: FeatureView,
    partitions: Iterable[Partition],
    *,
    rows: int = 1,
    run_id: str = "run",
    watermark: datetime | None = None,
) -> tuple[PublishedBatch, ...]:
    """Computed, checked, audited, published. Their rows are said to be in the lake."""
    ids = [batch.batch_id for batch in ledger.open_batches(view, partitions, run_id=run_id)]
    ledger.record_computed(measured(batch_id, rows, watermark=watermark) for batch_id in ids)
    ledger.record_checks(
        CheckOutcome(batch_id=batch_id, check="c", kind="data_test", passed=True, blocking=True) for batch_id in ids
    )
    ledger.record_audited(ids, passed=True)
    return ledger.publish(ids)
