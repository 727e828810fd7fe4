"""Modes `served` and `auto` against a simulated store: what readers really read, and what the ledger recorded of it.

A tale is a list of things that happen, one per instant: batches are opened and published, syncs begin, write entity by
entity, end or die, the store is emptied or restarted without its last writes, somebody looks; and after each of them
everybody reads. The store is a dictionary that follows the sync protocol's rules; what a read returned is the truth the
answers are held against. Nothing here is shared with the code under test but the names of records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from online_support import make_view
from thoroughness import examples

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import OutagePolicy, ViewSelection
from feature_platform.domain.serving_history import Asked, Observation, Sighting, SyncSpan, derive_history
from feature_platform.domain.training_set import Mode
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, Partition
from feature_platform.lake.sql import batches_table
from feature_platform.offline import answering, served
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.answering import answer_view
from feature_platform.offline.labels import load_labels
from feature_platform.offline.modes import Outages
from feature_platform.offline.output import name_origins, name_output, training_set_sql
from feature_platform.offline.question import Evidence, Question

HOUR = timedelta(hours=1)
TICK = timedelta(minutes=10)
"""Between one thing that happens and the next; rows lie on the same lattice, so labels meet ttl exactly."""
T0 = datetime(2026, 3, 1, tzinfo=UTC)
BEGIN = T0 - 3 * HOUR
PARTITIONS = 3
ENTITIES = ("a", "b")

Value = tuple[float | None, datetime] | None
"""Of an entity: feature and event time; None if there is no row."""


@dataclass(frozen=True)
class Row:
    entity: str
    event_timestamp: datetime
    x: float | None


@dataclass
class Opened:
    seq: int
    partition: int
    rows: tuple[Row, ...]
    position: int | None = None


@dataclass
class Writer:
    """A sync in progress: what it has left to write."""

    sync_id: str
    nonce: str
    run: str
    to: int
    left: list[tuple[str, Value]]


@dataclass(frozen=True)
class Read:
    entity: str
    at: datetime
    value: Value
    """What the reader got, dead or alive."""


@dataclass
class World:
    """The store as it is, and the ledger's records of it."""

    ttl: timedelta | None
    batches: list[Opened] = field(default_factory=list)
    head: int = 0
    ledger_seq: int = 0
    store: dict[str, tuple[int, Value]] = field(default_factory=dict)
    nonce: str | None = None
    position: int = 0
    run: str = "r0"
    images: list[tuple[dict[str, tuple[int, Value]], str | None, int]] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    syncs: dict[str, SyncSpan] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    now: datetime = T0
    lost: bool = False

    def tick(self) -> datetime:
        self.now += TICK
        return self.now

    def record(self) -> int:
        self.ledger_seq += 1
        return self.ledger_seq

    # -- what happens ---------------------------------------------------------------------------------------------

    def open(self, partition: int, rows: tuple[Row, ...]) -> None:
        self.batches.append(Opened(seq=self.record(), partition=partition, rows=rows))

    def publish(self, which: int) -> None:
        waiting = [batch for batch in self.batches if batch.position is None]
        if waiting:
            self.head += 1
            waiting[which % len(waiting)].position = self.head
            self.record()

    def state(self, position: int) -> dict[str, Value]:
        """By the book: of each partition the batch opened last, of each entity its newest row."""
        active: dict[int, Opened] = {}
        for batch in self.batches:
            if batch.position is not None and batch.position <= position:
                current = active.get(batch.partition)
                if current is None or current.seq < batch.seq:
                    active[batch.partition] = batch
        found: dict[str, Value] = dict.fromkeys(ENTITIES)
        for batch in active.values():
            for row in batch.rows:
                best = found[row.entity]
                if best is None or row.event_timestamp > best[1]:
                    found[row.entity] = (row.x, row.event_timestamp)
        return found

    def begin(self, order: bool) -> None:
        asked = Asked(sequence=self.ledger_seq, at=self.now)
        if self.nonce is None:
            self.nonce = f"n{self.ledger_seq}-{len(self.observations)}"
        if self.position == self.head and not self.lost:
            return
        seen = Sighting(nonce=self.nonce, position=self.position)
        at = self.tick()
        number = self.record()
        sync_id = f"s{number}"
        self.syncs[sync_id] = SyncSpan(
            sync_id=sync_id, began_seq=number, began_at=at, to_position=self.head, ended_seq=None, ended_at=None
        )
        self._observe(asked, seen, sync_id, self.run)
        # all entities: a superset of those that are touched is as good
        self.writers.append(
            Writer(
                sync_id=sync_id,
                nonce=self.nonce,
                run=self.run,
                to=self.head,
                left=sorted(self.state(self.head).items(), reverse=order),
            )
        )

    def write(self, which: int) -> None:
        if self.writers:
            self._write(self.writers[which % len(self.writers)])

    def _write(self, writer: Writer) -> None:
        if writer.left:
            self.images.append((dict(self.store), self.nonce, self.position))
            entity, value = writer.left.pop(0)
            if entity not in self.store or self.store[entity][0] <= writer.to:
                self.store[entity] = (writer.to, value)

    def end(self, which: int) -> None:
        if not self.writers:
            return
        writer = self.writers.pop(which % len(self.writers))
        while writer.left:
            self.tick()
            self._write(writer)
            for entity in ENTITIES:
                self.read(entity)
        asked = Asked(sequence=self.ledger_seq, at=self.now)
        if (writer.nonce, writer.run) != (self.nonce, self.run):
            return  # refused: the store is another one
        self.images.append((dict(self.store), self.nonce, self.position))
        self.position = max(self.position, writer.to)
        self.lost = False
        at = self.tick()
        number = self.record()
        span = self.syncs[writer.sync_id]
        self.syncs[writer.sync_id] = SyncSpan(
            sync_id=span.sync_id,
            began_seq=span.began_seq,
            began_at=span.began_at,
            to_position=span.to_position,
            ended_seq=number,
            ended_at=at,
        )
        seen = Sighting(nonce=writer.nonce, position=writer.to, at_least=True)
        self._observe(asked, seen, writer.sync_id, writer.run)

    def crash(self, which: int) -> None:
        if self.writers:
            self.writers.pop(which % len(self.writers))

    def look(self) -> None:
        asked = Asked(sequence=self.ledger_seq, at=self.now)
        seen = Sighting(nonce=self.nonce, position=self.position)
        run = self.run
        self.tick()
        self.record()
        self._observe(asked, seen, None, run)

    def _observe(self, asked: Asked, seen: Sighting, sync_id: str | None, run: str) -> None:
        last = self.observations[-1] if self.observations else None
        if last and sync_id is None and last.sync_id is None and (last.seen, last.server_run_id) == (seen, run):
            self.observations[-1] = Observation(
                ledger_seq=last.ledger_seq,
                asked=last.asked,
                observed_at=last.observed_at,
                good_until=asked.at,
                server_run_id=run,
                seen=seen,
                sync_id=None,
            )
            return
        self.observations.append(
            Observation(
                ledger_seq=self.ledger_seq,
                asked=asked,
                observed_at=self.now,
                good_until=asked.at,
                server_run_id=run,
                seen=seen,
                sync_id=sync_id,
            )
        )

    def flush(self) -> None:
        self.store, self.nonce, self.position, self.lost = {}, None, 0, True

    def restart(self, back: int) -> None:
        """Another process, with the data as it was some writes ago."""
        if back and self.images:
            store, nonce, position = self.images[-min(back, len(self.images))]
            if nonce == self.nonce:
                self.store, self.position, self.lost = dict(store), position, True
        self.run = f"r{self.ledger_seq}-{len(self.reads)}-{self.now:%H%M}"

    def read(self, entity: str) -> None:
        held = self.store.get(entity)
        self.reads.append(Read(entity=entity, at=self.now, value=held[1] if held else None))

    # -- what is expected -----------------------------------------------------------------------------------------

    def alive(self, value: Value, at: datetime) -> Value:
        if value is None or (self.ttl is not None and at - value[1] >= self.ttl):
            return None
        return value

    def possible(self, read: Read) -> tuple[Value, set[Value]]:
        """What a store that loses nothing held by the records: the settled value, and all that it may have been."""
        ended = [s.to_position for s in self.syncs.values() if s.ended_at is not None and s.ended_at <= read.at]
        settled = max(ended, default=0)
        begun = {s.to_position for s in self.syncs.values() if s.began_at <= read.at and s.to_position > settled}
        values = {k: self.alive(self.state(k)[read.entity], read.at) for k in {settled, *begun}}
        return values[settled], set(values.values())


