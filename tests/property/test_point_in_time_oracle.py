"""The point-in-time SQL against an oracle that replays publishes row by row, on every plan; wrong joins are caught.

Times lie on a lattice of quarter hours (labels also one microsecond beside it), so that partition ends, availability
delays and ttl meet exactly. Keys are pairs of strings that collide under concatenation, with or without separators.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from thoroughness import examples

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import ViewSelection
from feature_platform.domain.windows import Grain, Partition
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.output import name_output, training_set_sql

TICK = timedelta(minutes=15)
HOUR = timedelta(hours=1)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
PARTITIONS = 3

Key = tuple[str | None, ...]
Rewrite = Callable[[str], str]


@dataclass(frozen=True)
class Row:
    key: Key
    event_timestamp: datetime
    x: float | None
    y: str | None


@dataclass(frozen=True)
class Opened:
    """A batch; `seq` is the order of opening, `published` the order of publishing, None if it never was."""

    partition: int
    seq: int
    rows: tuple[Row, ...]
    published: int | None

    @property
    def batch_id(self) -> str:
        return f"batch-{self.seq}"


@dataclass(frozen=True)
class History:
    keys: tuple[str, ...]
    ttl: timedelta | None
    delay: timedelta
    batches: tuple[Opened, ...]


@dataclass(frozen=True)
class Label:
    k1: str | None
    k2: str | None
    time: datetime
    extra: int


# --- the oracle: slow and obvious ------------------------------------------------------------------------------------


def oracle(history: History, label: Label) -> tuple[float | None, str | None]:
    active: dict[int, Opened] = {}
    for batch in sorted((b for b in history.batches if b.published is not None), key=lambda b: b.published):
        if batch.partition not in active or active[batch.partition].seq < batch.seq:
            active[batch.partition] = batch
    asked = tuple(getattr(label, name) for name in history.keys)
    winner: Row | None = None
    for batch in active.values():
        for row in batch.rows:
            if None in asked or row.key != asked:
                continue
            if row.event_timestamp + history.delay > label.time:
                continue
            if winner is None or row.event_timestamp > winner.event_timestamp:
                winner = row
    if winner is None or (history.ttl is not None and label.time - winner.event_timestamp >= history.ttl):
        return None, None
    return winner.x, winner.y


# --- histories -------------------------------------------------------------------------------------------------------

STRINGS = ["", "1", "12", "2", "a", "a_", "_a", "|", "a|", "é", "\0", "'", '"']
# pairs that are one under concatenation, bare or with "_" between; the rest of each product is drawn too
COLLIDING = [("1", "21"), ("12", "1"), ("a_", "a"), ("a", "_a"), ("", "a"), ("a", "")]
k1s, k2s = st.sampled_from(["1", "12", "a_", "a", ""]), st.sampled_from(["21", "1", "_a", "a", ""])


@st.composite
def histories(draw: st.DrawFn, keys: tuple[str, ...]) -> History:
    key = st.one_of(st.sampled_from(COLLIDING), st.tuples(k1s, k2s)).map(lambda pair: pair[: len(keys)])
    few = draw(st.lists(key, min_size=1, max_size=3, unique=True))
    odd = draw(st.lists(st.tuples(*[st.sampled_from(STRINGS)] * len(keys)), max_size=1))
    batches = []
    for seq, partition in enumerate(draw(st.lists(st.integers(0, PARTITIONS - 1), min_size=1, max_size=6)), start=1):
        start = T0 + partition * HOUR
        places = draw(st.lists(st.tuples(st.sampled_from(few + odd), st.integers(1, 4)), max_size=6, unique=True))
        rows = tuple(
            Row(
                key=key,
                event_timestamp=start + ticks * TICK,
                x=draw(st.one_of(st.none(), st.just(float(seq * 100 + number)))),
                y=draw(st.sampled_from([None, f"y{seq}"])),
            )
            for number, (key, ticks) in enumerate(places)
        )
        batches.append(Opened(partition=partition, seq=seq, rows=rows, published=draw(st.sampled_from([0, 0, None]))))
    order = draw(st.permutations(range(len(batches))))
    return History(
        keys=keys,
        ttl=draw(st.one_of(st.none(), st.integers(1, 10).map(lambda n: n * TICK))),
        delay=draw(st.integers(0, 5)) * TICK,
        batches=tuple(
            replace(b, published=None if b.published is None else n) for b, n in zip(batches, order, strict=True)
        ),
    )


@st.composite
def labels_of(draw: st.DrawFn, *views: History) -> list[Label]:
    """Labels, most of them where it matters: as a row becomes visible or dies, or a microsecond beside that."""
    edges = [
        (row.key if len(row.key) == 2 else (*row.key, "1"), row.event_timestamp + edge)
        for view in views
        for batch in view.batches
        for row in batch.rows
        for edge in (view.delay, view.ttl or view.delay)
    ]
    anyone = st.one_of(st.sampled_from(COLLIDING), st.tuples(st.none() | k1s, st.none() | k2s))
    anywhere = st.tuples(anyone, st.integers(-3, 30).map(lambda ticks: T0 + ticks * TICK))
    if edges:
        anywhere = st.one_of(anywhere, st.sampled_from([((None, key[1]), time) for key, time in edges]))
    place = st.one_of(*[st.sampled_from(edges)] * 2, anywhere) if edges else anywhere
    nudge = st.sampled_from([0, 0, 1, -1]).map(lambda n: timedelta(microseconds=n))
    some = draw(st.lists(st.tuples(place, nudge), max_size=8))
    return [Label(k1=key[0], k2=key[1], time=time + by, extra=i) for i, ((key, time), by) in enumerate(some)]


@st.composite
def cases(draw: st.DrawFn) -> tuple[History, History, list[Label]]:
    route, carrier = draw(histories(("k1", "k2"))), draw(histories(("k1",)))
    return route, carrier, draw(labels_of(route, carrier))


# --- the SQL under test, on plain tables -----------------------------------------------------------------------------

ACTIVE = """select batch_id from ledger where published is not null
    qualify row_number() over (partition by "partition" order by seq desc) = 1"""


def insert(connection: duckdb.DuckDBPyConnection, table: str, rows: list[list[Any]]) -> None:
    """One statement for all rows; executemany is one per row."""
    if rows:
        values = ", ".join(f"({', '.join('?' * len(row))})" for row in rows)
        connection.execute(f"insert into {table} values {values}", [value for row in rows for value in row])


def load(connection: duckdb.DuckDBPyConnection, name: str, history: History) -> None:
    keys = ", ".join(f"{key} varchar" for key in history.keys)
    connection.execute(
        f"create or replace table {name} ({keys}, event_timestamp timestamptz, x double, y varchar,"
        " _batch_id varchar, _partition_start timestamptz)"
    )
    insert(
        connection,
        name,
        [
            [*row.key, row.event_timestamp, row.x, row.y, batch.batch_id, T0 + batch.partition * HOUR]
            for batch in history.batches
            for row in batch.rows
        ],
    )


def published(history: History, active: list[str]) -> list[PublishedBatch]:
    found = []
    for batch in history.batches:
        if batch.batch_id in active:
            start = T0 + batch.partition * HOUR
            found.append(
                PublishedBatch(
                    batch_id=batch.batch_id,
                    seq=batch.seq,
                    view="v@1",
                    position=1,
                    ledger_seq=1,
                    partition=Partition(start=start, end=start + HOUR, grain=Grain.HOUR),
                    row_count=len(batch.rows),
                    source_watermark=None,
                    opened_at=T0,
                    computed_at=T0,
                    published_at=T0,
                )
            )
    return found


def same(text: str) -> str:
    return text


def answer(
    connection: duckdb.DuckDBPyConnection,
    views: dict[str, History],
    labels: list[Label],
    plan: pit.Plan,
    *,
    rewrite: Rewrite = same,
    rewrite_active: Rewrite = same,
) -> list[tuple[Any, ...]]:
    """Run the SQL. `rewrite` changes the join's statements, `rewrite_active` the choice of batches (for mutations)."""
    connection.execute(
        "create or replace temp table labels (_label_id bigint, k1 varchar, k2 varchar, extra int, t timestamptz)"
    )
    insert(connection, "labels", [[i, x.k1, x.k2, x.extra, x.time] for i, x in enumerate(labels)])
    columns, answers = [], {}
    for number, (name, history) in enumerate(views.items()):
        load(connection, name, history)
        connection.execute(
            "create or replace temp table ledger (batch_id varchar, seq int, partition int, published int)"
        )
        insert(connection, "ledger", [[b.batch_id, b.seq, b.partition, b.published] for b in history.batches])
        active = [row[0] for row in connection.execute(rewrite_active(ACTIVE)).fetchall()]
        reach = pit.within_reach(
            published(history, active),
            oldest=min((x.time for x in labels), default=T0),
            newest=max((x.time for x in labels), default=T0),
            ttl=history.ttl,
            availability_delay=history.delay,
        )
        connection.execute("create or replace temp table active (_batch_id varchar)")
        insert(connection, "active", [[batch.batch_id] for batch in reach.batches])
        join = pit.ViewJoin(
            rows=pit.reachable_rows(name, [*history.keys, "event_timestamp", "x", "y"], batches="active", reach=reach),
            keys=history.keys,
            features=("x", "y"),
            ttl=history.ttl,
            availability_delay=history.delay,
            answer=f"answer_{number}",
            timestamp_column="t",
        )
        connection.execute(f"drop table if exists answer_{number}")
        for statement in pit.join_statements(join, plan):
            connection.execute(rewrite(statement.sql), dict(statement.parameters))
        answers[f"{name}@1"] = join.answer
        columns += [ViewSelection(view=name, version=1, features=("x", "y"))]
    output = name_output(columns, ["k1", "k2", "extra", "t"])
    sql = training_set_sql(["k1", "k2", "extra", "t"], output, answers)
    return connection.execute(rewrite(sql)).fetchall()


