"""What computing batches cost and produced: rows, bytes, seconds, memory.

Rule: no parameters are bound on the way of a run (`lake.sql.batches_rows` says why).
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from feature_platform.domain.batch import Batch, Measured, SourceRead
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Partition
from feature_platform.lake.sql import batches_rows


def measure(
    lake: duckdb.DuckDBPyConnection,
    view: FeatureView,
    batches: Sequence[Batch],
    *,
    bytes_per_row: float,
    seconds: float,
    peak_memory_bytes: int,
    watermarks: Mapping[Partition, Mapping[str, datetime | None]],
    lookbacks: Mapping[str, timedelta | None],
) -> tuple[Measured, ...]:
    """Rows per batch as they are in the lake; the run's seconds and bytes are divided by rows."""
    rows = dict(
        lake.execute(f"select _batch_id, count(*) from {batches_rows(view, batches)} as written group by 1").fetchall()
    )
    seconds_of = divide([batch.batch_id for batch in batches], rows, seconds)
    return tuple(
        Measured(
            batch_id=batch.batch_id,
            row_count=rows.get(batch.batch_id, 0),
            byte_count=round(bytes_per_row * rows.get(batch.batch_id, 0)),
            compute_seconds=seconds_of[batch.batch_id],
            peak_memory_bytes=peak_memory_bytes,
            source_watermark=max((at for at in watermarks[batch.partition].values() if at is not None), default=None),
            reads=tuple(
                SourceRead(source=source, watermark=at, lookback=lookbacks.get(source))
                for source, at in sorted(watermarks[batch.partition].items())
            ),
        )
        for batch in batches
    )


def divide(batch_ids: Sequence[str], rows: Mapping[str, int], seconds: float) -> dict[str, float]:
    """What each batch cost of what their run did: by rows; evenly while there are none.

    >>> divide(["a", "b"], {"a": 1, "b": 3}, 8.0), divide(["a", "b"], {}, 8.0)
    ({'a': 2.0, 'b': 6.0}, {'a': 4.0, 'b': 4.0})
    """
    total = sum(rows.values())
    return {one: seconds * (rows.get(one, 0) / total if total else 1 / len(batch_ids)) for one in batch_ids}


def reset_peak_memory() -> None:
    """Begin a new high-water mark of this process's memory, where the kernel can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """The high-water mark of this process's memory in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
