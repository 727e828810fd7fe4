"""A batch: one immutable materialization of one partition of one feature view, and what happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from feature_platform.domain.windows import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """An opened batch. Of two batches of one partition the one with the greater `seq` supersedes the other."""

    batch_id: str
    seq: int
    view: str
    """`name@version` of the feature view."""
    partition: Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRead:
    """What a batch could read of one source."""

    source: str
    watermark: datetime | None
    """Newest arrival among the rows before the partition's end; None if there were none."""
    lookback: timedelta | None
    """How far before its end the partition reaches; None if that is not known: then as far as there are rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What computing a batch cost and produced. A run over many partitions divides its seconds by rows."""

    batch_id: str
    row_count: int
    byte_count: int
    compute_seconds: float
    peak_memory_bytes: int
    source_watermark: datetime | None
    """Newest `ingested_at` among the source rows the batch could read; None if its sources have none."""
    reads: tuple[SourceRead, ...] = ()
    """The same per source, and how far back the batch reaches in it."""

    @property
    def has_input(self) -> bool:
        """Whether each source had rows before the partition's end; False also if that is not known."""
        return bool(self.reads) and all(read.watermark is not None for read in self.reads)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """What one check said of a batch."""

    batch_id: str
    check: str
    kind: str
    """`contract`, `profile`, `data_test` or `expectation`."""
    passed: bool
    blocking: bool
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedBatch:
    """A batch that training and sync may read."""

    batch_id: str
    seq: int
    view: str
    partition: Partition
    position: int
    """1, 2, 3 … per view, in the order in which publishes committed."""
    ledger_seq: int
    row_count: int
    source_watermark: datetime | None
    opened_at: datetime
    computed_at: datetime
    published_at: datetime
    retired_seq: int | None = None
    """The number under which it was retired: its rows are gone, or about to go. An active batch never is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRecord:
    """One sync of one view into one store: it asserted `state(to_position)` for what (from, to] touched."""

    sync_id: str
    view: str
    store: str
    from_position: int
    to_position: int
    began_at: datetime
    ended_at: datetime | None