EVENTS = {
    "ttl": lambda world, ttl: setattr(world, "ttl", ttl),
    "open": lambda world, partition, rows: world.open(partition, rows),
    "publish": World.publish,
    "begin": World.begin,
    "write": World.write,
    "end": World.end,
    "crash": World.crash,
    "look": World.look,
    "flush": World.flush,
    "restart": World.restart,
    "release": lambda world, partition, rows: (world.open(partition, rows), world.publish(-1)),
    "sync": lambda world: (world.begin(order=False), world.end(-1)),
    "wait": lambda world, ticks: [world.tick() for _ in range(ticks)],
}

rows_of = st.lists(
    st.tuples(st.sampled_from(ENTITIES), st.integers(1, 6), st.sampled_from([None, 1.0, 2.0, 3.0])),
    max_size=3,
    unique_by=lambda row: row[:2],
)
small = st.integers(0, 3)
opened = st.tuples(st.just("open"), st.integers(0, PARTITIONS - 1), rows_of)
released = st.tuples(st.just("release"), st.integers(0, PARTITIONS - 1), rows_of)
common = [
    opened,
    st.tuples(st.just("publish"), small),
    st.tuples(st.just("begin"), st.booleans()),
    st.tuples(st.just("begin"), st.booleans()),
    st.tuples(st.just("write"), small),
    st.tuples(st.just("end"), small),
    st.tuples(st.just("crash"), small),
    st.tuples(st.just("look")),
    released,
    released,
    *[st.tuples(st.just("sync"))] * 4,
    st.tuples(st.just("wait"), st.integers(1, 12)),
]
losses = [st.tuples(st.just("flush")), st.tuples(st.just("restart"), st.integers(0, 4))]


