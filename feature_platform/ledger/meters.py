"""Totals over the whole ledger: what was computed, checked, published and synced, and what it took.

Rule: every number only grows, because the tables only grow; so a reader that was away for an hour has missed nothing.
"""

from __future__ import annotations

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
    last_ended_at: datetime


class MeterLedger(LedgerConnection):
    """Totals for metrics and for the bill. Two statements, each one pass over the index of its tables."""

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
                   coalesce(sum(c.compute_seconds), 0), coalesce(max(k.passed), 0), coalesce(max(k.failed), 0)
            from batches b
            left join batch_computed c using (batch_id)
            left join batch_failed f using (batch_id)
            left join batch_published p using (batch_id)
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
                checks_passed=passed,
                checks_failed=refused,
            )
            for view, opened, computed, failed, published, count, size, seconds, passed, refused in rows
        )

    def sync_totals(self) -> tuple[SyncTotals, ...]:
        """Every view and store that a sync ever ended for, by name."""
        rows = self._fetch(
            """
            select b.view, b.store, count(*), sum(e.entities)::bigint, sum(e.written)::bigint,
                   sum(e.tombstones)::bigint, sum(e.refused)::bigint, sum(e.seconds), max(e.ended_at)
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
                last_ended_at=ended,
            )
            for view, store, syncs, entities, written, tombstones, refused, seconds, ended in rows
        )
