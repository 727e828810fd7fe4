"""What became of the canary's values in each online store.

Rule: a value that was not read as it was written is recorded with the step that failed; whether that is a problem, and
since when, is derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.ledger.connection import LedgerConnection, Row

_COLUMNS = "store, batch_id::text, written_at, online_at, read_at, failed_at, failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryRead:
    """One value in one store."""

    store: str
    batch_id: str | None
    """The batch that brought it; None if none could be opened."""
    written_at: datetime
    """Its event time."""
    online_at: datetime | None = None
    """When the sync had ended."""
    read_at: datetime | None = None
    """When a client had the answer."""
    failed_at: str | None = None
    """`write`, `sync`, `read` or `compare`; None if the value was read as it was written."""
    failure: str | None = None
    """What differed, or why there is no answer."""

    @property
    def is_ok(self) -> bool:
        """Whether the value was read as it was written."""
        return self.failed_at is None

    @property
    def took(self) -> timedelta | None:
        """From the value's event time to the answer."""
        return None if self.read_at is None else self.read_at - self.written_at


class CanaryLedger(LedgerConnection):
    """The part of the ledger that knows whether a value came through."""

    def record_canary(self, read: CanaryRead) -> None:
        """Record what became of a value in a store."""
        with self._append() as append:
            append.insert(
                "insert into canary_reads (store, batch_id, written_at, online_at, read_at, failed_at, failure)"
                " values %s returning 1",
                [
                    (
                        read.store,
                        read.batch_id,
                        read.written_at,
                        read.online_at,
                        read.read_at,
                        read.failed_at,
                        read.failure,
                    )
                ],
            )

    def last_canary(self, store: str) -> CanaryRead | None:
        """What became of the last value in a store; None if there was none."""
        return self._first("order by ledger_seq desc", store)

    def last_good_canary(self, store: str) -> CanaryRead | None:
        """The newest value that was read from a store as it was written; None if none ever was."""
        return self._first("and failed_at is null order by written_at desc", store)

    def _first(self, which: str, store: str) -> CanaryRead | None:
        rows = self._fetch(f"select {_COLUMNS} from canary_reads where store = %s {which} limit 1", (store,))
        return _read(rows[0]) if rows else None


def _read(row: Row) -> CanaryRead:
    return CanaryRead(
        store=row[0],
        batch_id=row[1],
        written_at=row[2],
        online_at=row[3],
        read_at=row[4],
        failed_at=row[5],
        failure=row[6],
    )