@st.composite
def worlds(draw: st.DrawFn, *, loses: bool) -> World:
    world = World(ttl=draw(st.one_of(st.none(), st.integers(2, 60).map(lambda n: n * TICK))))
    world.look()
    if draw(st.integers(0, 3)):
        happen(world, draw(released))
        happen(world, ("sync",))
    for event in draw(st.lists(st.one_of(*common, *(losses if loses else [])), min_size=8, max_size=20)):
        happen(world, event)
    world.tick()
    world.look()
    world.look()
    return world


# what random tales come upon too seldom
TOLD: dict[str, list[tuple[Any, ...]]] = {
    "a correction loses a row, and an older one shows again": [
        ("release", 0, [("a", 2, 1.0)]), ("release", 1, [("a", 3, 2.0)]), ("sync",), ("release", 1, []),
        ("begin", False), ("wait", 2), ("end", 0), ("wait", 2),
    ],
    "a correction moves a row back in time": [
        ("release", 1, [("a", 5, 1.0)]), ("sync",), ("release", 1, [("a", 2, 2.0)]), ("sync",), ("wait", 2),
    ],
    "a value dies while nobody writes": [
        ("ttl", 4 * HOUR), ("release", 2, [("a", 6, 1.0)]), ("sync",), *[("wait", 1)] * 30,
    ],
    "a sync in flight writes the same value of another instant": [
        ("release", 1, [("a", 2, 1.0)]), ("sync",), ("release", 1, [("a", 5, 1.0)]), ("begin", False), ("crash", 0),
        ("wait", 2),
    ],
    "the later of two syncs in flight writes what is there": [
        ("release", 1, [("a", 2, 1.0)]), ("sync",), ("release", 1, [("a", 2, 2.0)]), ("begin", False), ("crash", 0),
        ("release", 1, [("a", 2, 1.0)]), ("begin", False), ("wait", 2), ("end", 0), ("wait", 2),
    ],
}  # fmt: skip
LOST: dict[str, list[tuple[Any, ...]]] = {
    "emptied and built again": [
        ("release", 1, [("a", 2, 1.0)]), ("sync",), ("look",), ("flush",), ("wait", 3), ("sync",), ("wait", 1),
    ],
    "restarted without its last sync": [
        ("release", 1, [("a", 2, 1.0)]), ("sync",), ("release", 1, [("a", 2, 2.0)]), ("sync",), ("look",),
        ("restart", 4), ("wait", 2), ("look",), ("wait", 1), ("sync",), ("wait", 1),
    ],
}  # fmt: skip


