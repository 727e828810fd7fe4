"""What online stores said of themselves: the evidence from which it is derived when their content is known.

Rule: a look records what was seen and when it was asked for, never a conclusion. One that saw exactly what the store's
last row says is recorded as a repetition of that row, so a quiet store costs one small row per look.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from feature_platform.domain.serving_history import (
    Asked,
    Observation,
    ServedHistory,
    Sighting,
    SyncSpan,
    derive_history,
)
from feature_platform.ledger.connection import Append, LedgerConnection


class StoreLedger(LedgerConnection):
    """The part of the ledger that knows online stores."""

    def ask(self) -> Asked:
        """Say, just before a store is asked something, when that was: by the ledger's own number and clock."""
        ((sequence, at),) = self._fetch("select value, clock_timestamp() from ledger_counter")
        return Asked(sequence=sequence, at=at)

    def record_look(self, store: str, asked: Asked, seen: Mapping[str, Sighting], *, server_run_id: str) -> bool:
        """Record what a store said of some views; whether it was anything new."""
        with self._append() as append:
            return insert_observation(append, store, asked, seen, server_run_id=server_run_id)

    def stores(self) -> tuple[str, ...]:
        """Every store that a sync ever began to write, or that was ever looked at."""
        return tuple(
            row[0]
            for row in self._fetch("select store from sync_began union select store from store_observed order by 1")
        )

    def observations(self, view_key: str, store: str, *, at_sequence: int | None = None) -> tuple[Observation, ...]:
        """What a store said of a view, in the order of the records; repetitions are counted into what they repeat."""
        rows = self._fetch(_OBSERVATIONS, {"view": view_key, "store": store, "n": at_sequence})
        return tuple(
            Observation(
                ledger_seq=row[0],
                asked=Asked(sequence=row[1], at=row[2]),
                observed_at=row[3],
                good_until=row[4],
                server_run_id=row[5],
                seen=_sighting(row[6]),
                sync_id=row[7],
            )
            for row in rows
        )

    def served_history(self, view_key: str, store: str, *, at_sequence: int | None = None) -> ServedHistory:
        """What a store held of a view over time, as of one number of the ledger."""
        rows = self._fetch(
            "select s.sync_id::text, s.ledger_seq, s.began_at, s.to_position, e.ledger_seq, e.ended_at"
            " from sync_began s left join sync_ended e"
            " on e.sync_id = s.sync_id and (%(n)s::bigint is null or e.ledger_seq <= %(n)s)"
            " where s.view = %(view)s and s.store = %(store)s and (%(n)s::bigint is null or s.ledger_seq <= %(n)s)"
            " order by s.ledger_seq",
            {"view": view_key, "store": store, "n": at_sequence},
        )
        syncs = (
            SyncSpan(sync_id=r[0], began_seq=r[1], began_at=r[2], to_position=r[3], ended_seq=r[4], ended_at=r[5])
            for r in rows
        )
        return derive_history(self.observations(view_key, store, at_sequence=at_sequence), syncs)


_OBSERVATIONS = """
select o.ledger_seq, o.asked_seq, o.asked_at, o.observed_at,
       greatest(o.asked_at, (select max(again.asked_at) from store_observed again
                             where again.same_as = o.ledger_seq
                               and (%(n)s::bigint is null or again.ledger_seq <= %(n)s))),
       o.server_run_id, o.views -> %(view)s, o.sync_id::text
from store_observed o
where o.store = %(store)s and o.views ? %(view)s and (%(n)s::bigint is null or o.ledger_seq <= %(n)s)
order by o.ledger_seq
"""


def insert_observation(
    append: Append,
    store: str,
    asked: Asked,
    seen: Mapping[str, Sighting],
    *,
    server_run_id: str,
    sync_id: str | None = None,
) -> bool:
    """Append a sighting; whether it was new, or a repetition of the store's last row."""
    views = {view: _document(sighting) for view, sighting in sorted(seen.items())}
    last = append.fetch(
        "select ledger_seq, server_run_id, views, sync_id is null from store_observed"
        " where store = %s and views is not null order by ledger_seq desc limit 1",
        (store,),
    )
    if sync_id is None and last and tuple(last[0][1:]) == (server_run_id, views, True):
        append.insert(
            "insert into store_observed (store, asked_seq, asked_at, same_as) values %s returning 1",
            [(store, asked.sequence, asked.at, last[0][0])],
        )
        return False
    append.insert(
        "insert into store_observed (store, asked_seq, asked_at, server_run_id, views, sync_id) values %s returning 1",
        [(store, asked.sequence, asked.at, server_run_id, json.dumps(views), sync_id)],
    )
    return True


def _document(sighting: Sighting) -> dict[str, Any]:
    return {"nonce": sighting.nonce, "at_least" if sighting.at_least else "position": sighting.position}


def _sighting(document: Mapping[str, Any]) -> Sighting:
    at_least = "at_least" in document
    return Sighting(
        nonce=document["nonce"], position=document["at_least" if at_least else "position"], at_least=at_least
    )
