"""Batches: opened → computed → audited → published, or failed. Each step is recorded once and never changed.

`active` is derived: of all published batches of a partition the one opened last. Positions number a view's publishes
1, 2, 3 … in the order of commits; they are given out under the APPEND lock.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta

from feature_platform.domain.batch import Batch, CheckOutcome, Measured, PublishedBatch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Partition
from feature_platform.errors import LedgerConflictError
from feature_platform.ledger.connection import Append, LedgerConnection, Row
from feature_platform.ledger.records import BatchHistory, UnfinishedBatch
from feature_platform.ledger.rows import HISTORY, PUBLISHED, read_batch, read_history, read_published


class BatchLedger(LedgerConnection):
    """The part of the ledger that knows batches."""

    # -- appends ------------------------------------------------------------------------------------------------

    def open_batches(self, view: FeatureView, partitions: Iterable[Partition], *, run_id: str) -> tuple[Batch, ...]:
        """Take an id for each partition; rows may now be written under it, and nobody sees them."""
        wanted = tuple(partitions)
        with self._append() as append:
            opened = tuple(
                Batch(batch_id=str(uuid.uuid4()), seq=seq, view=view.key, partition=partition)
                for seq, partition in append.numbered(wanted)
            )
            append.insert(
                "insert into batches (batch_id, batch_seq, view, partition_start, partition_end, grain, run_id,"
                " code_version) values %s returning 1",
                [
                    (
                        b.batch_id,
                        b.seq,
                        b.view,
                        b.partition.start,
                        b.partition.end,
                        b.partition.grain.value,
                        run_id,
                        view.code_version,
                    )
                    for b in opened
                ],
            )
        return opened

    def record_computed(self, measured: Iterable[Measured]) -> None:
        """Record that the rows of batches are committed in the lake. Repeating the same record is harmless.

        Raises:
            LedgerConflictError: a batch is unknown, has failed, or was recorded with another row count or watermark.
        """
        rows = tuple(measured)
        with self._append() as append:
            inserted = append.insert(
                "insert into batch_computed (batch_id, ledger_seq, row_count, byte_count, compute_seconds,"
                " peak_memory_bytes, source_watermark) values %s on conflict (batch_id) do nothing"
                " returning batch_id::text",
                [
                    (
                        m.batch_id,
                        number,
                        m.row_count,
                        m.byte_count,
                        m.compute_seconds,
                        m.peak_memory_bytes,
                        m.source_watermark,
                    )
                    for number, m in append.numbered(rows)
                ],
            )
            if len(inserted) < len(rows):
                _refuse_other_measures(append, rows)
            append.insert(
                "insert into batch_reads (batch_id, source, watermark, lookback_seconds) values %s"
                " on conflict do nothing returning 1",
                [(m.batch_id, read.source, read.watermark, _seconds(read.lookback)) for m in rows for read in m.reads],
            )

    def record_checks(self, outcomes: Iterable[CheckOutcome]) -> None:
        """Record what checks said of batches. Repeating the same record is harmless.

        Raises:
            LedgerConflictError: a batch was not computed, or a check of it was recorded with another verdict.
        """
        rows = tuple(outcomes)
        with self._append() as append:
            inserted = append.insert(
                "insert into batch_checks (batch_id, check_name, kind, passed, blocking, detail) values %s"
                " on conflict (batch_id, check_name) do nothing returning 1",
                [
                    (c.batch_id, c.check, c.kind, c.passed, c.blocking, json.dumps(dict(c.detail), default=str))
                    for c in rows
                ],
            )
            if len(inserted) < len(rows):
                recorded = {
                    (batch_id, check): passed
                    for batch_id, check, passed in append.fetch(
                        "select batch_id::text, check_name, passed from batch_checks where batch_id = any(%s::uuid[])",
                        ([c.batch_id for c in rows],),
                    )
                }
                for c in rows:
                    if recorded[c.batch_id, c.check] != c.passed:
                        raise LedgerConflictError(
                            f"check {c.check} of batch {c.batch_id} was recorded with another verdict",
                            found=f"passed={c.passed} now, passed={not c.passed} before",
                            hint="materialize the partition again; a new batch takes its place",
                        )

    def record_audited(self, batch_ids: Iterable[str], *, passed: bool) -> None:
        """Record that all declared checks of batches have spoken. Repeating the same record is harmless.

        Raises:
            LedgerConflictError: a batch was not computed, has failed, or was audited with another verdict.
        """
        wanted = sorted(set(batch_ids))
        with self._append() as append:
            inserted = append.insert(
                "insert into batch_audited (batch_id, ledger_seq, passed) values %s"
                " on conflict (batch_id) do nothing returning 1",
                [(batch_id, number, passed) for number, batch_id in append.numbered(wanted)],
            )
            if len(inserted) < len(wanted) and append.fetch(
                "select 1 from batch_audited where batch_id = any(%s::uuid[]) and passed <> %s limit 1",
                (wanted, passed),
            ):
                raise LedgerConflictError(
                    "a batch was audited with another verdict before",
                    found=f"passed={passed} now, passed={not passed} before",
                    hint="materialize the partition again; a new batch takes its place",
                )

    def record_failed(self, batch_ids: Iterable[str], reason: str, *, interrupted: bool = False) -> None:
        """Give batches up for good. Batches given up before keep their first reason.

        Args:
            batch_ids: which.
            reason: for people.
            interrupted: nothing was wrong with them: their run ended without them.

        Raises:
            LedgerConflictError: a batch is unknown or already published.
        """
        wanted = sorted(set(batch_ids))
        with self._append() as append:
            append.insert(
                "insert into batch_failed (batch_id, ledger_seq, reason, interrupted) values %s"
                " on conflict (batch_id) do nothing returning 1",
                [(batch_id, number, reason, interrupted) for number, batch_id in append.numbered(wanted)],
            )

    def publish(self, batch_ids: Iterable[str]) -> tuple[PublishedBatch, ...]:
        """Make batches visible, all or none, in the order in which they were opened.

        Publishing the very same batches again returns them unchanged, so a caller whose commit was not confirmed can
        repeat.

        Raises:
            LedgerConflictError: a batch is unknown, was not audited, did not pass, has failed, or only some of the
                batches are published already.
        """
        wanted = sorted(set(batch_ids))
        with self._append() as append:
            found = append.fetch(_PUBLISHABLE, (wanted,))
            if done := [batch_id for batch_id, *_, published in found if published]:
                if len(done) < len(wanted):
                    raise LedgerConflictError(
                        "only some of the batches are published already",
                        found=f"{len(done)} of {len(wanted)}",
                        hint="publish the batches of one run together, as they were opened",
                    )
            else:
                _refuse_unpublishable(wanted, found)
                _insert_published(append, found)
            rows = append.fetch(
                f"select {PUBLISHED} from published_batches where batch_id = any(%s::uuid[]) order by ledger_seq",
                (wanted,),
            )
        return tuple(map(read_published, rows))

    # -- reads --------------------------------------------------------------------------------------------------

    def sequence(self) -> int:
        """The number of the last committed record. What is true as of a number never changes."""
        return int(self._fetch_value("select value from ledger_counter"))

    def head(self, view_key: str) -> int:
        """The position of the view's last publish; 0 if nothing was published."""
        return int(
            self._fetch_value("select coalesce(max(position), 0) from batch_published where view = %s", (view_key,))
        )

    def active_batches(
        self, view_key: str, *, at_position: int | None = None, at_sequence: int | None = None
    ) -> tuple[PublishedBatch, ...]:
        """The batches readers see, by partition: of each partition the published batch opened last.

        Args:
            view_key: `name@version`.
            at_position: only what the view's first so many publishes made visible.
            at_sequence: only what was visible as of this number of the ledger.
        """
        rows = self._fetch(
            f"select distinct on (partition_start) {PUBLISHED} from published_batches where view = %s"
            " and (%s::bigint is null or position <= %s) and (%s::bigint is null or ledger_seq <= %s)"
            " order by partition_start, batch_seq desc",
            (view_key, at_position, at_position, at_sequence, at_sequence),
        )
        return tuple(map(read_published, rows))

    def is_published_by(self, view_key: str, code_version: str) -> bool:
        """Whether this version of the view's code ever published a batch."""
        return bool(
            self._fetch_value(
                "select exists (select from published_batches where view = %s and code_version = %s)",
                (view_key, code_version),
            )
        )

    def published_between(self, view_key: str, after: int, through: int) -> tuple[PublishedBatch, ...]:
        """The publishes with `after < position <= through`, in order of position."""
        rows = self._fetch(
            f"select {PUBLISHED} from published_batches where view = %s and position > %s and position <= %s"
            " order by position",
            (view_key, after, through),
        )
        return tuple(map(read_published, rows))

    def published_batches(self, view_key: str, *, at_sequence: int | None = None) -> tuple[PublishedBatch, ...]:
        """Everything ever published of a view, in order of position.

        Args:
            view_key: `name@version`.
            at_sequence: only what was published (and retired) as of this number of the ledger.
        """
        rows = self._fetch(
            f"select {PUBLISHED} from published_batches where view = %s and (%s::bigint is null or ledger_seq <= %s)"
            " order by position",
            (view_key, at_sequence, at_sequence),
        )
        return tuple(read_published(row, at_sequence=at_sequence) for row in rows)

    def superseded_between(self, view_key: str, after: int, through: int) -> tuple[PublishedBatch, ...]:
        """The batches active at position `after` that are no longer active at `through`, by partition."""
        now = {batch.batch_id for batch in self.active_batches(view_key, at_position=through)}
        return tuple(b for b in self.active_batches(view_key, at_position=after) if b.batch_id not in now)

    def view_keys(self) -> tuple[str, ...]:
        """Every view that ever had a batch."""
        return tuple(row[0] for row in self._fetch("select distinct view from batches order by view"))

    def unfinished(self, view_key: str | None = None) -> tuple[UnfinishedBatch, ...]:
        """Opened batches neither published nor given up, oldest first: of live runs, or left by a crash."""
        rows = self._fetch(
            "select batch_id::text, batch_seq, view, partition_start, partition_end, grain, run_id, opened_at,"
            " clock_timestamp() - opened_at from unfinished_batches where (%s::text is null or view = %s)"
            " order by batch_seq",
            (view_key, view_key),
        )
        return tuple(
            UnfinishedBatch(batch=read_batch(row), run_id=row[6], opened_at=row[7], age=row[8]) for row in rows
        )

    def batches(
        self, view_key: str | None = None, *, run_id: str | None = None, limit: int | None = None
    ) -> tuple[BatchHistory, ...]:
        """Batches with all that happened to them, newest first."""
        rows = self._fetch(HISTORY, (view_key, view_key, run_id, run_id, limit))
        return tuple(read_history(row) for row in rows)

    def histories(self, batch_ids: Iterable[str]) -> dict[str, BatchHistory]:
        """All that is recorded of these batches, by id."""
        rows = self._fetch(
            f"select * from ({HISTORY}) h where batch_id = any(%s)", (None, None, None, None, None, [*batch_ids])
        )
        return {row[0]: read_history(row) for row in rows}

    def checks(self, *batch_ids: str) -> tuple[CheckOutcome, ...]:
        """What each check said of batches, by name within each."""
        rows = self._fetch(
            "select batch_id::text, check_name, kind, passed, blocking, detail from batch_checks"
            " where batch_id = any(%s::uuid[]) order by batch_id, check_name",
            (list(batch_ids),),
        )
        return tuple(
            CheckOutcome(batch_id=row[0], check=row[1], kind=row[2], passed=row[3], blocking=row[4], detail=row[5])
            for row in rows
        )

    def failing(self, view_key: str) -> tuple[BatchHistory, ...]:
        """Per partition the last attempt that came to an end, where it failed; by partition."""
        rows = self._fetch(
            "select distinct on (b.partition_start) b.batch_id::text, f.batch_id is not null"
            " from batches b left join batch_failed f using (batch_id) left join batch_published p using (batch_id)"
            " left join batch_held h using (batch_id)"
            " where b.view = %s and coalesce(f.batch_id, p.batch_id, h.batch_id) is not null"
            " order by b.partition_start, b.batch_seq desc",
            (view_key,),
        )
        failed = [batch_id for batch_id, has_failed in rows if has_failed]
        found = self.histories(failed).values() if failed else ()
        return tuple(sorted(found, key=lambda history: history.batch.partition.start))

    def check_counts(self, view_key: str) -> tuple[int, int, int]:
        """How many checks of a view's batches passed, warned, and failed so that nothing was published."""
        rows = self._fetch(
            "select count(*) filter (where passed), count(*) filter (where not passed and not blocking),"
            " count(*) filter (where not passed and blocking)"
            " from batch_checks join batches using (batch_id) where view = %s",
            (view_key,),
        )
        passed, warned, failed = rows[0]
        return int(passed), int(warned), int(failed)