def tell(events: list[tuple[Any, ...]]) -> World:
    world = World(ttl=None)
    world.look()
    for event in events:
        happen(world, event)
    world.tick()
    world.look()
    world.look()
    return world


def happen(world: World, event: tuple[Any, ...]) -> None:
    world.tick()
    name, *arguments = event
    if name in ("open", "release"):
        partition, rows = arguments
        start = BEGIN + partition * HOUR
        made = tuple(Row(entity=entity, event_timestamp=start + n * TICK, x=x) for entity, n, x in rows)
        arguments = [partition, made]
    EVENTS[name](world, *arguments)
    for entity in ENTITIES:  # at this very instant, which may be that of a record
        world.read(entity)


# --- the code under test, on plain tables ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    x: float | None
    provenance: str
    event_timestamp: datetime | None


def published(world: World) -> tuple[PublishedBatch, ...]:
    return tuple(
        PublishedBatch(
            batch_id=f"b{batch.seq}",
            seq=batch.seq,
            view="v@1",
            position=batch.position,
            ledger_seq=batch.seq,
            partition=Partition(
                start=BEGIN + batch.partition * HOUR, end=BEGIN + (batch.partition + 1) * HOUR, grain=Grain.HOUR
            ),
            row_count=len(batch.rows),
            source_watermark=None,
            opened_at=T0,
            computed_at=T0,
            published_at=T0,
        )
        for batch in sorted((b for b in world.batches if b.position is not None), key=lambda b: b.position or 0)
    )


def active(batches: tuple[PublishedBatch, ...]) -> tuple[PublishedBatch, ...]:
    newest: dict[datetime, PublishedBatch] = {}
    for batch in sorted(batches, key=lambda one: one.seq):
        newest[batch.partition.start] = batch
    return tuple(newest.values())


