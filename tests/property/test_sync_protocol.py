"""Random histories against a real Valkey: whatever is published, crashes, is delayed, repeated or lost, the store tells
the truth, and one complete sync brings it to `state(head)`.

The oracle is plain Python over the history. The plan, its SQL, the encoding and the server's functions are the real
ones; only *when* each single write arrives is decided here. Rows are written in each of the ways of `sync.writing`, and
anything may happen between two commands of one row.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import libvalkey
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from online_support import make_view, running_valkey
from thoroughness import examples

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, Partition, floor
from feature_platform.online import functions
from feature_platform.online.codec import Layout, decode_prefix, tombstone
from feature_platform.online.connection import raise_if_error
from feature_platform.online.decoding import decode
from feature_platform.online.keys import entity_key, position_key, row_key
from feature_platform.online.settings import ValkeyAddress
from feature_platform.online.writable import Server
from feature_platform.sync import framing
from feature_platform.sync import plan as plans
from feature_platform.sync.asserting import assertions
from feature_platform.sync.encoding import Encoded
from feature_platform.sync.parity import Cause
from feature_platform.sync.parity.comparing import Comparison, Derivation
from feature_platform.sync.parity.judging import DIFFERENCES, Places
from feature_platform.sync.parity.report import Tally
from feature_platform.sync.parity.sampling import Sample
from feature_platform.sync.plan import plan_sync
from feature_platform.sync.writing import Way, Writer

KEY_TYPES = (("a", ColumnType.VARCHAR), ("b", ColumnType.INTEGER))
ENTITIES = [{"a": "UA", "b": 1}, {"a": "}{,%", "b": 1}, {"a": "", "b": -1}, {"a": "UA,1", "b": 1}]
FEATURES = {"f": ColumnType.BIGINT, "s": ColumnType.VARCHAR}
LAYOUT = Layout.of(FEATURES.items())
PARTITIONS = 3
DAY = timedelta(days=1)
TTL = timedelta(days=10)

Row = tuple[datetime, int | None, str | None]
State = dict[int, Row]


@dataclass
class Published:
    seq: int
    partition: int
    batch_id: str
    rows: State
    position: int | None = None


@dataclass(eq=False)
class Worker:
    """A sync that is somewhere on its way."""

    begun: functions.StorePosition
    head: int
    rows: Encoded
    way: Way
    writes: list[bytes]
    """All rows as calls of the function."""
    under_way: Generator[bytes, Any, None] | None = None
    sent: int = 0
    commands: list[bytes] = field(default_factory=list)
    """Everything it ever sent."""
    answer: Any = None


@dataclass
class World:
    connection: Server
    lake: duckdb.DuckDBPyConnection
    ttl: timedelta | None
    starts: list[datetime]
    batches: list[Published] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    delayed: list[bytes] = field(default_factory=list)
    head: int = 0
    synced: int = 0
    """The furthest position a sync was told to have reached."""
    damaged: set[int] = field(default_factory=set)
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.view = make_view("v", entities=dict(KEY_TYPES), features=FEATURES, ttl=self.ttl)
        self.keys = [row_key(self.view.key, entity_key(KEY_TYPES, entity)) for entity in ENTITIES]

    # -- the oracle ---------------------------------------------------------------------------------------------

    def active(self, position: int) -> list[Published]:
        newest: dict[int, Published] = {}
        for batch in self.batches:
            if batch.position is not None and batch.position <= position:
                held = newest.get(batch.partition)
                newest[batch.partition] = batch if held is None or batch.seq > held.seq else held
        return list(newest.values())

    def state(self, position: int) -> State:
        state: State = {}
        for batch in self.active(position):
            for entity, row in batch.rows.items():
                if entity not in state or row[0] > state[entity][0]:
                    state[entity] = row
        return state

    # -- what may happen ----------------------------------------------------------------------------------------

    def open(self, partition: int, rows: list[tuple[int, int, int]]) -> None:
        start = self.starts[partition % PARTITIONS]
        batch = Published(
            seq=len(self.batches) + 1, partition=partition % PARTITIONS, batch_id=str(uuid.uuid4()), rows={}
        )
        for entity, hour, value in rows:
            feature = None if value == 0 else value
            text = None if value == 1 else "x" * value
            batch.rows[entity % len(ENTITIES)] = (start + timedelta(hours=hour % 24 + 1), feature, text)
        for entity, (event, feature, text) in batch.rows.items():
            key = ENTITIES[entity]
            self.lake.execute(
                "insert into lake.batches.v_v1 values (?, ?, ?, ?, ?, ?, ?)",
                [key["a"], key["b"], event, feature, text, batch.batch_id, start],
            )
        self.batches.append(batch)

    def publish(self, which: int) -> None:
        waiting = [batch for batch in self.batches if batch.position is None]
        if waiting:
            self.head += 1
            waiting[which % len(waiting)].position = self.head

    def begin(self, way: int = 0, *, rebuild: bool = False) -> Worker:
        begun = functions.begin(self.connection, self.view.key)
        k0, k = 0 if rebuild else begun.position, self.head
        before, now = self.active(k0), self.active(k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plans, "NEWEST_ROWS", 1 + way % 2 * 100)  # half of the plans send the newest batch as it is
            plan = plan_sync(
                k0,
                k,
                published=[self._record(b) for b in self.batches if b.position is not None and k0 < b.position <= k],
                superseded=[self._record(b) for b in before if b not in now],
                active=[self._record(b) for b in now],
            )
        rows = together([part.encode() for part in assertions(self.lake, self.view, plan)])
        writes = [framing.call(row)[0] for row in singly(rows)]
        worker = Worker(begun=begun, head=k, rows=rows, way=list(Way)[way % len(Way)], writes=writes)
        self.workers.append(worker)
        return worker

    def step(self, worker: Worker) -> bool:
        """The worker's next command, or its end."""
        while worker.sent < len(worker.writes):
            answer = None
            if worker.under_way is None:
                row = worker.rows.take(np.array([worker.sent]))
                direct = Writer(self.connection, expires=self.ttl is not None, way=worker.way)._direct(row)[0]
                worker.under_way = commands(row, worker.way if direct else Way.FUNCTION, expires=self.ttl is not None)
            else:
                answer = worker.answer
            try:
                command = worker.under_way.send(answer)
            except StopIteration:
                worker.under_way = None
                worker.sent += 1
                continue
            worker.commands.append(command)
            worker.answer = self.deliver(command)
            return True
        if functions.advance(self.connection, self.view.key, worker.begun, worker.head):
            self.synced = max(self.synced, worker.head)
        if worker in self.workers:
            self.workers.remove(worker)
        return False

    def delay(self, which: int) -> None:
        """A copy of a write stays under way."""
        writes = self.under_way()
        if writes:
            self.delayed.append(writes[which % len(writes)])

    def under_way(self) -> list[bytes]:
        """What may still arrive, from workers that are not done."""
        return [write for worker in self.workers for write in (*worker.writes, *worker.commands)]

    def deliver(self, write: bytes) -> Any:
        self.connection.send(write)
        reply = self.connection.receive()
        raise_if_error(reply, self.connection.address)
        return reply

    def write_all(self, way: int) -> None:
        """A sync that nothing disturbs, by the real writer."""
        worker = self.begin(way)
        if len(worker.rows):
            done = Writer(self.connection, expires=self.ttl is not None, way=worker.way).write(worker.rows)
            assert done.rows == len(worker.rows) >= done.written + done.refused
        worker.sent = len(worker.writes)
        self.step(worker)

    def flush(self) -> None:
        self.connection.call("FLUSHALL")
        self.seen = {}

    def damage(self, which: int, how: int) -> None:
        """What no sync does: a key is lost, comes back as it was, or is written by somebody else."""
        entity = which % len(ENTITIES)
        key, value = self.keys[entity], self.connection.call("GET", self.keys[entity])
        if how % 3 == 0 or value is None:
            self.connection.call("DEL", key)
        elif how % 3 == 1:
            self.connection.call("SET", key, tombstone(1))
        else:
            event = datetime.now(UTC) if self.ttl else datetime(2013, 3, 5, tzinfo=UTC)
            self.connection.call("SET", key, LAYOUT.encode(99, event, {"f": 666, "s": "forged"}))
        self.damaged.add(entity)

    # -- parity -------------------------------------------------------------------------------------------------

    def position(self) -> int:
        """Where the store says it is."""
        held = functions.probe(self.connection, [self.view.key]).positions[self.view.key]
        return held[1] if held else 0

    def compare(self) -> Tally:
        """Store against ledger, by the real comparison, all entities."""
        published = [self._record(batch) for batch in self.batches if batch.position is not None]
        return Comparison(
            lake=self.lake,
            online=self.connection,
            view=self.view,
            derivation=Derivation(published=tuple(sorted(published, key=lambda batch: batch.position))),
            places=Places(store=self.position(), synced=self.synced, head=self.head),
            layouts={LAYOUT.layout_id: LAYOUT},
            clock=lambda: datetime.now(UTC),
        ).run(Sample(fraction=1.0, seed=""))

    def differing(self) -> dict[int, bool]:
        """The oracle: per entity that a client is answered otherwise than by `state(head)`, whether it is `none`."""
        state, differing = self.state(self.head), {}
        for entity, value in enumerate(self.connection.call("MGET", *self.keys)):
            row = state.get(entity)
            answered = None if value is None else self.decode(value)
            gone = value is None and row is not None and not self.alive(row)
            if answered != row and not gone:
                differing[entity] = answered is None
        return differing

    # -- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        if self.damaged:
            return  # parity is asked instead
        position = int(self.connection.call("HGET", position_key(self.view.key), "position") or 0)
        assert position <= self.head
        replies = self.connection.pipeline([("MGET", *self.keys), *(("PEXPIRETIME", key) for key in self.keys)])
        for entity, (value, expiry) in enumerate(zip(replies[0], replies[1:], strict=True)):
            if value is None:
                dead = self.dead_or_none(entity, position)
                assert dead, f"entity {entity} vanished"
                continue
            prefix = decode_prefix(value)
            asserted = self.state(prefix.position).get(entity)
            assert self.decode(value) == asserted, "a value is not what its position says"
            later = range(position, self.head + 1)
            assert any(self.state(k).get(entity) == asserted for k in later), "the store claims more than it holds"
            held = self.seen.get(entity, (0, 0))
            assert prefix.position >= held[0], "a position moved back"
            if self.ttl is not None:
                assert expiry >= held[1], "an expiry moved back"
            self.seen[entity] = (prefix.position, expiry)

    def check_complete(self) -> None:
        for entity, value in enumerate(self.connection.call("MGET", *self.keys)):
            expected = self.state(self.head).get(entity)
            if expected is not None and self.alive(expected):
                assert value is not None and self.decode(value) == expected
            elif value is not None:
                assert self.decode(value) in (expected, None)

    def dead_or_none(self, entity: int, position: int) -> bool:
        states = [self.state(k).get(entity) for k in range(position, self.head + 1)]
        return any(row is None or not self.alive(row) for row in states)

    def alive(self, row: Row) -> bool:
        return self.ttl is None or datetime.now(UTC) - row[0] < self.ttl

    def decode(self, value: bytes) -> Row | None:
        event = decode_prefix(value).event_timestamp
        if event is None:
            return None
        row = decode(LAYOUT, value)
        return event, row["f"], row["s"]

    def _record(self, batch: Published) -> PublishedBatch:
        start = self.starts[batch.partition]
        assert batch.position is not None
        return PublishedBatch(
            batch_id=batch.batch_id,
            seq=batch.seq,
            view=self.view.key,
            partition=Partition(start=start, end=start + DAY, grain=Grain.DAY),
            position=batch.position,
            ledger_seq=batch.position,
            row_count=len(batch.rows),
            source_watermark=None,
            opened_at=start,
            computed_at=start,
            published_at=start,
        )


