"""Comparing pushed rows: every one that the ledger says is alive with the store, then every one of the store.

Rule: of an entity the store must hold the row with the greatest (event time, push number) of the pushes that were
logged before it was looked at; a later one is right, too, if the ledger has it by then. So nothing has to stand still.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from feature_platform.domain.feature_view import FeatureView
from feature_platform.lake.push_tables import PUSH_NUMBER, PUSHED_AT
from feature_platform.ledger import Ledger
from feature_platform.ledger.pushes import Push
from feature_platform.online.codec import POSITION_BYTES, PREFIX_BYTES, Layout
from feature_platform.online.keys import PUSHED
from feature_platform.online.writable import WritableStore
from feature_platform.sync.encoding import encode_pushed, layout_of
from feature_platform.sync.parity import judging
from feature_platform.sync.parity.judging import Cause, Outcome
from feature_platform.sync.parity.report import Difference, Tally
from feature_platform.sync.parity.sampling import Sample
from feature_platform.sync.push.rows import chunks

IN_FLIGHT: Final = timedelta(seconds=5)
"""A push that was logged so lately may still be on its way: the store need not have it yet, but it may."""

_LOGGED: Final = "_logged_pushes"
_EXPECTED: Final = "_expected_pushes"
_KEYS_PER_LOOK: Final = 10_000
_KEYS_PER_CALL: Final = 1_000


class _Pair(NamedTuple):
    """What the store holds and what the ledger derives, both turned."""

    key: bytes
    held: bytes | None
    derived: bytes | None
    logged: bytes | None = None
    """The row that the ledger has of the push which the store's row names."""