def answers(
    connection: duckdb.DuckDBPyConnection,
    world: World,
    mode: Mode,
    plan: pit.Plan,
    *,
    outages: Outages | None = None,
    policy: OutagePolicy = OutagePolicy.NULL,
    retired: Collection[int] = (),
) -> list[Given]:
    """Ask for every read of the tale, as labels. Of the batches `retired` (their `seq`) the rows are gone."""
    view = make_view("v", entities={"e": ColumnType.VARCHAR}, features={"x": ColumnType.DOUBLE}, ttl=world.ttl)
    connection.execute("drop schema if exists lake.batches cascade; create schema lake.batches")
    for (name,) in connection.execute("from (show tables)").fetchall():
        connection.execute(f'drop table "{name}"')
    connection.execute(
        f"create table {batches_table(view)} (e varchar, event_timestamp timestamptz, x double,"
        " _batch_id varchar, _partition_start timestamptz)"
    )
    rows = [
        [row.entity, row.event_timestamp, row.x, f"b{batch.seq}", BEGIN + batch.partition * HOUR]
        for batch in world.batches
        if batch.seq not in retired
        for row in batch.rows
    ]
    if rows:
        holes = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
        connection.execute(
            f"insert into {batches_table(view)} values {holes}", [value for row in rows for value in row]
        )
    labels = pa.table(
        {
            "e": pa.array([read.entity for read in world.reads], pa.string()),
            "event_timestamp": pa.array([read.at for read in world.reads], pa.timestamp("us", "UTC")),
        }
    )
    loaded = load_labels(connection, labels, views=[view], timestamp_column="event_timestamp")
    batches = tuple(replace(one, retired_seq=99) if one.seq in retired else one for one in published(world))
    answer = answer_view(
        connection,
        Question(
            view=view,
            features=("x",),
            labels=loaded,
            timestamp_column="event_timestamp",
            mode=mode,
            plan=plan,
            answer="answer_0",
            has_origins=True,
            outages=outages,
            outage_policy=policy,
        ),
        Evidence(
            active=active(batches),
            published=batches,
            history=derive_history(world.observations, world.syncs.values()),
        ),
    )
    selection = ViewSelection(view="v", version=1, features=("x",))
    columns = name_output([selection], loaded.columns)
    named = name_origins([selection], answer.origins, [*loaded.columns, "x"])
    sql = training_set_sql(
        loaded.columns, columns, {"v@1": answer.table}, origins=[*zip(named, answer.origins, strict=True)]
    )
    table = connection.execute(sql).to_arrow_table().to_pylist()
    counted = Counter(row["v__provenance"] for row in table)
    counts = answer.counts
    assert (counts.modelled, counts.served_exact, counts.served_ambiguous, counts.unknown, counts.outage) == tuple(
        counted[name] for name in ("modelled", "served_exact", "served_ambiguous", "unknown", "outage")
    )
    return [Given(x=r["x"], provenance=r["v__provenance"], event_timestamp=r["v__event_timestamp"]) for r in table]


def value_of(given: Given) -> Value:
    return None if given.event_timestamp is None else (given.x, given.event_timestamp)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as opened:
        opened.execute("set TimeZone = 'UTC'; set threads = 1; attach ':memory:' as lake")
        yield opened


QUICKLY = {"deadline": None, "suppress_health_check": list(HealthCheck)}
PLANS = [(pit.Plan.HASH, 64), (pit.Plan.ONE_SCAN, 64), (pit.Plan.ASOF, 64), (pit.Plan.ASOF, 0)]


def faults(world: World, given: list[Given], *, loses: bool) -> list[str]:
    """What is wrong with the answers of mode `served`."""
    found = []
    for read, got in zip(world.reads, given, strict=True):
        truth = world.alive(read.value, read.at)
        settled, possible = world.possible(read)
        match got.provenance:
            case "served_exact" if value_of(got) != truth:
                found.append(f"exact, but {truth} was read and {value_of(got)} is said: {read}")
            case "served_ambiguous" if truth not in possible:
                found.append(f"ambiguous, but {truth} is none of {possible}: {read}")
            case "served_ambiguous" if value_of(got) != settled:
                found.append(f"ambiguous, but answered with {value_of(got)}, not {settled}: {read}")
            case "served_ambiguous" if len(possible) == 1:
                found.append(f"ambiguous, though nothing but {possible} was possible: {read}")
            case "unknown" if value_of(got) is not None or got.x is not None:
                found.append(f"unknown, with a value: {read}")
            case "unknown" if not loses:
                found.append(f"unknown, though the store lost nothing and was seen before and after: {read}")
            case "served_exact" if not loses and len(possible) > 1:
                found.append(f"exact, though {possible} were possible: {read}")
            case "modelled":
                found.append(f"modelled: {read}")
    return found


