"""Held batches: audited, and not published until somebody approves. The batch before it keeps serving and training.

Rule: held ends in published or rejected, never in failed. A later publish of the partition, or a later held batch of
it, makes an older one pointless: it is no longer waiting, and nothing has to be done about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.windows import Partition
from feature_platform.errors import UnknownNameError, chosen_from
from feature_platform.ledger.batches import BatchLedger
from feature_platform.ledger.records import HeldBatch
from feature_platform.ledger.rows import read_batch


class HeldLedger(BatchLedger):
    """The part of the ledger that knows held batches."""

    def hold(self, batch_ids: Iterable[str]) -> None:
        """Keep audited batches for a decision instead of publishing them. Repeating the same record is harmless.

        Raises:
            LedgerConflictError: a batch was not audited, did not pass, has failed or is published.
        """
        wanted = sorted(set(batch_ids))
        with self._append() as append:
            append.insert(
                "insert into batch_held (batch_id, ledger_seq) values %s on conflict (batch_id) do nothing returning 1",
                [(batch_id, number) for number, batch_id in append.numbered(wanted)],
            )

    def held(self, view_key: str | None = None) -> tuple[HeldBatch, ...]:
        """Batches that wait for a decision, by view and partition."""
        rows = self._fetch(
            "select batch_id::text, batch_seq, view, partition_start, partition_end, grain, run_id, row_count, held_at,"
            " clock_timestamp() - held_at"
            " from held_batches where (%s::text is null or view = %s) order by view, partition_start",
            (view_key, view_key),
        )
        return tuple(
            HeldBatch(batch=read_batch(row), run_id=row[6], row_count=row[7], held_at=row[8], age=row[9])
            for row in rows
        )

    def waiting(self, view_key: str, partitions: Sequence[Partition] = ()) -> tuple[HeldBatch, ...]:
        """The held batches of these partitions, or of all.

        Raises:
            UnknownNameError: there is none, or a partition has none.
        """
        held = {one.batch.partition: one for one in self.held(view_key)}
        if missing := [partition for partition in partitions if partition not in held]:
            raise UnknownNameError(
                f"no batch of {view_key} waits for approval in {', '.join(one.key for one in missing)}",
                allowed=chosen_from(partition.key for partition in held),
                hint="`feature-platform late` shows what waits",
            )
        if not held:
            raise UnknownNameError(
                f"no batch of {view_key} waits for approval", hint="`feature-platform late` shows what waits"
            )
        return tuple(held[partition] for partition in partitions) if partitions else tuple(held.values())

    def approve(self, held: Iterable[HeldBatch]) -> tuple[PublishedBatch, ...]:
        """Publish held batches, all or none."""
        return self.publish(one.batch.batch_id for one in held)

    def reject(self, held: Iterable[HeldBatch], *, reason: str) -> None:
        """Never publish these held batches. Repeating it is harmless.

        Raises:
            LedgerConflictError: one is published.
        """
        wanted = sorted({one.batch.batch_id for one in held})
        with self._append() as append:
            append.insert(
                "insert into batch_rejected (batch_id, ledger_seq, reason) values %s"
                " on conflict (batch_id) do nothing returning 1",
                [(batch_id, number, reason) for number, batch_id in append.numbered(wanted)],
            )
