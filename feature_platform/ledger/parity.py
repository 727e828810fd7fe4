"""What comparisons of online stores with the ledger found.

Rule: a sample proves nothing about the entities outside it. A difference stays open until the same entities, or all,
were compared again and found equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from feature_platform.ledger.connection import LedgerConnection, Row

_COLUMNS = "view, store, compared, differing, only_late, fraction, seed, outcomes, causes, seconds, checked_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRecord:
    """One comparison of a view in one store."""

    view: str
    store: str
    compared: int
    differing: int
    only_late: bool
    """A sync alone settles all that differs."""
    fraction: float
    seed: str
    outcomes: Mapping[str, int]
    causes: Mapping[str, int]
    seconds: float
    checked_at: datetime


class ParityLedger(LedgerConnection):
    """The part of the ledger that knows whether stores held what they should."""

    def record_parity(
        self,
        *,
        view: str,
        store: str,
        compared: int,
        differing: int,
        only_late: bool,
        fraction: float,
        seed: str,
        outcomes: Mapping[str, int],
        causes: Mapping[str, int],
        seconds: float,
    ) -> None:
        """Record what a comparison found."""
        with self._append() as append:
            append.insert(
                "insert into parity_checked (view, store, compared, differing, only_late, fraction, seed, outcomes,"
                " causes, seconds) values %s returning 1",
                [
                    (
                        view,
                        store,
                        compared,
                        differing,
                        only_late,
                        fraction,
                        seed,
                        json.dumps(dict(outcomes)),
                        json.dumps(dict(causes)),
                        seconds,
                    )
                ],
            )

    def last_parity(self, view_key: str, store: str) -> ParityRecord | None:
        """The last comparison; None if there was none."""
        rows = self._fetch(
            f"select {_COLUMNS} from parity_checked where view = %s and store = %s order by ledger_seq desc limit 1",
            (view_key, store),
        )
        return _read(rows[0]) if rows else None

    def open_difference(self, view_key: str, store: str) -> ParityRecord | None:
        """The newest comparison that found a difference which no later one has cleared; None if there is none.

        What is merely late is none: the next sync settles it. Cleared is a difference by a later comparison of the same
        sample, or of all entities, that found none. The same seed with a smaller fraction is a part of the sample.
        """
        rows = self._fetch(
            f"""
            select {_COLUMNS} from parity_checked found
            where view = %s and store = %s and differing > 0 and not only_late and not exists (
                select from parity_checked later
                where later.view = found.view and later.store = found.store and later.ledger_seq > found.ledger_seq
                  and (later.differing = 0 or later.only_late)
                  and (later.seed = found.seed and later.fraction >= found.fraction or later.fraction >= 1))
            order by ledger_seq desc limit 1
            """,
            (view_key, store),
        )
        return _read(rows[0]) if rows else None


def _read(row: Row) -> ParityRecord:
    return ParityRecord(
        view=row[0],
        store=row[1],
        compared=row[2],
        differing=row[3],
        only_late=row[4],
        fraction=row[5],
        seed=row[6],
        outcomes=row[7],
        causes=row[8],
        seconds=row[9],
        checked_at=row[10],
    )