@settings(max_examples=examples(20), **QUICKLY)
@given(world=worlds(loses=False))
def test_what_was_read_is_what_served_says(connection, world: World) -> None:
    for plan, threshold in PLANS:
        connection.execute(f"set asof_loop_join_threshold = {threshold}")
        assert faults(world, answers(connection, world, Mode.SERVED, plan), loses=False) == [], plan


@settings(max_examples=examples(30), **QUICKLY)
@given(world=worlds(loses=True))
def test_of_a_store_that_loses_data_nothing_wrong_is_said(connection, world: World) -> None:
    for plan, threshold in PLANS:
        connection.execute(f"set asof_loop_join_threshold = {threshold}")
        assert faults(world, answers(connection, world, Mode.SERVED, plan), loses=True) == [], plan


@settings(max_examples=40, **QUICKLY)
@given(world=worlds(loses=False), data=st.data())
def test_what_was_retired_is_unknown_and_changes_nothing_else(connection, world: World, data: st.DataObject) -> None:
    batches = published(world)
    superseded = sorted({batch.seq for batch in batches} - {batch.seq for batch in active(batches)})
    retired = data.draw(st.sets(st.sampled_from(superseded))) if superseded else set()
    of_partition = {b.seq: b.partition for b in world.batches}
    rows = {b.seq: b.rows for b in world.batches}
    for plan, threshold in PLANS:
        connection.execute(f"set asof_loop_join_threshold = {threshold}")
        before = answers(connection, world, Mode.SERVED, plan)
        after = answers(connection, world, Mode.SERVED, plan, retired=retired)
        for read, was, now in zip(world.reads, before, after, strict=True):
            # the store may have held living rows of a retired batch
            ended = [s.to_position for s in world.syncs.values() if s.ended_at is not None and s.ended_at <= read.at]
            settled = max(ended, default=0)
            begun = {s.to_position for s in world.syncs.values() if s.began_at <= read.at and s.to_position > settled}
            held = {
                seq
                for seq in retired
                for k in {settled, *begun}
                if is_part_of(seq, k, batches)
                and rows[seq]
                and (world.ttl is None or read.at - (BEGIN + (of_partition[seq] + 1) * HOUR) < world.ttl)
            }
            assert now == (Given(x=None, provenance="unknown", event_timestamp=None) if held else was), (read, plan)


def is_part_of(seq: int, position: int, batches: tuple[PublishedBatch, ...]) -> bool:
    """Whether `state(position)` has the batch."""
    (mine,) = (batch for batch in batches if batch.seq == seq)
    rivals = [b.seq for b in batches if b.partition == mine.partition and b.position <= position]
    return mine.position <= position and max(rivals) == seq


@pytest.mark.parametrize("name", [*TOLD, *LOST])
def test_tales_by_hand(connection, name: str) -> None:
    world = tell((TOLD | LOST)[name])
    for plan in pit.Plan:
        given = answers(connection, world, Mode.SERVED, plan)
        assert faults(world, given, loses=name in LOST) == [], plan
        assert "served_exact" in {one.provenance for one in given}


@settings(max_examples=examples(12), **QUICKLY)
@given(world=worlds(loses=True))
def test_auto_is_modelled_before_the_view_was_live_and_served_since(connection, world: World) -> None:
    ends = [sync.ended_at for sync in world.syncs.values() if sync.ended_at is not None]
    live = min(ends, default=None)
    history = derive_history(world.observations, world.syncs.values())
    for plan in pit.Plan:
        auto = answers(connection, world, Mode.AUTO, plan)
        as_served = answers(connection, world, Mode.SERVED, plan)
        as_modelled = answers(connection, world, Mode.MODELLED, plan)
        for read, a, s, m in zip(world.reads, auto, as_served, as_modelled, strict=True):
            # a sync that ended in a store that was gone does not make a view live
            since = history.live_since
            assert since is None or live is None or since >= live
            assert a == (s if since is not None and read.at >= since else m)
            assert m.provenance == "modelled"


