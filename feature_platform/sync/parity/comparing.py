"""Comparing a sample: first every entity the lake knows with the store, then every key of the store with the lake.

Rule: streamed in both directions; of a part only the entities that differ are looked at again, to find out why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.online.codec import POSITION_BYTES, Layout
from feature_platform.online.writable import WritableStore
from feature_platform.sync import plan as plans
from feature_platform.sync.encoding import encode_keys, encode_values, layout_of
from feature_platform.sync.parity import judging, sampling
from feature_platform.sync.parity.judging import Evidence, Outcome, Places
from feature_platform.sync.parity.report import Difference, Tally
from feature_platform.sync.reading import Part, read_state, run, stream

_KEYS_PER_READ: Final = 1_000
_KEYS_PER_SCAN: Final = 1_000
_KNOWN: Final = "_known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """What the ledger says of a view: everything ever published; what is active at a position follows from it."""

    published: tuple[PublishedBatch, ...]

    def active(self, position: int) -> tuple[PublishedBatch, ...]:
        """Of each partition the batch opened last, among those published up to a position."""
        newest: dict[datetime, PublishedBatch] = {}
        for batch in self.published:
            held = newest.get(batch.partition.start)
            if batch.position <= position and (held is None or batch.seq > held.seq):
                newest[batch.partition.start] = batch
        return tuple(newest.values())

    def plan(self, position: int) -> plans.SyncPlan:
        """The plan that asserts everything as of a position."""
        published = tuple(batch for batch in self.published if batch.position <= position)
        return plans.plan_sync(0, position, published=published, superseded=(), active=self.active(position))


@dataclass(kw_only=True)
class Comparison:
    """One comparison of a sample, on open connections."""

    lake: duckdb.DuckDBPyConnection
    online: WritableStore
    view: FeatureView
    derivation: Derivation
    places: Places
    layouts: dict[int, Layout]
    """Those in which the store may hold rows, by id."""
    clock: Callable[[], datetime]
    progress: Callable[[int, int], None] | None = None
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self._layout = layout_of(self.view)
        self._plan = self.derivation.plan(self.places.head)
        # the reading of the state stays open on its own connection, and its result with it
        self._other = self.lake.cursor()

    def run(self, sample: sampling.Sample) -> Tally:
        """Compare; the counts."""
        with closing(self._other):
            self._other.execute(f"create or replace temporary table {_KNOWN} (key blob)")
            done = 0
            if self._plan.touched is not None:
                find = plans.find_touched(self.view, self._plan.touched, sample.predicate(self.view))
                with closing(read_state(self.lake, self.view, self._plan, find)) as parts:
                    for part in parts:
                        self._compare(part)
                        done += part.rows.num_rows
                        if self.progress:
                            self.progress(done, part.total)
            for found in self._keys_of_store(sample):
                self._compare_unknown(found)
        return self.tally

    def _compare(self, part: Part) -> None:
        row_keys = encode_keys(self.view, part.rows)
        self._other.register("_part", pa.table({"key": row_keys}))
        self._other.execute(f"insert into {_KNOWN} select key from _part")
        self._other.unregister("_part")
        expected: list[bytes | None] = [None] * len(row_keys) if part.absent else self._values(part.rows)
        self._judge(row_keys.to_pylist(), expected, known=True)

    def _compare_unknown(self, row_keys: list[bytes]) -> None:
        """Keys of the store that no batch of the ledger has."""
        self._other.register("_found", pa.table({"key": pa.array(row_keys, pa.large_binary())}))
        unknown = self._other.execute(f"select distinct key from _found anti join {_KNOWN} using (key)").fetchall()
        # a scan may return a key twice
        self._other.execute(f"insert into {_KNOWN} select distinct key from _found anti join {_KNOWN} using (key)")
        self._other.unregister("_found")
        # a tombstone is no row: a client is told the same as if it were not there
        self._judge([key for (key,) in unknown], [None] * len(unknown), known=False)

    def _judge(self, row_keys: list[bytes], expected: list[bytes | None], *, known: bool) -> None:
        stored = self._stored(row_keys)
        now = self.clock()
        differing: list[tuple[bytes, bytes | None, bytes | None, Outcome]] = []
        for key, held, derived in zip(row_keys, stored, expected, strict=True):
            alike = judging.same(held, derived, self._layout, self.layouts)
            kind = judging.outcome(held, derived, same=alike, now=now, ttl=self.view.ttl)
            if kind in judging.DIFFERENCES:
                differing.append((key, held, derived, kind))
            elif known:
                self.tally.outcomes[kind] += 1
        if differing:
            self._explain(differing, known=known)

    def _explain(self, differing: Sequence[tuple[bytes, bytes | None, bytes | None, Outcome]], *, known: bool) -> None:
        opening = len(self.view.key) + 2
        published: set[tuple[bytes, bytes]] = set()
        as_of_store: dict[bytes, bytes | None] = {}
        if known:
            entities = [key[opening:-1].decode() for key, *_ in differing]
            published = self._published(entities, [held for _, held, *_ in differing])
            if self.places.store < self.places.head:
                as_of_store = self._as_of_store(entities)
        now = self.clock()
        for key, held, derived, kind in differing:
            then = as_of_store.get(key)
            alike = judging.same(held, then, self._layout, self.layouts)
            before = judging.outcome(held, then, same=alike, now=now, ttl=self.view.ttl)
            evidence = Evidence(
                stored=held,
                as_of_store=known and before not in judging.DIFFERENCES,
                published=held is not None and (key, held[POSITION_BYTES:]) in published,
                known=known,
            )
            reason, why = judging.cause(evidence, self.places, self._layout)
            prefix, derived_prefix = judging.prefix_of(held), judging.prefix_of(derived)
            position = prefix.position if prefix else None
            difference = Difference(
                entity=key[opening:-1].decode(errors="backslashreplace"),
                outcome=kind,
                cause=reason,
                why=why,
                stored_position=position,
                stored_event=prefix.event_timestamp if prefix else None,
                expected_event=derived_prefix.event_timestamp if derived_prefix else None,
            )
            # no sync writes it, or is allowed to: the entity is not the ledger's, or the position is beyond it
            stray = not known or (held is not None and (position is None or position > self.places.head))
            self.tally.add(difference, stray_key=key if stray else None)

    def _published(self, entities: Sequence[str], stored: Sequence[bytes | None]) -> set[tuple[bytes, bytes]]:
        """Keys and values of the rows that batches have for these entities, at the event times the store has."""
        wanted = [
            (entity, prefix.event_timestamp)
            for entity, held in zip(entities, stored, strict=True)
            if (prefix := judging.prefix_of(held)) is not None and prefix.event_timestamp is not None
        ]
        if not wanted or self._plan.touched is None:
            return set()
        statement = sampling.published_rows(
            self.view, self._plan.touched, [entity for entity, _ in wanted], [event for _, event in wanted]
        )
        return {
            (key, value[POSITION_BYTES:])
            for rows in stream(self._other, self.view, statement)
            for key, value in zip(encode_keys(self.view, rows).to_pylist(), self._values(rows), strict=True)
        }

    def _as_of_store(self, entities: Sequence[str]) -> dict[bytes, bytes | None]:
        """The rows that the ledger derives for these entities at the store's own position."""
        plan = self.derivation.plan(self.places.store)
        if plan.touched is None:
            return {}
        self._other.execute(f"drop table if exists {plans.TOUCHED}")
        find = plans.find_touched(self.view, plan.touched, sampling.among(self.view, entities))
        with closing(read_state(self._other, self.view, plan, find)) as parts:
            return {
                key: value
                for part in parts
                if not part.absent
                for key, value in zip(
                    encode_keys(self.view, part.rows).to_pylist(), self._values(part.rows), strict=True
                )
            }

    def _values(self, rows: pa.RecordBatch) -> list[Any]:
        return list(encode_values(self.view, self._layout, self.places.head, rows).to_pylist())

    def _stored(self, row_keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for first in range(0, len(row_keys), _KEYS_PER_READ):
            found += self.online.values(row_keys[first : first + _KEYS_PER_READ])
        return found

    def _keys_of_store(self, sample: sampling.Sample) -> Iterator[list[bytes]]:
        """The view's keys in the store that are in the sample, some at a time; a key may come twice."""
        opening = f"{self.view.key}:{{".encode()
        for page in self.online.pages(opening + b"*", _KEYS_PER_SCAN):
            chosen = [key for key in page if key.endswith(b"}") and sample.holds(key[len(opening) : -1])]
            if chosen:
                yield chosen


def count_entities(lake: duckdb.DuckDBPyConnection, view: FeatureView, derivation: Derivation, head: int) -> int:
    """About how many entities the lake knows of a view."""
    touched = derivation.plan(head).touched
    if touched is None:
        return 0
    ((count,),) = run(lake, view, sampling.count_entities(view, touched)).fetchall()
    return int(count)
