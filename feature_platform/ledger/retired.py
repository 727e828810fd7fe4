"""Retired batches: those whose rows go. What may be retired is judged by `domain.retention`, and judged again here.

Rule: first the record, then the deletion, then the record of the deletion; a run that dies between is finished by the
next. A batch is retired in an append that asks whether a kept training set needs it, and a set is recorded in an append
that asks whether a batch of it was retired: appends come one after the other, so of two that meet the later one yields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from feature_platform.domain.batch import Batch
from feature_platform.domain.retention import BatchFacts, Fate, StoreEnds
from feature_platform.ledger.connection import LedgerConnection
from feature_platform.ledger.rows import read_batch

_FACTS = """
select b.batch_id::text, b.batch_seq, b.view, b.partition_start, b.partition_end, b.grain, c.row_count,
       greatest(b.opened_at, c.computed_at, a.audited_at, f.failed_at, h.held_at, r.rejected_at, p.published_at),
       p.position, p.published_at, w.batch_id is not null, coalesce(c.byte_count, 0)
from batches b
left join batch_computed c using (batch_id)
left join batch_audited a using (batch_id)
left join batch_failed f using (batch_id)
left join batch_held h using (batch_id)
left join batch_rejected r using (batch_id)
left join batch_published p using (batch_id)
left join held_batches w using (batch_id)
where b.view = %s and not exists (select from batch_retired g where g.batch_id = b.batch_id)
order by b.batch_seq
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiredBatch:
    """A batch whose rows go, or are gone."""

    batch: Batch
    reason: str
    retired_at: datetime
    rows: int | None
    """As computed; None if that was never recorded."""
    deleted_at: datetime | None
    """None: rows may still be in the lake."""


class RetirementLedger(LedgerConnection):
    """The part of the ledger that knows retired batches."""

    def batch_facts(self, view_key: str) -> tuple[BatchFacts, ...]:
        """What decides whether batches of a view may be retired, for those that were not."""
        facts = []
        for row in self._fetch(_FACTS, (view_key,)):
            batch = read_batch(row)
            facts.append(
                BatchFacts(
                    batch_id=batch.batch_id,
                    seq=batch.seq,
                    partition=batch.partition,
                    rows=row[6],
                    last_at=row[7],
                    position=row[8],
                    published_at=row[9],
                    is_waiting=row[10],
                    bytes=row[11],
                )
            )
        return tuple(facts)

    def store_ends(self, view_key: str) -> StoreEnds:
        """Per store that the view was ever written to, when it was brought to which position."""
        rows = self._fetch(
            "select store, ended_at, to_position from sync_began left join sync_ended using (sync_id)"
            " where view = %s order by ended_at",
            (view_key,),
        )
        ends: dict[str, list[tuple[datetime, int]]] = {}
        for store, ended_at, position in rows:
            reached = ends.setdefault(store, [])
            if ended_at is not None:
                reached.append((ended_at, position))
        return ends

    def retire(self, view_key: str, chosen: Mapping[str, Fate]) -> tuple[str, ...]:
        """Retire batches, except those that a training set has come to need since they were judged.

        Args:
            view_key: `name@version`.
            chosen: why, by batch id.

        Returns:
            The ids of those that were retired.

        Raises:
            LedgerConflictError: one is active or waits for approval.
        """
        with self._append() as append:
            needed = append.fetch(
                "select batch_id::text from training_set_needs where view = %s and batch_id = any(%s::uuid[])",
                (view_key, [*chosen]),
            )
            going = sorted({*chosen} - {batch_id for (batch_id,) in needed})
            append.insert(
                "insert into batch_retired (batch_id, ledger_seq, view, reason) values %s"
                " on conflict (batch_id) do nothing returning 1",
                [(batch_id, number, view_key, chosen[batch_id].value) for number, batch_id in append.numbered(going)],
            )
        return tuple(going)

    def record_deleted(self, rows: Mapping[str, int]) -> None:
        """Record that no row of these retired batches is in the lake any more. Repeating it is harmless.

        Args:
            rows: how many were deleted, by batch id.
        """
        with self._append() as append:
            append.insert(
                "insert into batch_deleted (batch_id, ledger_seq, row_count) values %s"
                " on conflict (batch_id) do nothing returning 1",
                [(batch_id, number, rows[batch_id]) for number, batch_id in append.numbered(sorted(rows))],
            )

    def retired(self, view_key: str, *, undeleted_only: bool = False) -> tuple[RetiredBatch, ...]:
        """Retired batches of a view, by partition."""
        rows = self._fetch(
            "select b.batch_id::text, b.batch_seq, b.view, b.partition_start, b.partition_end, b.grain, r.reason,"
            " r.retired_at, c.row_count, d.deleted_at"
            " from batch_retired r join batches b using (batch_id) left join batch_computed c using (batch_id)"
            " left join batch_deleted d using (batch_id)"
            " where r.view = %s and (not %s or d.batch_id is null) order by b.partition_start, b.batch_seq",
            (view_key, undeleted_only),
        )
        return tuple(
            RetiredBatch(batch=read_batch(row), reason=row[6], retired_at=row[7], rows=row[8], deleted_at=row[9])
            for row in rows
        )

    def retired_among(self, batch_ids: Iterable[str]) -> frozenset[str]:
        """Which of these batches were retired, by id."""
        rows = self._fetch("select batch_id::text from batch_retired where batch_id = any(%s::uuid[])", ([*batch_ids],))
        return frozenset(batch_id for (batch_id,) in rows)