@settings(max_examples=examples(12), **QUICKLY)
@given(world=worlds(loses=True))
def test_outages_are_replayed_or_undone(connection, world: World) -> None:
    history = derive_history(world.observations, world.syncs.values())

    def outage_of(read: Read) -> datetime | None:
        """The last instant before it."""
        stretches = [i.since for i in history.incidents if i.since < read.at and (not i.until or read.at < i.until)]
        while stretches:
            before = [i.since for i in history.incidents if i.since < min(stretches) and i.until > min(stretches)]
            if not before:
                return min(stretches)
            stretches += before
        return None

    plain = answers(connection, world, Mode.AUTO, HASH)
    modelled = answers(connection, world, Mode.MODELLED, HASH)
    for plan in pit.Plan:
        undone = answers(connection, world, Mode.AUTO, plan, outages=Outages.NEVER_HAPPENED)
        nulled = answers(connection, world, Mode.AUTO, plan, outages=Outages.AS_RECORDED)
        stale = answers(connection, world, Mode.AUTO, plan, outages=Outages.AS_RECORDED, policy=OutagePolicy.STALE)
        both = answers(connection, world, Mode.MODELLED, plan, outages=Outages.AS_RECORDED)
        for read, p, m, u, n, s, b in zip(world.reads, plain, modelled, undone, nulled, stale, both, strict=True):
            outage = outage_of(read)
            if outage is None:
                assert (u, n, s, b) == (p, p, p, m)
                continue
            assert u == m
            assert n == b == Given(x=None, provenance="outage", event_timestamp=None)
            assert s.provenance == "outage"
            if history.live_since is not None and history.live_since <= read.at:
                before = world.state(history.settled_at(outage))[read.entity]
                assert value_of(s) == world.alive(before, read.at)


