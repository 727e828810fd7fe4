"""Totals over the whole ledger: what was computed, checked, published and synced, and what it took.

Rule: every number only grows, because the tables only grow; so a reader that was away for an hour has missed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from feature_platform.ledger.connection import LedgerConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewTotals:
    """One feature view since the ledger began."""

    view: str
    opened: int
    """Batches."""
    computed: int
    failed: int
    published: int
    rows: int
    """Computed, whether published or not."""
    bytes: int
    compute_seconds: float
    cpu_seconds: float
    """Of runs that computed and audited batches, or failed to, since these are counted."""
    checks_passed: int
    checks_failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncTotals:
    """One feature view in one online store since the ledger began; only syncs that ended count."""

    view: str
    store: str
    syncs: int
    entities: int
    """Asserted."""
    written: int
    tombstones: int
    refused: int
    seconds: float
    bytes_sent: int
    """To the store, commands and rows; of syncs since these are counted."""
    last_ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTotals:
    """The feature log of one online store since the ledger began; what the lake holds of it, but for a crash."""

    store: str
    entries: int
    """Requests."""
    rows: int
    unreadable: int
    lost: int
    """Removed by the stream's cap before they were drained."""
    dropped: int
    """By clients."""
    last_drained_at: datetime


class MeterLedger(LedgerConnection):
    """Totals for metrics and for the bill. A few statements, each one pass over the index of its tables."""

    def record_drain(self, store: str, *, entries: int, rows: int, unreadable: int, lost: int, dropped: int) -> None:
        """Count what a commit of a drain took over. The lake has it already: who dies in between is not counted."""
        with self._append() as append:
            append.insert(
                "insert into log_drained (store, entries, row_count, unreadable, lost, dropped) values %s returning 1",
                [(store, entries, rows, unreadable, lost, dropped)],
            )

    def record_costs(self, cpu_seconds: Mapping[str, float]) -> None:
        """Record the processor seconds of batches, by id. What was recorded first stays."""
        with self._append() as append:
            append.insert(
                "insert into batch_costs (batch_id, cpu_seconds) values %s"
                " on conflict (batch_id) do nothing returning 1",
                sorted(cpu_seconds.items()),
            )

    def drain_totals(self) -> tuple[DrainTotals, ...]:
        """Every store whose feature log was ever drained, by name."""
        rows = self._fetch(
            "select store, sum(entries)::bigint, sum(row_count)::bigint, sum(unreadable)::bigint, sum(lost)::bigint,"
            " sum(dropped)::bigint, max(drained_at) from log_drained group by store order by store"
        )
        return tuple(
            DrainTotals(
                store=row[0],
                entries=row[1],
                rows=row[2],
                unreadable=row[3],
                lost=row[4],
                dropped=row[5],
                last_drained_at=row[6],
            )
            for row in rows
        )

    def bytes_of(self, batch_ids: Iterable[str]) -> dict[str, int]:
        """Bytes that these batches were computed to, by view."""
        return dict(
            self._fetch(
                "select b.view, sum(c.byte_count)::bigint from batch_computed c join batches b using (batch_id)"
                " where c.batch_id = any(%s::uuid[]) group by b.view",
                (list(batch_ids),),
            )
        )

    def computed_through(self, view_key: str) -> datetime | None:
        """End of the last partition that a batch with rows was computed for, published or not; None without one."""
        found: datetime | None = self._fetch_value(
            "select max(b.partition_end) from batches b join batch_computed c using (batch_id)"
            " where b.view = %s and c.row_count > 0",
            (view_key,),
        )
        return found

    def view_totals(self) -> tuple[ViewTotals, ...]:
        """Every view that ever opened a batch, by name."""
        rows = self._fetch(
            """
            with checked as (
                select b.view, count(*) filter (where c.passed) as passed,
                       count(*) filter (where not c.passed) as failed
                from batch_checks c join batches b using (batch_id) group by b.view
            )
            select b.view, count(*), count(c.batch_id), count(f.batch_id), count(p.batch_id),
                   coalesce(sum(c.row_count), 0)::bigint, coalesce(sum(c.byte_count), 0)::bigint,
                   coalesce(sum(c.compute_seconds), 0), coalesce(sum(s.cpu_seconds), 0),
                   coalesce(max(k.passed), 0), coalesce(max(k.failed), 0)
            from batches b
            left join batch_computed c using (batch_id)
            left join batch_failed f using (batch_id)
            left join batch_published p using (batch_id)
            left join batch_costs s using (batch_id)
            left join checked k on k.view = b.view
            group by b.view order by b.view
            """
        )
        return tuple(
            ViewTotals(
                view=view,
                opened=opened,
                computed=computed,
                failed=failed,
                published=published,
                rows=count,
                bytes=size,
                compute_seconds=seconds,
                cpu_seconds=cpu_seconds,
                checks_passed=passed,
                checks_failed=refused,
            )
            for view, opened, computed, failed, published, count, size, seconds, cpu_seconds, passed, refused in rows
        )

    def sync_totals(self) -> tuple[SyncTotals, ...]:
        """Every view and store that a sync ever ended for, by name."""
        rows = self._fetch(
            """
            select b.view, b.store, count(*), sum(e.entities)::bigint, sum(e.written)::bigint,
                   sum(e.tombstones)::bigint, sum(e.refused)::bigint, sum(e.seconds),
                   coalesce(sum(e.bytes_sent), 0)::bigint, max(e.ended_at)
            from sync_ended e join sync_began b using (sync_id)
            group by b.view, b.store order by b.view, b.store
            """
        )
        return tuple(
            SyncTotals(
                view=view,
                store=store,
                syncs=syncs,
                entities=entities,
                written=written,
                tombstones=tombstones,
                refused=refused,
                seconds=seconds,
                bytes_sent=sent,
                last_ended_at=ended,
            )
            for view, store, syncs, entities, written, tombstones, refused, seconds, sent, ended in rows
        )