def together(parts: list[Encoded]) -> Encoded:
    """All rows of a plan."""
    empty = pa.array([], pa.large_binary())
    return Encoded(
        keys=pa.concat_arrays([empty, *(part.keys for part in parts)]),
        values=pa.concat_arrays([empty, *(part.values for part in parts)]),
        keep_until=np.concatenate([np.array([], dtype=np.int64), *(part.keep_until for part in parts)]),
    )


def singly(rows: Encoded) -> Iterator[Encoded]:
    return (rows.take(np.array([i])) for i in range(len(rows)))


def commands(row: Encoded, way: Way, *, expires: bool) -> Generator[bytes, Any, None]:
    """What `sync.writing` sends for one row, one command at a time; each is sent the reply to the one before."""
    if way is Way.KNOWN:
        ((held,),) = ((yield framing.get(row)[0]),)
        if held is not None and held[:8] > row.values[0].as_py()[:8]:
            return
        if held is not None:
            swap = framing.replace(row, pa.array([held], pa.large_binary()), expires=expires)
            replies = yield from one_by_one(split(swap))
            if replies[-1] is not None and (not expires or replies[0] == 1):
                return
    absent = way is Way.NEW or (way is Way.KNOWN and held is None)
    if absent and (yield framing.set_if_absent(row, expires=expires)) is not None:
        return
    yield framing.call(row)[0]


