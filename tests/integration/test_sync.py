"""Syncs from a real ledger and lake to a real Valkey."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from offline_platform import Platform, declare, measured, registry_of

from feature_platform import lake
from feature_platform.domain.feature_view import Column, OnlineTier
from feature_platform.domain.retention import Fate
from feature_platform.domain.types import ColumnType, ListType
from feature_platform.domain.windows import Grain, Partition
from feature_platform.errors import (
    BatchRejectedError,
    LedgerConflictError,
    MemoryLimitError,
    NotDeployedError,
    RequestError,
    StoreChangedError,
    StoreUnavailableError,
)
from feature_platform.ledger import Ledger
from feature_platform.online import FeatureClient, FeatureStatus, functions
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress
from feature_platform.settings import Settings
from feature_platform.sync import SyncResult, publish_schemas, reading, resuming, sync
from feature_platform.sync import plan as plans
from feature_platform.sync import runner as runners

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VIEW = declare(
    "delays",
    entities={"carrier": ColumnType.VARCHAR, "gate": ColumnType.INTEGER},
    features={"mean": ColumnType.DOUBLE, "note": ColumnType.VARCHAR},
)
SHORT = declare("short", entities={"carrier": ColumnType.VARCHAR}, features={"n": ColumnType.BIGINT}, ttl=3 * DAY)


@pytest.fixture
def platform(settings: Settings) -> Platform:
    platform = Platform(settings, registry_of(VIEW, SHORT))
    platform.deploy()
    return platform


@pytest.fixture
def run(platform: Platform) -> Callable[..., SyncResult]:
    return lambda view=VIEW, **options: sync(platform.settings, platform.registry, view, run_id="run", **options)


@pytest.fixture
def client(settings: Settings) -> Iterator[FeatureClient]:
    with FeatureClient.connect(settings.valkey_url, clock=lambda: MARCH + 30 * DAY) as client:
        yield client


@pytest.fixture
def valkey(settings: Settings) -> Iterator[Connection]:
    with Connection(ValkeyAddress.parse(settings.valkey_url), 5.0) as connection:
        yield connection


def row(carrier: str, day: int, mean: float | None, gate: int = 1, note: str | None = "é,{}") -> tuple[Any, ...]:
    """A row of the partition of that day of March (0 = the first): keys, event time, features."""
    return carrier, gate, MARCH + (day + 1) * DAY, mean, note


def read(client: FeatureClient, *carriers: str) -> list[float | None]:
    answer = client.get_online_features("delays:mean", [{"carrier": c, "gate": 1} for c in carriers])
    return [None if a.views["delays@1"].status is FeatureStatus.MISSING else a.values["mean"] for a in answer]


def test_replies_that_are_not_the_usual_ones_are_all_there(valkey) -> None:
    usual = b":1\r\n+OK\r\n"

    def ask(ttl: int, value: str) -> list[Any] | None:
        commands = [f"PEXPIREAT k{i} {ttl} GT\r\nSET k{i} v IFEQ {value} KEEPTTL\r\n" for i in range(10_000)]
        valkey.send("".join([*commands[:-1], commands[-1].replace(f"IFEQ {value}", "IFEQ v")]).encode())
        return valkey.receive_usual(usual, 10_000)

    valkey.pipeline([("SET", f"k{i}", "v", "PX", 10**6) for i in range(10_000)])
    assert ask(10**14, "v") is None
    assert valkey.call("PING") == b"PONG"
    valkey.pipeline([("PERSIST", "k9999"), ("PEXPIRE", "k9998", 10**6)])
    mixed = ask(2 * 10**14, "v")
    assert mixed is not None
    assert (len(mixed), mixed[-3:], set(mixed[:-2:2])) == (20_000, [b"OK", 0, b"OK"], {1})
    assert set(ask(2 * 10**14, "w")[1:-2:2]) == {None}
    assert valkey.call("PING") == b"PONG"


def test_rows_arrive_and_only_what_events_touch_is_written_again(platform, run, client) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0), row("AA", 0, 2.0)])
    platform.add(VIEW, MARCH + DAY, [row("UA", 1, 3.0)])
    first = run()
    assert (first.from_position, first.to_position) == (0, 2)
    assert (first.entities, first.written, first.tombstones, first.refused) == (2, 2, 0, 0)
    assert first.newest_event_timestamp == MARCH + 2 * DAY
    assert read(client, "UA", "AA", "nobody") == [3.0, 2.0, None]

    platform.add(VIEW, MARCH + 2 * DAY, [row("AA", 2, None)])
    second = run()
    assert (second.from_position, second.to_position, second.entities) == (2, 3, 1)
    answer = client.get_online_features("delays", [{"carrier": "AA", "gate": 1}])[0]
    assert answer.values == {"mean": None, "note": "é,{}"}
    assert answer.views["delays@1"].event_timestamp == MARCH + 3 * DAY
    assert answer.views["delays@1"].position == 3

    again = run()
    assert (again.from_position, again.entities) == (3, 0)
    assert again.newest_event_timestamp == MARCH + 3 * DAY


def test_nothing_published_is_a_sync_of_nothing(run) -> None:
    result = run()
    assert (result.from_position, result.to_position, result.entities) == (0, 0, 0)
    assert result.newest_event_timestamp is None


def test_backfill_does_not_overwrite_newer_rows_and_a_recomputation_takes_back(platform, run, client) -> None:
    platform.add(VIEW, MARCH + 5 * DAY, [row("UA", 5, 5.0), row("AA", 5, 6.0)])
    run()
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0), row("DL", 0, 1.5)])  # an old partition
    assert run().tombstones == 0
    assert read(client, "UA", "AA", "DL") == [5.0, 6.0, 1.5]
    platform.add(VIEW, MARCH + 5 * DAY, [row("UA", 5, 7.0)])  # a correction at the same event time; AA is lost
    result = run()
    assert (result.entities, result.tombstones) == (2, 1)
    assert read(client, "UA", "AA", "DL") == [7.0, None, 1.5]
    platform.add(VIEW, MARCH + 5 * DAY, [])  # the partition is recomputed to nothing: UA falls back
    assert run().tombstones == 0
    assert read(client, "UA", "AA", "DL") == [1.0, None, 1.5]


def test_unpublished_batches_never_reach_the_store(platform, run, client) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    waiting = platform.open(VIEW, MARCH, [row("UA", 0, 666.0), row("XX", 0, 666.0)])
    run()
    run(rebuild=True)
    assert read(client, "UA", "XX") == [1.0, None]
    platform.publish(waiting)
    run()
    assert read(client, "UA", "XX") == [666.0, 666.0]


def test_an_older_batch_published_late_changes_nothing(platform, run, client) -> None:
    late = platform.open(VIEW, MARCH, [row("UA", 0, 1.0)])
    platform.add(VIEW, MARCH, [row("UA", 0, 2.0)])
    run()
    platform.publish(late)
    assert run().to_position == 2
    assert read(client, "UA") == [2.0]


def test_history_in_many_steps_is_searched_to_its_end(platform, run, client) -> None:
    """Entities whose last row lies further back than one step of the plan, and one that vanished."""
    wanted = [(VIEW, MARCH + day * DAY, [row(f"c{day}", day, float(day)), row("always", day, float(day))])
              for day in range(45)]  # fmt: skip
    ids = platform.open_all(wanted)
    platform.publish(*ids)
    platform.add(VIEW, MARCH, [row("always", 0, 0.0)])  # c0 vanishes
    result = run()
    assert (result.entities, result.tombstones) == (46, 1)
    assert read(client, "c0", "c1", "c30", "c44", "always") == [None, 1.0, 30.0, 44.0, 44.0]


@pytest.mark.parametrize("repeated", [False, True])
def test_a_large_newest_batch_is_sent_as_it_lies_there(platform, run, client, monkeypatch, repeated: bool) -> None:
    """Unless it repeats an entity; what else the plan touches is looked for."""
    monkeypatch.setattr(plans, "NEWEST_ROWS", 2)
    monkeypatch.setattr(reading, "HASHES_AT_ONCE", 1)
    platform.add(VIEW, MARCH, [row("gone", 0, 1.0), row("old", 0, 2.0), row("both", 0, 3.0)])
    platform.add(VIEW, MARCH, [row("old", 0, 4.0), row("both", 0, 5.0)])
    again = [("both", 1, MARCH + DAY + timedelta(hours=1), 666.0, None)] if repeated else []
    platform.add(VIEW, MARCH + DAY, [row("both", 1, 6.0), row("new", 1, 7.0), *again])
    result = run()
    assert (result.entities, result.written, result.tombstones) == (4, 4, 1)
    assert read(client, "gone", "old", "both", "new") == [None, 4.0, 6.0, 7.0]
    platform.add(VIEW, MARCH + DAY, [row("new", 1, 8.0), row("more", 1, 9.0)])
    result = run()
    assert (result.entities, result.written, result.tombstones) == (3, 3, 0)
    assert read(client, "gone", "old", "both", "new", "more") == [None, 4.0, 5.0, 8.0, 9.0]


def sync_until_killed(settings: Settings, after: int) -> None:
    """In a process of its own."""
    resuming.NOTE_SECONDS = 0.0  # type: ignore[misc]
    plans.NEWEST_ROWS = 1

    def die(done: int, _: int) -> None:
        if done >= after:
            os.kill(os.getpid(), signal.SIGKILL)

    sync(settings, registry_of(VIEW, SHORT), VIEW, run_id="killed", progress=die)


def test_a_killed_sync_is_resumed_at_the_chunk(platform, run, settings, client, monkeypatch) -> None:
    """The next sync writes what is left of the plan, and then what was published meanwhile."""
    count = 80_000
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        partition = Partition(start=MARCH + DAY, end=MARCH + 2 * DAY, grain=Grain.DAY)
        (batch,) = ledger.open_batches(VIEW, [partition], run_id="run")
        connection.execute(
            "insert into batches.delays_v1 select 'c' || i, 1, ?, i, 'x', ?, ? from range(?) r(i)",
            [partition.end, batch.batch_id, partition.start, count],
        )
        ledger.record_computed([measured(batch.batch_id, count)])
    platform.add(VIEW, MARCH, [row("old", 0, 1.0)])
    platform.publish(batch.batch_id)
    process = multiprocessing.get_context("spawn").Process(target=sync_until_killed, args=(settings, count // 2))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    platform.add(VIEW, MARCH + 5 * DAY, [row("new", 5, 5.0)])
    monkeypatch.setattr(plans, "NEWEST_ROWS", 2)
    result = run()
    assert (result.from_position, result.to_position) == (0, 3)
    # half had been acknowledged; up to two batches of 10,000 may have been ahead of a gap, and are written again
    assert 2 < result.entities <= 2 + count // 2 + 20_000
    assert read(client, "c0", f"c{count // 2}", f"c{count - 1}", "old", "new") == [0.0, count / 2, count - 1, 1.0, 5.0]
    assert run(rebuild=True).entities == count + 2


def test_the_ledger_knows_the_beginning_before_the_first_write(platform, run, valkey, monkeypatch) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])

    def die(*_: object) -> None:
        with Ledger.connect(platform.settings.ledger_url) as ledger:
            (begun,) = ledger.syncs(VIEW.key, "default")
        assert (begun.from_position, begun.to_position, begun.ended_at) == (0, 1, None)
        raise KeyboardInterrupt

    send = Connection.send

    def send_all_but_rows(connection: Connection, frames: bytes) -> None:
        die() if b"delays@1:{" in frames else send(connection, frames)

    monkeypatch.setattr(Connection, "send", send_all_but_rows)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    assert valkey.call("EXISTS", "delays@1:{UA,1}") == 0
    assert run().from_position == 0, "a dead sync did not advance the store"


def test_a_sync_that_died_after_the_store_advanced_is_ended_by_the_next(platform, run, monkeypatch) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "end_sync", die)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    result = run()
    assert (result.from_position, result.to_position, result.entities) == (1, 1, 0)
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert ledger.synced_position(VIEW.key, "default") == 1
        assert len(ledger.online_at(VIEW.key, "default")) == 1


def test_an_emptied_store_is_built_again_with_its_documents(platform, run, valkey, settings) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    platform.add(VIEW, MARCH + DAY, [row("AA", 1, 2.0)])
    publish_schemas(settings.valkey_url, platform.registry)
    run()
    valkey.pipeline([("FLUSHALL",), ("FUNCTION", "FLUSH", "SYNC")])
    assert run().from_position == 0
    with FeatureClient.connect(settings.valkey_url) as fresh:
        assert read(fresh, "UA", "AA") == [1.0, 2.0]
        assert [view.key for view in fresh.describe("departure_delay")] == ["delays@1", "short@1"]


def test_a_store_emptied_during_the_sync_is_noticed(platform, run, valkey, client, monkeypatch) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    advance = functions.advance
    lost: list[int] = []

    def lose_first(*arguments: Any) -> bool:
        if not lost:
            lost.append(1)
            valkey.call("FLUSHALL")
        return advance(*arguments)

    monkeypatch.setattr(functions, "advance", lose_first)
    assert run().from_position == 0
    assert read(client, "UA") == [1.0]

    monkeypatch.setattr(functions, "advance", lambda *_: False)
    platform.add(VIEW, MARCH, [row("UA", 0, 2.0)])
    with pytest.raises(StoreChangedError, match="changed during each of 5"):
        run()


def test_a_store_emptied_before_its_documents_were_put_back_gets_them(
    platform, run, valkey, client, monkeypatch
) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    put_back, emptied = runners.ensure_published, []

    def lose_first(*args: Any) -> None:
        put_back(*args)
        if not emptied:
            emptied.append(valkey.call("FLUSHALL"))

    monkeypatch.setattr(runners, "ensure_published", lose_first)
    assert run().written == 1
    assert read(client, "UA") == [1.0]


def test_a_process_with_older_declarations_does_not_sync(platform, run, settings) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    wider = dataclasses.replace(VIEW, features=(*VIEW.features, Column(name="added", type=ColumnType.DOUBLE)))
    with Ledger.connect(settings.ledger_url) as ledger:
        ledger.record_deployment(platform_version="1", manifest_hash="h", views={VIEW.key: dataclasses.asdict(wider)})
        with pytest.raises(NotDeployedError, match="added"):
            run()
        assert ledger.syncs() == ()


def test_a_store_of_another_ledger_is_refused(platform, run, valkey) -> None:
    functions.load(valkey)
    begun = functions.begin(valkey, VIEW.key)
    assert functions.advance(valkey, VIEW.key, begun, 9)
    with pytest.raises(LedgerConflictError, match="position 9, this ledger ends at 0"):
        run()


def test_a_ledger_that_was_restored_does_not_grow_past_what_the_store_got_of_its_other_future(platform, run, valkey):
    """Lost with the ledger: positions 2 and 3. Its new ones are other batches, and their numbers catch up."""
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    run()
    functions.load(valkey)
    assert functions.advance(valkey, VIEW.key, functions.begin(valkey, VIEW.key), 3)
    for day in (1, 2, 3):
        with pytest.raises(LedgerConflictError, match="position 3"):
            run()
        platform.add(VIEW, MARCH + day * DAY, [row("AA", day, 2.0)])
    with pytest.raises(LedgerConflictError, match="position 3, where this ledger never brought it"):
        run()
    valkey.call("FLUSHALL")
    assert run().to_position == 4
    # a store under another name, or a copy of it, is the same store
    renamed = dataclasses.replace(platform.settings, store="renamed")
    assert sync(renamed, platform.registry, VIEW, run_id="run").from_position == 4


def test_a_row_of_a_sync_that_a_restored_ledger_does_not_know_is_not_taken_for_a_later_one(
    platform, run, valkey
) -> None:
    """A sync to position 9 wrote one row and was killed; then the ledger was restored."""
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    run()
    (key,) = (k for k in valkey.call("KEYS", "*delays@1*") if valkey.call("TYPE", k) == b"string")
    assert valkey.call("FCALL", functions.write_name(), 1, key, (9).to_bytes(8, "big") + bytes(12), 0) == [1, 0, 0]
    platform.add(VIEW, MARCH + DAY, [row("UA", 1, 2.0), row("AA", 1, 3.0)])
    for _ in range(2):
        with pytest.raises(LedgerConflictError, match=r"1 entities of .* as of a later position than 2"):
            run()
    assert functions.begin(valkey, VIEW.key).position == 1, "the store is not called complete"
    valkey.call("FLUSHALL")
    assert (run().to_position, run(rebuild=True).refused) == (2, 0)


def test_positions_never_move_back_and_belong_to_one_server(valkey) -> None:
    functions.load(valkey)
    begun = functions.begin(valkey, "v@1")
    assert begun.position == 0
    assert functions.advance(valkey, "v@1", begun, 2**60)
    assert functions.advance(valkey, "v@1", begun, 5)
    assert functions.begin(valkey, "v@1").position == 2**60
    assert not functions.advance(valkey, "v@1", dataclasses.replace(begun, server_run_id="0" * 40), 2**61)
    assert not functions.advance(valkey, "v@1", dataclasses.replace(begun, nonce="other"), 2**61)
    assert functions.begin(valkey, "v@1").position == 2**60


def test_positions_are_compared_as_numbers_beyond_53_bits(valkey) -> None:
    functions.load(valkey)
    write = functions.write_name()

    def assert_at(position: int) -> Any:
        return valkey.call("FCALL", write, 1, "k", position.to_bytes(8, "big") + bytes(12), 0)

    assert assert_at(2**53) == [1, 0, 0]
    assert assert_at(2**53 + 1) == [1, 0, 0]
    assert assert_at(2**53) == [0, 1, 0]
    assert assert_at(2**53 + 1) == [1, 0, 0]
    assert assert_at(255) == [0, 1, 0]


def test_expiry_never_moves_back(platform, run, valkey) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    kept = int((today + 6 * DAY).timestamp() * 1000)  # event time + ttl, and the ttl once more
    platform.add(SHORT, today - DAY, [("UA", today, 1), ("AA", today, 2)])
    run(SHORT)
    assert valkey.call("PEXPIRETIME", "short@1:{UA}") == kept
    platform.add(SHORT, today - 2 * DAY, [("UA", today - DAY, 3), ("DL", today - DAY, 4)])
    platform.add(SHORT, today - DAY, [])
    result = run(SHORT)
    assert (result.entities, result.tombstones) == (3, 1)
    assert valkey.call("PEXPIRETIME", "short@1:{UA}") == kept, "the row fell back a day, the key did not"
    assert valkey.call("GET", "short@1:{AA}") == bytes(7) + b"\x03" + bytes(8)
    assert valkey.call("PEXPIRETIME", "short@1:{AA}") == kept


def test_a_write_that_need_not_be_kept_so_long_does_not_shorten_a_life(valkey) -> None:
    functions.load(valkey)
    soon, later = (int((datetime.now(UTC) + days * DAY).timestamp() * 1000) for days in (1, 9))
    for position, until, expected in ((1, later, later), (2, soon, later), (3, 1, later), (4, 0, -1), (5, soon, -1)):
        value = position.to_bytes(8, "big") + bytes(12)
        assert valkey.call("FCALL", functions.write_name(), 1, "k", value, until) == [1, 0, 0]
        # 0 is a view without ttl: for ever is longer than anything
        assert valkey.call("PEXPIRETIME", "k") == expected


def test_rows_long_dead_are_not_written(platform, run, valkey) -> None:
    platform.add(SHORT, MARCH - 300 * DAY, [("UA", MARCH - 299 * DAY, 1)])
    result = run(SHORT)
    assert (result.entities, result.written, result.refused) == (1, 0, 0)
    assert valkey.call("EXISTS", "short@1:{UA}") == 0


def test_tombstones_without_ttl_do_not_stay_for_ever(platform, run, valkey) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    run()
    assert valkey.call("PEXPIRETIME", "delays@1:{UA,1}") == -1
    platform.add(VIEW, MARCH, [])
    run()
    assert valkey.call("PEXPIRETIME", "delays@1:{UA,1}") > 0
    platform.add(VIEW, MARCH, [row("UA", 0, 2.0)])
    run()
    assert valkey.call("PEXPIRETIME", "delays@1:{UA,1}") == -1


def test_large_syncs_are_streamed_with_progress(platform, run, client, monkeypatch) -> None:
    monkeypatch.setattr(reading, "ROWS_PER_BATCH", 2048)
    from feature_platform import lake

    batch_id = platform.open(VIEW, MARCH, [row("UA", 0, 1.0)])
    with lake.connect(platform.settings) as connection:
        connection.execute(
            "insert into batches.delays_v1 select 'c' || i, 1, ?, i, repeat('x', i % 50), ?, ? from range(9000) r(i)",
            [MARCH + DAY, batch_id, MARCH],
        )
    platform.publish(batch_id)
    seen: list[tuple[int, int]] = []
    assert run(progress=lambda done, total: seen.append((done, total))).written == 9001
    assert len(seen) > 2 and seen[-1] == (9001, 9001)
    assert read(client, "c0", "c8999", "UA") == [0.0, 8999.0, 1.0]


def test_rows_that_are_wider_than_the_usual_memory_are_sent_too(platform, client, settings) -> None:
    wide = declare("wide", entities={"id": ColumnType.BIGINT}, features={"e": ListType(ColumnType.FLOAT, 2000)})
    platform = dataclasses.replace(platform, registry=registry_of(wide))
    platform.deploy()
    batch_id = platform.open(wide, MARCH, [(20_000, MARCH + DAY, [0.0] * 2000)])
    # a file of before deploy kept row groups small: one group of 160 MB
    with lake.connect(dataclasses.replace(settings, duckdb_memory="1GB")) as connection:
        connection.execute(
            "insert into batches.wide_v1 select i, ?,"
            " [(hash(i, k) % 1000003)::float for k in range(2000)], ?, ? from range(20000) r(i)",
            [MARCH + DAY, batch_id, MARCH],
        )
    platform.publish(batch_id)
    allowing = dataclasses.replace(settings, duckdb_memory="700MB")
    assert sync(allowing, platform.registry, wide, run_id="run").written == 20_001
    (answer,) = client.get_online_features("wide:e", [{"id": 19_999}])
    assert len(answer.values["e"]) == 2000
    little = dataclasses.replace(settings, duckdb_memory="100MB")
    with pytest.raises(MemoryLimitError, match="reading wide@1 for the online store"):
        sync(little, platform.registry, wide, run_id="run", rebuild=True)


def test_values_no_client_could_read_are_refused(platform, run) -> None:
    when = declare("when", entities={"carrier": ColumnType.VARCHAR}, features={"at": ColumnType.TIMESTAMPTZ})
    platform = dataclasses.replace(platform, registry=registry_of(when))
    platform.deploy()
    platform.add(when, MARCH, [("UA", MARCH + DAY, "infinity")])
    with pytest.raises(BatchRejectedError, match="column 'at'"):
        sync(platform.settings, platform.registry, when, run_id="run")


def test_what_is_wrong_is_said(platform, run, settings) -> None:
    offline = dataclasses.replace(VIEW, online=OnlineTier.NONE)
    with pytest.raises(RequestError, match="not served online"):
        run(offline)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        sync(dataclasses.replace(settings, valkey_url="unix:///nowhere.sock"), platform.registry, VIEW, run_id="run")
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    wider = dataclasses.replace(VIEW, features=(*VIEW.features, dataclasses.replace(VIEW.features[0], name="more")))
    with pytest.raises(NotDeployedError, match="delays@1"):
        run(wider)


def test_a_store_that_was_set_back_beyond_what_retention_deleted_is_refused(
    platform: Platform, run: Callable[..., SyncResult], client: FeatureClient, valkey: Connection
) -> None:
    """Without ttl no row dies, and only rows tell which entities lost one."""
    first = platform.add(VIEW, MARCH, [row("UA", 0, 1.0), row("AA", 0, 2.0)])
    run()
    backup = {key: (valkey.call("DUMP", key)) for key in valkey.call("KEYS", "*")}
    platform.add(VIEW, MARCH, [row("UA", 0, 3.0)])
    run()
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        ledger.retire(VIEW.key, {first: Fate.SUPERSEDED})
    assert run().entities == 0  # the store is past it
    valkey.call("FLUSHALL")
    rebuilt = run(rebuild=True)
    assert rebuilt.written - rebuilt.tombstones == 1  # an empty store never held it
    valkey.call("FLUSHALL")
    for key, value in backup.items():
        valkey.call("RESTORE", key, "0", value)
    with pytest.raises(LedgerConflictError, match="deleted by retention"):
        run()