@dataclass(kw_only=True)
class PushedComparison:
    """One comparison of a sample, on open connections."""

    lake: duckdb.DuckDBPyConnection
    ledger: Ledger
    online: WritableStore
    view: FeatureView
    store: str
    layouts: dict[int, Layout]
    """Those in which the store may hold rows, by id."""
    tally: Tally = field(default_factory=Tally)

    def run(self, sample: Sample) -> Tally:
        """Compare; the counts."""
        self._sample = sample
        self._layout = layout_of(self.view)
        # temporary tables of its own
        self._cursor = self.lake.cursor()
        with closing(self._cursor):
            self._cursor.execute(
                f"create temporary table {_LOGGED} (key blob, prefix blob, value blob, required boolean)"
            )
            self._through = self.ledger.last_push(self.view.key)
            self._now = self.ledger.now()
            newer_than = None if self.view.ttl is None else self._now - self.view.ttl
            self._take(self.ledger.living_pushes(self.view.key, newer_than=newer_than))
            for page in self._expected():
                self._judge(page)
            for keys in self._unexpected():
                self._judge([(key, None) for key in keys])
        return self.tally

    def _take(self, pushes: Iterable[Push]) -> None:
        """Remember the rows of these pushes that are in the sample, as the store would hold them."""
        settled = self.ledger.now() - IN_FLIGHT
        chosen = self._sample.predicate(self.view)
        for table, _, last in chunks(self.view, pushes):
            self._cursor.register("_pushes", table)
            for rows in self._cursor.execute(
                f"select * from _pushes where {chosen.sql}", chosen.parameters
            ).to_arrow_table().to_batches():  # fmt: skip
                numbers = rows.column(PUSH_NUMBER).to_numpy()
                encoded = encode_pushed(self.view, self._layout, numbers, rows)
                required = rows.column(PUSHED_AT).to_numpy(zero_copy_only=False) < np.datetime64(
                    settled.replace(tzinfo=None), "us"
                )
                part = pa.table({"key": encoded.keys, "value": encoded.values, "required": required})
                self._cursor.register("_part", part)
                self._cursor.execute(
                    f"insert into {_LOGGED} select key, unhex(left(hex(value), {2 * PREFIX_BYTES})), value, required"
                    " from _part"
                )
                self._cursor.unregister("_part")
            self._cursor.unregister("_pushes")
            self._through = max(self._through, last)

    def _expected(self) -> Iterator[list[tuple[bytes, bytes | None]]]:
        """Keys and the values that the store must hold, or later ones; some at a time."""
        # a value begins with event time and push number, which order as bytes
        self._cursor.execute(
            f"create temporary table {_EXPECTED} as select row_number() over () as number, key, value from"
            f" (select key, max(value) as value from {_LOGGED} where required group by key)"
        )
        first = 1
        while page := self._cursor.execute(
            f"select key, value from {_EXPECTED} where number between ? and ?", [first, first + _KEYS_PER_LOOK - 1]
        ).fetchall():
            yield page
            first += _KEYS_PER_LOOK

    def _unexpected(self) -> Iterator[list[bytes]]:
        """Keys of pushed rows in the store that no living push has; some at a time."""
        seen = "_seen_keys"
        self._cursor.execute(f"create temporary table {seen} as select distinct key from {_LOGGED}")
        for found in self._keys_of_store():
            self._cursor.register("_found", pa.table({"key": pa.array(found, pa.large_binary())}))
            # a scan may return a key twice
            new = f"select distinct key from _found anti join {seen} using (key)"
            keys = [key for (key,) in self._cursor.execute(new).fetchall()]
            self._cursor.execute(f"insert into {seen} {new}")
            self._cursor.unregister("_found")
            yield keys

    def _keys_of_store(self) -> Iterator[list[bytes]]:
        opening, ending = f"{self.view.key}:{{".encode(), b"}" + PUSHED
        found: list[bytes] = []
        for page in self.online.pages(opening + b"*" + ending, _KEYS_PER_CALL):
            found += (key for key in page if self._sample.holds(key[len(opening) : -len(ending)]))
            if len(found) >= _KEYS_PER_LOOK:
                yield found
                found = []
        yield found

    def _judge(self, page: Sequence[tuple[bytes, bytes | None]]) -> None:
        self._now = self.ledger.now()  # once for a page: it is a statement
        keys = [key for key, _ in page]
        stored: list[bytes | None] = []
        for first in range(0, len(keys), _KEYS_PER_CALL):
            stored += self.online.values(keys[first : first + _KEYS_PER_CALL])
        doubtful = []
        for (key, derived), held in zip(page, stored, strict=True):
            pair = _Pair(key, _turned(held), _turned(derived))
            if derived is not None and self._same(pair.held, pair.derived):
                self._count(pair.derived)
            else:
                doubtful.append(pair)
        if doubtful:
            self._explain([pair for pair in self._with_logged(doubtful) if not self._is_right(pair)])

    def _with_logged(self, pairs: Sequence[_Pair]) -> Iterator[_Pair]:
        """The same, with what the ledger knows by now of the rows that the store holds."""
        self._take(self.ledger.pushes_after(self.view.key, self._through))
        asked = {
            "key": pa.array([pair.key for pair in pairs], pa.large_binary()),
            "prefix": pa.array([_turned((pair.held or b"")[:PREFIX_BYTES]) for pair in pairs], pa.large_binary()),
        }
        self._cursor.register("_asked", pa.table(asked))
        found = dict(
            self._cursor.execute(f"select key, value from {_LOGGED} semi join _asked using (key, prefix)").fetchall()
        )
        self._cursor.unregister("_asked")
        for pair in pairs:
            yield pair._replace(logged=_turned(found.get(pair.key)))

    def _is_right(self, pair: _Pair) -> bool:
        """Whether it is no difference after all: a later push, or nothing that anybody is answered."""
        if judging.is_none(pair.held) and pair.derived is None:
            return True
        if self._is_dead(pair.held) and (pair.derived is None or self._is_dead(pair.derived)):
            if pair.derived is not None:
                self.tally.outcomes[Outcome.EXPIRED] += 1
            return True
        if pair.held is None or pair.logged is None or not self._same(pair.held, pair.logged):
            return False
        if pair.derived is not None and _order(pair.held) < _order(pair.derived):
            return False
        self._count(pair.held)
        return True

    def _explain(self, pairs: Sequence[_Pair]) -> None:
        if not pairs:
            return
        wanted = {number for pair in pairs if (number := _number(pair.derived))}
        acknowledgers = self.ledger.acknowledgers(self.store, wanted)
        begun = self.online.begin_pushes(self.view.key)
        for pair in pairs:
            kind = judging.outcome(pair.held, pair.derived, same=False, now=self._now, ttl=self.view.ttl)
            if kind not in judging.DIFFERENCES:
                self.tally.outcomes[kind] += 1
                continue
            by = acknowledgers.get(_number(pair.derived), set())
            reason, why = self._cause(pair, by, (begun.nonce, begun.server_run_id))
            held, derived = judging.prefix_of(pair.held), judging.prefix_of(pair.derived)
            difference = Difference(
                entity=pair.key[len(self.view.key) + 2 : -1 - len(PUSHED)].decode(errors="backslashreplace"),
                pushed=True,
                outcome=kind,
                cause=reason,
                why=why,
                stored_position=None,
                stored_event=held.event_timestamp if held else None,
                expected_event=derived.event_timestamp if derived else None,
            )
            # a replay is refused by a row that says it is later; nobody logged that one
            self.tally.add(difference, stray_key=pair.key if reason is Cause.UNKNOWN else None)

    def _cause(self, pair: _Pair, by: set[tuple[str, str]], incarnation: tuple[str, str]) -> tuple[Cause, str]:
        if pair.held is not None and judging.prefix_of(pair.held) is None:
            return Cause.UNKNOWN, "the value is damaged: too short, or with an impossible instant"
        explained = judging.is_none(pair.held) or self._is_dead(pair.held) or self._same(pair.held, pair.logged)
        if pair.derived is None or not explained:
            return Cause.UNKNOWN, "no push in the ledger has this row"
        number = _number(pair.derived)
        if incarnation in by:
            held = "nothing" if judging.is_none(pair.held) else f"push {_number(pair.held)}"
            return Cause.LOST_WRITE, f"the store acknowledged push {number}, and holds {held}"
        if by:
            return Cause.STORE_LOST, f"the store acknowledged push {number} before it lost its data"
        return Cause.LATE_SYNC, f"the store has not acknowledged push {number}"

    def _same(self, held: bytes | None, logged: bytes | None) -> bool:
        return logged is not None and judging.same(held, logged, self._layout, self.layouts)

    def _count(self, value: bytes | None) -> None:
        self.tally.outcomes[Outcome.EXPIRED if self._is_dead(value) else Outcome.MATCH] += 1

    def _is_dead(self, value: bytes | None) -> bool:
        prefix, ttl = judging.prefix_of(value), self.view.ttl
        if prefix is None or prefix.event_timestamp is None or ttl is None:
            return False
        return self._now - prefix.event_timestamp >= ttl


def _turned(value: Any) -> Any:
    """A pushed value with its number before the event time, as a batch's begins with the position; and back."""
    if value is None or len(value) < PREFIX_BYTES:
        return value
    return value[POSITION_BYTES:PREFIX_BYTES] + value[:POSITION_BYTES] + value[PREFIX_BYTES:]


def _order(value: bytes) -> bytes:
    """What decides which of two pushed rows counts, of a turned value."""
    return value[POSITION_BYTES:PREFIX_BYTES] + value[:POSITION_BYTES]


def _number(value: bytes | None) -> int:
    """The number of the push, of a turned value; 0 if there is none."""
    return int.from_bytes(value[:POSITION_BYTES], "big") if value is not None else 0