def one_by_one(sent: list[bytes]) -> Generator[bytes, Any, list[Any]]:
    replies = []
    for command in sent:
        reply = yield command
        replies.append(reply)
    return replies


def split(payload: bytes) -> list[bytes]:
    """Commands one by one, so that anything can happen between two of them."""
    reader = libvalkey.Reader()
    reader.feed(payload)
    single = []
    while (command := reader.gets()) is not False:
        single.append(libvalkey.pack_command(tuple(command)))
    return single


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with running_valkey() as url, Server(ValkeyAddress.parse(url), 5.0) as server:
        yield server


@pytest.fixture(scope="module")
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("attach ':memory:' as lake; create schema lake.batches; set TimeZone = 'UTC'")
        yield connection


SMALL = st.integers(0, 5)
ROWS = st.lists(st.tuples(SMALL, st.integers(0, 23), st.integers(0, 3)), max_size=3)
EVENTS = st.one_of(
    st.tuples(st.just("open"), SMALL, ROWS),
    st.tuples(st.just("open and publish"), SMALL, ROWS),
    st.tuples(st.just("open and publish"), SMALL, ROWS),
    st.tuples(st.just("publish"), SMALL),
    st.tuples(st.just("begin"), SMALL),
    st.tuples(st.just("begin"), SMALL),
    st.tuples(st.just("sync"), SMALL),
    st.tuples(st.just("sync"), SMALL),
    st.tuples(st.just("write all"), SMALL),
    st.tuples(st.just("step"), SMALL),
    st.tuples(st.just("step"), SMALL),
    st.tuples(st.just("finish"), SMALL),
    st.tuples(st.just("crash"), SMALL),
    st.tuples(st.just("delay"), SMALL),
    st.tuples(st.just("arrive"), SMALL),
    st.tuples(st.just("flush")),
)