# --- wrong joins: each must be caught --------------------------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def rewriting(old: str, new: str, *, only: str = "") -> Patch:
    """Change the statements that are run."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        run = answering._Answering._run

        def wrong(self: Any, *statements: pit.Statement) -> None:
            run(
                self,
                *(replace(s, sql=s.sql.replace(old, new)) if only in s.sql else s for s in statements),
            )

        monkeypatch.setattr(answering._Answering, "_run", wrong)

    return patch


def batches_seen(change: Callable[[served.SeenBatch], served.SeenBatch]) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        seen = served.seen_batches
        monkeypatch.setattr(served, "seen_batches", lambda *a, **k: tuple(change(one) for one in seen(*a, **k)))

    return patch


def history_says(change: Callable[[Any], Any]) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{__name__}.derive_history", lambda *a: change(derive_history_right(*a)))

    return patch


derive_history_right = derive_history
HASH, ASOF = pit.Plan.HASH, pit.Plan.ASOF


def changed(**what: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda one: replace(one, **{name: change(one) for name, change in what.items()})


def syncs_end_as_they_begin(history: Any) -> Any:
    began = {sync.to_position: sync.began_at for sync in reversed(history.syncs)}
    return changed(ends=lambda h: tuple((began[position], position) for _, position in h.ends))(history)


MUTANTS: dict[str, tuple[pit.Plan, bool, Patch]] = {
    "seen from its publishing on": (HASH, False, batches_seen(changed(seen_from=lambda _: T0))),
    "never superseded": (HASH, False, batches_seen(changed(seen_until=lambda _: served.FOREVER))),
    "seen until inclusive": (HASH, False, rewriting("l._at < r._seen_until", "l._at <= r._seen_until")),
    "seen from exclusive": (HASH, False, rewriting("r._seen_from <= l._at", "r._seen_from < l._at")),
    "seen from exclusive (asof)": (ASOF, False, rewriting("l._at >= r._seen_from", "l._at > r._seen_from")),
    "ttl inclusive": (
        HASH,
        False,
        rewriting("r.event_timestamp > l._dead_until", "r.event_timestamp >= l._dead_until"),
    ),
    "ttl inclusive (asof)": (
        ASOF,
        False,
        rewriting("r.event_timestamp > l._dead_until", "r.event_timestamp >= l._dead_until"),
    ),
    "the last seen wins (asof)": (ASOF, False, rewriting("max(event_timestamp) over", "last(event_timestamp) over")),
    "ttl ignored": (HASH, False, rewriting("r.event_timestamp > l._dead_until", "true")),
    "oldest row wins": (HASH, False, rewriting("max(r.event_timestamp)", "min(r.event_timestamp)")),
    "a batch whose rows vanished forgotten (asof)": (ASOF, False, rewriting("b.newest is null or ", "")),
    "a row that moved back forgotten (asof)": (ASOF, False, rewriting(" or b.newest < a.newest", "")),
    "syncs in flight ignored": (HASH, False, history_says(changed(syncs=lambda _: ()))),
    "every moment in flight is ambiguous": (
        HASH,
        False,
        rewriting(" where possible", " where true or possible", only="ambiguous"),
    ),
    "only the last sync in flight counts": (HASH, False, rewriting("unnest(m.candidates)", "m.candidates[-1]")),
    "ambiguous compared without event time": (
        HASH,
        False,
        rewriting(" or possible._event_timestamp is distinct from settled._event_timestamp", ""),
    ),
    "ambiguous compared with =": (HASH, False, rewriting("is distinct from settled", "<> settled")),
    "a sync counts from its beginning": (HASH, False, history_says(syncs_end_as_they_begin)),
    "incidents ignored": (
        HASH,
        True,
        history_says(changed(known=lambda h: tuple(changed(since=lambda _: None)(k) for k in h.known[-1:]))),
    ),
    "restarts and losses are no end of what is known": (
        HASH,
        True,
        history_says(
            lambda h: (
                changed(known=lambda _: (changed(until=lambda _: h.known[-1].until)(h.known[0]),))(h) if h.known else h
            )
        ),
    ),
    "a modelled row for an unknown one": (HASH, True, rewriting("anti join", "semi join", only="is_unknown")),
}


@pytest.fixture(scope="module")
def corpus() -> dict[bool, list[World]]:
    collected = {False: [*map(tell, TOLD.values())], True: [*map(tell, LOST.values())]}

    @settings(
        max_examples=120,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data(), loses=st.booleans())
    def collect(data: st.DataObject, loses: bool) -> None:
        world = data.draw(worlds(loses=loses))
        if world.reads and world.syncs:
            collected[loses].append(world)

    collect()
    return collected


@contextmanager
def patched(patch: Patch):
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch)
        yield


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_join_is_caught(connection, corpus, name: str) -> None:
    plan, loses, patch = MUTANTS[name]
    connection.execute("set asof_loop_join_threshold = 64")

    def is_caught(world: World) -> bool:
        try:
            return bool(faults(world, answers(connection, world, Mode.SERVED, plan), loses=loses))
        except (AssertionError, duckdb.Error):
            return True

    with patched(patch):
        assert any(is_caught(world) for world in corpus[loses]), f"no tale tells this from the right join: {name}"


def test_the_tales_are_worth_telling(connection, corpus) -> None:
    """All kinds of answers occur, with and without values."""
    for loses, tales in corpus.items():
        seen: Counter[tuple[str, bool]] = Counter()
        for world in tales:
            for got in answers(connection, world, Mode.SERVED, HASH):
                seen[got.provenance, value_of(got) is not None] += 1
        assert seen["served_exact", True] > 50
        assert seen["served_ambiguous", True] > 5
        assert seen["served_ambiguous", False] > 5
        assert (seen["unknown", False] > 20) is loses
