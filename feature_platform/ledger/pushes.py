"""Pushes: logged durably before an online store gets their rows, and what each store has acknowledged.

Rule: a push is numbered in the order of commits, and its rows can be read until they are in the lake and too old for
any store. An acknowledgement names the store's incarnation, so that what a lost store had is known to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from feature_platform.ledger.connection import LedgerConnection

_PUSHES_AT_A_TIME = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One push, with its rows."""

    number: int
    pushed_at: datetime
    arrow: bytes
    """An Arrow IPC stream: key columns, `event_timestamp`, features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """When a store had all rows of a push for the first time."""

    number: int
    at: datetime


class PushLedger(LedgerConnection):
    """The part of the ledger that knows pushes."""

    def record_push(
        self, view: str, arrow: bytes, *, row_count: int, newest_event: datetime, pushed_by: str
    ) -> tuple[int, datetime]:
        """Log a push; its number, and when it was logged. It is durable when this returns."""
        with self._append() as append:
            ((number, pushed_at),) = append.insert(
                "insert into pushes (view, row_count, newest_event, pushed_by) values %s"
                " returning ledger_seq, pushed_at",
                [(view, row_count, newest_event, pushed_by)],
            )
            append.insert("insert into push_rows (ledger_seq, arrow) values %s returning 1", [(number, arrow)])
        return int(number), pushed_at

    def acknowledge_pushes(self, store: str, numbers: Iterable[int], *, nonce: str, server_run_id: str) -> None:
        """Record that a store has written all rows of these pushes."""
        with self._append() as append:
            append.insert(
                "insert into push_acknowledged (push_seq, store, nonce, server_run_id) values %s returning 1",
                [(number, store, nonce, server_run_id) for number in numbers],
            )

    def last_push(self, view: str) -> int:
        """Number of the view's last push; 0 if it has none."""
        return int(self._fetch_value("select coalesce(max(ledger_seq), 0) from pushes where view = %s", (view,)))

    def pushes_to_write(
        self, view: str, store: str, *, nonce: str, server_run_id: str, newer_than: datetime | None
    ) -> Iterator[Push]:
        """The pushes that this incarnation of a store has not acknowledged, in order, a few at a time.

        Args:
            view: `name@version`.
            store: its name.
            nonce: of the store's push position.
            server_run_id: its process.
            newer_than: pushes without an event after this instant are left out: their rows are dead.
        """
        missing = (
            " and not exists (select from push_acknowledged a where a.push_seq = p.ledger_seq and a.store = %s"
            " and a.nonce = %s and a.server_run_id = %s)"
        )
        yield from self._pages(view, 0, newer_than, missing, (store, nonce, server_run_id))

    def living_pushes(self, view: str, *, newer_than: datetime | None) -> Iterator[Push]:
        """The pushes with an event after an instant (None: all), in order, a few at a time."""
        yield from self._pages(view, 0, newer_than, "", ())

    def pushes_after(self, view: str, number: int) -> Iterator[Push]:
        """The pushes behind one, in order, a few at a time."""
        yield from self._pages(view, number, None, "", ())

    def _pages(
        self, view: str, after: int, newer_than: datetime | None, condition: str, parameters: tuple[str, ...]
    ) -> Iterator[Push]:
        while True:
            rows = self._fetch(
                "select p.ledger_seq, p.pushed_at, r.arrow from pushes p join push_rows r using (ledger_seq)"
                " where p.view = %s and p.ledger_seq > %s and (%s::timestamptz is null or p.newest_event > %s)"
                f"{condition} order by p.ledger_seq limit {_PUSHES_AT_A_TIME}",
                (view, after, newer_than, newer_than, *parameters),
            )
            for number, pushed_at, arrow in rows:
                yield Push(number=number, pushed_at=pushed_at, arrow=bytes(arrow))
            if len(rows) < _PUSHES_AT_A_TIME:
                return
            after = rows[-1][0]

    def pushes_between(self, view: str, after: int, at_sequence: int, until: datetime) -> int:
        """How many pushes were logged behind `after`, up to a ledger sequence and an instant."""
        return int(
            self._fetch_value(
                "select count(*) from pushes where view = %s and ledger_seq > %s and ledger_seq <= %s"
                " and pushed_at <= %s",
                (view, after, at_sequence, until),
            )
        )

    def acknowledged(self, view: str, store: str, *, at_sequence: int) -> tuple[Acknowledged, ...]:
        """When a store had each push for the first time, as of one number of the ledger; by number."""
        rows = self._fetch(
            "select a.push_seq, min(a.acknowledged_at) from push_acknowledged a"
            " join pushes p on p.ledger_seq = a.push_seq"
            " where p.view = %s and a.store = %s and a.ledger_seq <= %s group by a.push_seq order by a.push_seq",
            (view, store, at_sequence),
        )
        return tuple(Acknowledged(number=number, at=at) for number, at in rows)

    def acknowledgers(self, store: str, numbers: Iterable[int]) -> dict[int, set[tuple[str, str]]]:
        """Which incarnations of a store (nonce, process) had all rows of these pushes; no entry if none had."""
        rows = self._fetch(
            "select push_seq, array_agg(distinct nonce || ' ' || server_run_id) from push_acknowledged"
            " where store = %s and push_seq = any(%s) group by push_seq",
            (store, list(numbers)),
        )
        return {number: {tuple(text.split(" ", 1)) for text in found} for number, found in rows}

    def forget_pushed_rows(self, view: str, *, through: int, older_than: datetime) -> int:
        """Delete the rows of pushes up to a number whose events all lie before an instant; how many pushes."""
        rows = self._fetch(
            "delete from push_rows r using pushes p where p.ledger_seq = r.ledger_seq and p.view = %s"
            " and p.ledger_seq <= %s and p.newest_event < %s returning 1",
            (view, through, older_than),
        )
        return len(rows)