def open_and_publish(world: World, partition: int, rows: list[tuple[int, int, int]]) -> None:
    world.open(partition, rows)
    world.publish(-1)


def finish(world: World, worker: Worker) -> None:
    while world.step(worker):
        world.check()


def arrive(world: World, which: int) -> None:
    if world.delayed:
        world.deliver(world.delayed.pop(which % len(world.delayed)))


TO_THE_WORLD: dict[str, Any] = {
    "open": World.open,
    "open and publish": open_and_publish,
    "publish": World.publish,
    "begin": World.begin,
    "sync": lambda world, way: finish(world, world.begin(way)),
    "write all": World.write_all,
    "delay": World.delay,
    "arrive": arrive,
    "flush": World.flush,
    "damage": World.damage,
}
TO_A_WORKER: dict[str, Any] = {
    "step": World.step,
    "finish": finish,
    "crash": lambda world, worker: world.workers.remove(worker),
}


def happen(world: World, event: Any) -> None:
    kind, *arguments = event
    if kind in TO_THE_WORLD:
        TO_THE_WORLD[kind](world, *arguments)
    elif world.workers:
        TO_A_WORKER[kind](world, world.workers[arguments[0] % len(world.workers)])


def prepare(world: World) -> None:
    world.connection.call("FLUSHALL")
    functions.load(world.connection)
    world.lake.execute(
        "create or replace table lake.batches.v_v1 (a varchar, b integer, event_timestamp timestamptz, f bigint,"
        " s varchar, _batch_id varchar, _partition_start timestamptz)"
    )