_PUBLISHABLE = """
select b.batch_id::text, b.view, b.batch_seq, a.passed, f.batch_id is not null, p.batch_id is not null
from batches b
left join batch_audited a using (batch_id)
left join batch_failed f using (batch_id)
left join batch_published p using (batch_id)
where b.batch_id = any(%s::uuid[])
order by b.batch_seq
"""


def _refuse_other_measures(append: Append, rows: Sequence[Measured]) -> None:
    recorded = {
        batch_id: values
        for batch_id, *values in append.fetch(
            "select batch_id::text, row_count, source_watermark from batch_computed where batch_id = any(%s::uuid[])",
            ([m.batch_id for m in rows],),
        )
    }
    for m in rows:
        if recorded[m.batch_id] != [m.row_count, m.source_watermark]:
            raise LedgerConflictError(
                f"batch {m.batch_id} was recorded as computed with other values",
                found=f"{m.row_count} rows, watermark {m.source_watermark}",
                allowed=f"{recorded[m.batch_id][0]} rows, watermark {recorded[m.batch_id][1]}",
            )


def _refuse_unpublishable(wanted: Sequence[str], found: Sequence[Row]) -> None:
    if unknown := set(wanted) - {row[0] for row in found}:
        raise LedgerConflictError(
            "a batch to publish was never opened",
            found=", ".join(sorted(unknown)),
            hint="`feature-platform ledger batches` lists those of this ledger",
        )
    for batch_id, view, _, passed, failed, _ in found:
        if failed or not passed:
            state = "it has failed" if failed else "it was not audited" if passed is None else "its audit did not pass"
            raise LedgerConflictError(
                f"batch {batch_id} of {view} cannot be published",
                found=state,
                allowed="a computed batch whose audit passed",
                hint="materialize the partition again; a new batch takes its place",
            )


def _insert_published(append: Append, found: Sequence[Row]) -> None:
    positions: dict[str, int] = dict(
        append.fetch(
            "select view, max(position) from batch_published where view = any(%s) group by view",
            (sorted({row[1] for row in found}),),
        )
    )
    # one instant for all: as of any instant either all batches of a run are visible or none
    ((now,),) = append.fetch("select clock_timestamp()")
    rows = []
    for number, (batch_id, view, *_) in append.numbered(found):
        positions[view] = positions.get(view, 0) + 1
        rows.append((batch_id, number, view, positions[view], now))
    append.insert(
        "insert into batch_published (batch_id, ledger_seq, view, position, published_at) values %s returning 1", rows
    )


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()
