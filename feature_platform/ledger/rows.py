"""Rows of the ledger's queries as records: which columns a query asks for, and what they become."""

from __future__ import annotations

from feature_platform.domain.batch import Batch, PublishedBatch
from feature_platform.domain.windows import Grain, Partition
from feature_platform.ledger.connection import Row
from feature_platform.ledger.records import BatchHistory

PUBLISHED = (
    "batch_id::text, batch_seq, view, partition_start, partition_end, grain, position, ledger_seq, row_count,"
    " source_watermark, opened_at, computed_at, published_at, retired_seq"
)

HISTORY = """
select b.batch_id::text, b.batch_seq, b.view, b.partition_start, b.partition_end, b.grain, b.run_id, b.code_version,
       b.opened_at, c.computed_at, c.row_count, c.byte_count, c.compute_seconds, c.peak_memory_bytes,
       c.source_watermark, a.audited_at, a.passed, f.failed_at, f.reason, p.published_at, p.position,
       h.held_at, r.rejected_at, r.reason, g.retired_at, k.cpu_seconds
from batches b
left join batch_computed c using (batch_id)
left join batch_audited a using (batch_id)
left join batch_failed f using (batch_id)
left join batch_published p using (batch_id)
left join batch_held h using (batch_id)
left join batch_rejected r using (batch_id)
left join batch_retired g using (batch_id)
left join batch_costs k using (batch_id)
where (%s::text is null or b.view = %s) and (%s::text is null or b.run_id = %s)
order by b.batch_seq desc
limit %s
"""


def read_batch(row: Row) -> Batch:
    """A batch from its id, number, view, partition start and end, and grain."""
    partition = Partition(start=row[3], end=row[4], grain=Grain(row[5]))
    return Batch(batch_id=row[0], seq=row[1], view=row[2], partition=partition)


def read_published(row: Row, *, at_sequence: int | None = None) -> PublishedBatch:
    """A published batch from the columns of `PUBLISHED`, as of a number of the ledger."""
    is_retired = row[13] is not None and (at_sequence is None or row[13] <= at_sequence)
    return PublishedBatch(
        batch_id=row[0],
        seq=row[1],
        view=row[2],
        partition=Partition(start=row[3], end=row[4], grain=Grain(row[5])),
        position=row[6],
        ledger_seq=row[7],
        row_count=row[8],
        source_watermark=row[9],
        opened_at=row[10],
        computed_at=row[11],
        published_at=row[12],
        retired_seq=row[13] if is_retired else None,
    )


def read_history(row: Row) -> BatchHistory:
    """A batch with all that happened to it, from the columns of `HISTORY`."""
    return BatchHistory(
        batch=read_batch(row),
        run_id=row[6],
        code_version=row[7],
        opened_at=row[8],
        computed_at=row[9],
        row_count=row[10],
        byte_count=row[11],
        compute_seconds=row[12],
        peak_memory_bytes=row[13],
        source_watermark=row[14],
        audited_at=row[15],
        audit_passed=row[16],
        failed_at=row[17],
        failure=row[18],
        published_at=row[19],
        position=row[20],
        held_at=row[21],
        rejected_at=row[22],
        rejection=row[23],
        retired_at=row[24],
        cpu_seconds=row[25],
    )