def run(world: World, events: list[Any]) -> None:
    prepare(world)
    for event in events:
        happen(world, event)
        world.check()
    last = world.begin()
    while world.step(last):
        pass
    world.check_complete()
    # what was still under way arrives now and must change nothing
    for write in (*world.delayed, *world.under_way()):
        world.deliver(write)
    world.check()
    world.check_complete()


@given(st.lists(EVENTS, min_size=12, max_size=40))
@settings(
    max_examples=examples(30),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_without_ttl(store: Server, lake: duckdb.DuckDBPyConnection, events: list[Any]) -> None:
    starts = [datetime(2013, 3, day, tzinfo=UTC) for day in (1, 2, 5)]
    run(World(connection=store, lake=lake, ttl=None, starts=starts), events)


@given(st.lists(EVENTS, min_size=12, max_size=40))
@settings(
    max_examples=examples(30),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_with_ttl(store: Server, lake: duckdb.DuckDBPyConnection, events: list[Any]) -> None:
    """Partitions whose rows are long gone, expired but kept, and alive."""
    today = floor(datetime.now(UTC), Grain.DAY)
    starts = [today - days * DAY for days in (40, 14, 4)]
    run(World(connection=store, lake=lake, ttl=TTL, starts=starts), events)


def compare(world: World) -> Tally:
    """What is counted is what the oracle says."""
    tally = world.compare()
    expected = world.differing()
    assert sum(tally.outcomes[kind] for kind in DIFFERENCES) == sum(tally.causes.values()) == len(expected)
    texts = {world.keys[entity].decode().partition("{")[2][:-1] for entity in expected}
    assert {one.entity for one in tally.examples} == texts
    return tally


def run_to_parity(world: World, events: list[Any]) -> None:
    """Whatever fails between two steps, only what was damaged is blamed; a repair ends in parity."""
    prepare(world)
    for event in events:
        happen(world, event)
        tally = compare(world)
        if not world.damaged:
            held = world.position()
            cause = Cause.STORE_LOST if held < world.synced else Cause.LATE_SYNC
            assert tally.causes.keys() <= {cause}, tally.examples
    finish(world, world.begin())
    tally = compare(world)
    assert len(world.differing().keys() - world.damaged) == 0
    assert tally.causes.keys() <= {Cause.LOST_WRITE, Cause.UNKNOWN}, tally.examples
    for key in tally.stray:
        world.connection.call("UNLINK", key)
    finish(world, world.begin(rebuild=True))
    assert not compare(world).causes
    # what was still under way arrives now and must change nothing
    for write in (*world.delayed, *world.under_way()):
        world.deliver(write)
    assert not compare(world).causes


DAMAGE = st.tuples(st.just("damage"), SMALL, SMALL)


@pytest.mark.parametrize("ttl", [None, TTL])
@given(st.lists(EVENTS, min_size=8, max_size=25), st.lists(st.one_of(DAMAGE, EVENTS), max_size=10))
@settings(
    max_examples=examples(12),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_parity(
    store: Server, lake: duckdb.DuckDBPyConnection, ttl: timedelta | None, events: list[Any], harm: list[Any]
) -> None:
    today = floor(datetime.now(UTC), Grain.DAY)
    starts = [today - days * DAY for days in (40, 14, 4)]
    run_to_parity(World(connection=store, lake=lake, ttl=ttl, starts=starts), [*events, *harm])