def expected(views: dict[str, History], labels: list[Label]) -> list[tuple[Any, ...]]:
    return [
        (x.k1, x.k2, x.extra, x.time, *itertools.chain.from_iterable(oracle(view, x) for view in views.values()))
        for x in labels
    ]


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as opened:
        opened.execute("set TimeZone = 'UTC'; set threads = 2")
        yield opened


PLANS = [(pit.Plan.HASH, 64), (pit.Plan.ONE_SCAN, 64), (pit.Plan.ASOF, 64), (pit.Plan.ASOF, 0)]


@settings(max_examples=examples(50), deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_every_plan_answers_as_the_oracle(connection, case) -> None:
    route, carrier, labels = case
    views = {"route": route, "carrier": carrier}
    want = expected(views, labels)
    for plan, threshold in PLANS:
        # DuckDB takes another ASOF plan for few probes; 0 forbids it
        connection.execute(f"set asof_loop_join_threshold = {threshold}")
        assert answer(connection, views, labels, plan) == want, (plan, threshold)


# --- wrong joins: each must be caught --------------------------------------------------------------------------------


def swap(old: str, new: str) -> Rewrite:
    return lambda sql: sql.replace(old, new)


HASH, ONE_SCAN, ASOF = pit.Plan.HASH, pit.Plan.ONE_SCAN, pit.Plan.ASOF
SAME_KEYS = 'l."k1" = r."k1" and l."k2" = r."k2"'
WINNERS = 'create table "answer_0_winners"'

MUTANTS: dict[str, tuple[pit.Plan, Rewrite, Rewrite]] = {
    "ttl inclusive (hash)": (HASH, swap("event_timestamp > l._dead_until", "event_timestamp >= l._dead_until"), same),
    "ttl inclusive (asof)": (ASOF, swap("event_timestamp > l._dead_until", "event_timestamp >= l._dead_until"), same),
    "ttl ignored (hash)": (HASH, swap("r.event_timestamp > l._dead_until", "true"), same),
    "ttl ignored (asof)": (ASOF, swap("r.event_timestamp > l._dead_until", "true"), same),
    "availability exclusive (hash)": (HASH, swap("<= l._visible_until", "< l._visible_until"), same),
    "availability exclusive (asof)": (ASOF, swap("l._visible_until >= ", "l._visible_until > "), same),
    "delay ignored": (HASH, swap("- to_microseconds($delay)", "- to_microseconds(0 * $delay)"), same),
    "delay on the wrong side": (ASOF, swap("- to_microseconds($delay)", "+ to_microseconds($delay)"), same),
    "ttl counted from availability": (
        HASH,
        swap("- to_microseconds($ttl)", "- to_microseconds($ttl + $delay)"),
        same,
    ),
    "oldest row wins": (HASH, swap("max(r.event_timestamp)", "min(r.event_timestamp)"), same),
    "oldest row wins (one scan)": (ONE_SCAN, swap("max(_at_event)", "min(_at_event)"), same),
    "any row wins (one scan)": (ONE_SCAN, swap("using (_label_id, _at_event)", "using (_label_id)"), same),
    "ttl inclusive (one scan)": (ONE_SCAN, swap("event_timestamp > l._dead", "event_timestamp >= l._dead"), same),
    "availability ignored (one scan)": (ONE_SCAN, swap("r.event_timestamp <= l._visible_until", "true"), same),
    "keys concatenated (one scan)": (ONE_SCAN, swap(SAME_KEYS, 'l."k1" || l."k2" = r."k1" || r."k2"'), same),
    "null features skipped": (
        HASH,
        lambda sql: (
            sql
            if "winners" in sql.partition(" as ")[0] or "_visible_until" not in sql
            else sql.replace(', r."x"', ', arg_max(r."x", r.event_timestamp) as x')
            .replace(', r."y"', ', any_value(r."y") as y')
            .replace("r.event_timestamp = l.event_timestamp", "r.event_timestamp <= l.event_timestamp")
            + " group by l._label_id"
        ),
        same,
    ),
    "keys concatenated (hash)": (HASH, swap(SAME_KEYS, 'l."k1" || l."k2" = r."k1" || r."k2"'), same),
    "keys concatenated with a separator (asof)": (
        ASOF,
        swap(SAME_KEYS, "concat_ws('_', l.k1, l.k2) = concat_ws('_', r.k1, r.k2)"),
        same,
    ),
    "second key forgotten in the winner": (
        HASH,
        lambda sql: sql.replace(SAME_KEYS, 'l."k1" = r."k1"') if sql.startswith(WINNERS) else sql,
        same,
    ),
    "null key matches any key": (HASH, swap('l."k1" = r."k1"', '(l.k1 is null or l."k1" = r."k1")'), same),
    "labels without an answer dropped": (HASH, swap(" left join ", " join "), same),
    "row order lost": (HASH, swap("order by l._label_id", "order by l._label_id desc"), same),
    "superseded batches used": (HASH, same, lambda sql: sql.partition("qualify")[0]),
    "unpublished batches used": (HASH, same, swap("where published is not null", "")),
    "last published wins, not last opened": (HASH, same, swap("order by seq desc", "order by published desc")),
    "first batch of a partition wins": (HASH, same, swap("order by seq desc", "order by seq")),
    "newest batch hides its published predecessor": (
        HASH,
        same,
        lambda _: (
            """select batch_id from (from ledger qualify row_number()
            over (partition by "partition" order by seq desc) = 1) where published is not null"""
        ),
    ),
}


@pytest.fixture(scope="module")
def corpus() -> list[tuple[History, list[Label]]]:
    collected: list[tuple[History, list[Label]]] = []

    @settings(
        max_examples=500,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def collect(data: st.DataObject) -> None:
        route = data.draw(histories(("k1", "k2")))
        if labels := data.draw(labels_of(route)):
            collected.append((route, labels))

    collect()
    return collected


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_join_is_caught(connection, corpus, name: str) -> None:
    plan, rewrite, rewrite_active = MUTANTS[name]
    connection.execute("set asof_loop_join_threshold = 64")
    assert any(
        answer(connection, {"route": route}, labels, plan, rewrite=rewrite, rewrite_active=rewrite_active)
        != expected({"route": route}, labels)
        for route, labels in corpus
    ), f"no history tells this wrong join from the right one: {name}"
