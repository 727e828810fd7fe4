"""A real cluster that is written, while slots move, primaries die and shards are emptied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from cluster_support import Cluster, ClusterNode, migrate, wait_until
from ledger_batches import measured
from offline_platform import Platform, declare, registry_of

from feature_platform import lake
from feature_platform.canary import run_canary
from feature_platform.declaration.canary import canary_view
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, Partition
from feature_platform.errors import LedgerConflictError, StoreUnavailableError
from feature_platform.lake.log_tables import plan_tables, served_table
from feature_platform.lake.sql import build_create_table
from feature_platform.ledger import Ledger
from feature_platform.observability.store_meters import read_store_meters
from feature_platform.online import FeatureClient, LogSettings
from feature_platform.online.feature_log import STREAM
from feature_platform.online.keys import push_key, row_key
from feature_platform.online.settings import OnlineSettings
from feature_platform.online.slot_positions import slot_keys
from feature_platform.online.slots import SLOTS, key_slot
from feature_platform.online.writable import open_store
from feature_platform.online.writable_cluster import WritableCluster
from feature_platform.served_log import drain
from feature_platform.settings import Settings
from feature_platform.sync import SyncResult, publish_schemas, reading, resuming, sync
from feature_platform.sync import plan as plans
from feature_platform.sync.dropping import drop
from feature_platform.sync.parity import Cause, ParityReport, check_parity, pushed, repair
from feature_platform.sync.push import FeaturePusher, drain_pushes

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VIEW = declare("flights", entities={"carrier": ColumnType.VARCHAR}, features={"n": ColumnType.BIGINT})
PUSHED = declare(
    "clicks", entities={"user": ColumnType.BIGINT}, features={"n": ColumnType.BIGINT}, ttl=2 * DAY, push=True
)
ROWS = 3000
CARRIERS = [f"c{i}" for i in range(ROWS)]


@pytest.fixture
def platform(settings: Settings, cluster: Cluster) -> Platform:
    for node in cluster.primaries:
        node.call("FLUSHALL")
    platform = Platform(dataclasses.replace(settings, valkey_url=cluster.url), registry_of(VIEW, PUSHED))
    platform.deploy(*(statement for _, statements in plan_tables({}) for statement in statements))
    with Ledger.connect(settings.ledger_url) as ledger:
        views = {view.key: dataclasses.asdict(view) for view in (VIEW, PUSHED)}
        ledger.record_deployment(platform_version="1", manifest_hash="h", views=views)
    return platform


@pytest.fixture
def opened(platform: Platform) -> Iterator[duckdb.DuckDBPyConnection]:
    """One connection to the lake for all that a test reads: opening it costs more than reading so few rows."""
    with closing(lake.connect(platform.settings, read_only=True)) as connection:
        yield connection


@pytest.fixture
def run(platform: Platform, opened: duckdb.DuckDBPyConnection) -> Callable[..., SyncResult]:
    return lambda **options: sync(platform.settings, platform.registry, VIEW, run_id="run", lake=opened, **options)


@pytest.fixture
def compare(platform: Platform, opened: duckdb.DuckDBPyConnection) -> Callable[[], ParityReport]:
    """Compares every entity."""
    return lambda: check_parity(platform.settings, platform.registry, VIEW, sample=None, lake=opened)


@pytest.fixture
def online(cluster: Cluster) -> Iterator[WritableCluster]:
    with closing(open_store(cluster.url, 30.0)) as store:
        assert isinstance(store, WritableCluster)
        yield store


@pytest.fixture
def in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS_PER_BATCH", 256)


def add(platform: Platform, day: int, plus: int) -> None:
    """Publish `i + plus` for each carrier."""
    start = MARCH + day * DAY
    with Ledger.connect(platform.settings.ledger_url) as ledger, lake.connect(platform.settings) as connection:
        partition = Partition(start=start, end=start + DAY, grain=Grain.DAY)
        (batch,) = ledger.open_batches(VIEW, [partition], run_id="run")
        connection.execute(
            "insert into batches.flights_v1 select 'c' || i, ?, i + ?, ?, ? from range(?) r(i)",
            [partition.end, plus, batch.batch_id, start, ROWS],
        )
        ledger.record_computed([measured(batch.batch_id, ROWS)])
    platform.publish(batch.batch_id)


def read(cluster: Cluster) -> list[int | None]:
    settings = OnlineSettings.parse(cluster.url, timeout_seconds=30.0)
    with FeatureClient(settings, clock=lambda: MARCH + 9 * DAY) as client:
        return client.get_online_features("flights", {"carrier": CARRIERS}).to_columns()["n"]


def values(plus: int) -> list[int]:
    return [i + plus for i in range(ROWS)]


def once_at(call: int, act: Callable[[], Any]) -> Callable[[int, int], None]:
    """Progress that does something when it is told for the nth time."""
    calls = iter(range(1, 1000))
    return lambda _done, _total: act() if next(calls) == call else None


def has_copied_all(primary: ClusterNode) -> bool:
    """Whether the replica has everything that the primary acknowledged."""
    facts = dict(line.split(":", 1) for line in primary.call("INFO", "replication").decode().split() if ":" in line)
    return f"offset={facts['master_repl_offset']}," in facts["slave0"]


def is_in_parity(report: ParityReport) -> bool:
    assert report.entities > ROWS * 0.9
    return not report.differing


def test_a_canary_comes_through(platform: Platform) -> None:
    with closing(lake.connect(platform.settings)) as connection:
        for statement in build_create_table(canary_view(platform.registry)):
            connection.execute(statement)
    (read,) = run_canary(platform.settings, platform.registry, run_id="run")
    assert read.is_ok, read


def test_a_view_is_synced_compared_repaired_and_dropped(platform, run, cluster, online, compare) -> None:
    for node in cluster.primaries:
        node.call("FUNCTION", "FLUSH", "SYNC")
    add(platform, 0, 0)
    first = run()
    assert (first.from_position, first.to_position, first.entities, first.written) == (0, 1, ROWS, ROWS)
    assert read(cluster) == values(0)
    sizes = [node.call("DBSIZE") for node in cluster.primaries]
    assert min(sizes) > SLOTS / 4 + ROWS / 4, "rows and positions lie on all primaries"

    platform.add(VIEW, MARCH + DAY, [("c1", MARCH + 2 * DAY, 77)])
    assert (run().entities, run().entities) == (1, 0)
    platform.add(VIEW, MARCH + DAY, [])  # c1 falls back
    platform.add(VIEW, MARCH + 2 * DAY, [("c2", MARCH + 3 * DAY, 5), ("gone", MARCH + 3 * DAY, 5)])
    run()
    platform.add(VIEW, MARCH + 2 * DAY, [])
    assert run().tombstones == 1
    assert read(cluster) == values(0)
    assert is_in_parity(compare())

    forged = b"flights@1:{c9}"
    online.pipeline([("UNLINK", b"flights@1:{c8}"), ("SET", forged, (99).to_bytes(8, "big") + bytes(12))])
    online.call("SET", b"flights@1:{nobody}", (1).to_bytes(8, "big") + bytes(12))
    report = compare()
    assert dict(report.causes) == {Cause.LOST_WRITE: 1, Cause.UNKNOWN: 2}
    assert not repair(platform.settings, platform.registry, report, run_id="repair").differing
    assert read(cluster) == values(0)

    dropped = drop(platform.settings, platform.registry, VIEW.key, even_if_used=True, scan=True)
    assert dropped.rows == ROWS + 1  # a tombstone, too
    assert online.probe([VIEW.key]).positions == {VIEW.key: None}
    assert run().from_position == 0
    assert read(cluster) == values(0)


def test_a_shard_that_was_emptied_is_written_again_and_others_are_not(platform, run, cluster, online, compare) -> None:
    add(platform, 0, 0)
    run()
    before = online.probe([VIEW.key])
    cluster.primaries[0].call("FLUSHALL")
    look = online.probe([VIEW.key])
    assert look.positions[VIEW.key] != before.positions[VIEW.key]
    assert look.positions[VIEW.key][1] == 0, "a store is where its last slot is"
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        began = len(ledger.syncs())
        result = run()
        assert len(ledger.syncs()) == began + 1
    assert (result.from_position, result.to_position) == (0, 1)
    assert ROWS * 0.2 < result.entities < ROWS * 0.5
    assert read(cluster) == values(0)
    platform.add(VIEW, MARCH + DAY, [("c1", MARCH + 2 * DAY, 77)])
    cluster.primaries[1].call("FLUSHALL")
    assert ROWS * 0.2 < run().entities < ROWS * 0.5
    assert read(cluster)[1] == 77
    assert is_in_parity(compare())


@pytest.mark.usefixtures("in_small_batches")
def test_a_shard_emptied_while_it_is_written(platform, run, cluster, compare) -> None:
    add(platform, 0, 0)
    result = run(progress=once_at(6, lambda: cluster.primaries[2].call("FLUSHALL")))
    assert result.to_position == 1
    assert read(cluster) == values(0)
    assert is_in_parity(compare())


@pytest.mark.usefixtures("in_small_batches")
def test_slots_that_move_while_they_are_written(platform, run, cluster, online, compare) -> None:
    add(platform, 0, 0)
    run()
    add(platform, 1, 10_000)
    slot = key_slot(f"flights@1:{{{CARRIERS[-1]}}}".encode())
    moves: list[int] = []

    def move() -> None:
        source = cluster.owner(slot)
        target = next(node for node in cluster.primaries if node is not source)
        migrate(slot, source, target, cluster, lambda: moves.append(slot))

    result = run(progress=once_at(4, move))
    assert moves and result.to_position == 2
    assert read(cluster) == values(10_000)
    assert is_in_parity(compare())
    begun = online.begin(VIEW.key)
    assert begun.position == begun.furthest == 2


def test_a_slot_that_came_from_another_shard_begins_anew(platform, run, cluster, online) -> None:
    """Rows may have been lost on the way; its entry says which shard made it."""
    add(platform, 0, 0)
    run()
    slot = key_slot(b"flights@1:{c7}")
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries if node is not source)
    migrate(slot, source, target, cluster, lambda: target.call("ASKING"))
    target.call("UNLINK", "flights@1:{c7}")  # as if it had been lost
    assert online.probe([VIEW.key]).positions[VIEW.key][1] == 0
    result = run()
    assert 1 <= result.entities < 10
    assert read(cluster) == values(0)


def test_a_slot_is_half_way_while_it_is_written(platform, run, cluster, online, compare) -> None:
    add(platform, 0, 0)
    run()
    add(platform, 1, 10_000)
    slot = key_slot(b"flights@1:{c7}")
    source = cluster.owner(slot)
    target = next(node for node in cluster.primaries if node is not source)
    done = []
    migrate(slot, source, target, cluster, lambda: done.append(run()))
    assert done[0].to_position == 2
    assert read(cluster) == values(10_000)
    assert run().to_position == 2
    assert is_in_parity(compare())


@pytest.mark.usefixtures("in_small_batches")
def test_a_primary_dies_while_it_is_written(platform, run, cluster, online, compare) -> None:
    add(platform, 0, 0)
    run()
    add(platform, 1, 10_000)
    victim = cluster.primaries[1]
    result = run(progress=once_at(5, victim.kill))
    assert result.to_position == 2
    assert read(cluster) == values(10_000)
    assert is_in_parity(compare())
    begun = online.begin(VIEW.key)
    assert begun.position == begun.furthest == 2
    cluster.revive(victim)
    # what was there is there: nothing is written again after a failover
    assert run().entities == 0
    assert read(cluster) == values(10_000)


def test_what_is_pushed_and_logged_outlives_a_primary(platform, cluster, online, monkeypatch) -> None:
    users = [{"user": user} for user in range(30)]
    at = datetime.now(UTC)

    def rows(n: int) -> list[dict[str, Any]]:
        return [{**user, "event_timestamp": at + n * timedelta(milliseconds=1), "n": n} for user in users]

    def ask(client: FeatureClient, request_id: str) -> set[int | None]:
        return set(client.get_online_features("clicks", users, request_id=request_id).to_columns()["n"])

    publish_schemas(cluster.url, platform.registry)
    settings = OnlineSettings.parse(cluster.url, timeout_seconds=30.0)
    with (
        FeaturePusher(platform.settings, platform.registry, pushed_by="test") as pusher,
        FeatureClient(settings, log=LogSettings()) as client,
    ):
        assert pusher.push("clicks", rows(1)).acknowledged
        assert ask(client, "before") == {1}
        wait_until(lambda: client.log.counts().logged == 1)
        assert (drain(platform.settings).entries, drain(platform.settings).entries) == (1, 0)
        assert ask(client, "between") == {1}
        wait_until(lambda: client.log.counts().logged == 2)
        victim = cluster.owner(key_slot(STREAM.encode()))
        wait_until(lambda: has_copied_all(victim))
        victim.kill()
        cluster.promote(victim)
        pusher.push("clicks", rows(2))  # whatever the store had time to say of it, the ledger has it
        assert sync(platform.settings, platform.registry, PUSHED, run_id="run").to_position == 0
        assert ask(client, "after") == {2}
        wait_until(lambda: client.log.counts().logged == 3)
        cluster.revive(victim)
        pusher.push("clicks", [*rows(1)[:5], *rows(3)[5:]])
        assert ask(client, "at last") == {2, 3}, "late pushes lose"
    monkeypatch.setattr(pushed, "IN_FLIGHT", timedelta(0))
    online.remove([push_key(row_key(PUSHED.key, b"7"))])
    report = check_parity(platform.settings, platform.registry, PUSHED)
    assert {kind.value: count for kind, count in report.pushed_outcomes.items()} == {"match": 29, "missing": 1}
    assert not repair(platform.settings, platform.registry, report, run_id="repair").differing
    result = drain(platform.settings)
    assert (result.entries, result.rows, result.lost, result.dropped) == (3, 90, 0, 0)
    with closing(lake.connect(platform.settings, read_only=True)) as connection:
        logged = connection.execute(f"select request_id, count(*) from {served_table()} group by 1 order by 1")
        assert logged.fetchall() == [("after", 30), ("at last", 30), ("before", 30), ("between", 30)]
    assert drain_pushes(platform.settings, PUSHED).rows == 90


def test_a_sync_that_was_ended_goes_on_unless_a_slot_changed(platform, run, cluster, online, monkeypatch) -> None:
    monkeypatch.setattr(reading, "ROWS_PER_BATCH", 256)
    monkeypatch.setattr(plans, "NEWEST_ROWS", 100)
    monkeypatch.setattr(resuming, "NOTE_SECONDS", 0.0)

    class DiedError(Exception):
        pass

    def die() -> None:
        raise DiedError

    def begin_and_die() -> None:
        with pytest.raises(DiedError):
            run(progress=once_at(8, die))

    add(platform, 0, 0)
    begin_and_die()
    assert 0 < run().entities < ROWS - 4 * 256
    assert read(cluster) == values(0)
    add(platform, 1, 10_000)
    begin_and_die()
    cluster.primaries[0].call("FLUSHALL")
    assert run().entities == ROWS
    assert read(cluster) == values(10_000)


def test_what_is_wrong_is_said(platform, run, cluster, online) -> None:
    online.load_functions()
    begun = online.begin(VIEW.key)
    assert online.advance(VIEW.key, begun, 9)
    with pytest.raises(LedgerConflictError, match="position 9, this ledger ends at 0"):
        run()
    with (
        closing(open_store("valkey+cluster://127.0.0.1:1", 0.2)) as gone,
        pytest.raises(StoreUnavailableError, match="cannot be reached"),
    ):
        gone.begin(VIEW.key)


def test_meters_are_of_all_primaries_together(cluster, platform, online) -> None:
    for i in range(300):
        online.call("SET", f"v@1:{{{i}}}", bytes(1000))
    held = [(node.call("DBSIZE"), node.call("MEMORY", "USAGE", node.call("RANDOMKEY"))) for node in cluster.primaries]
    meters = read_store_meters(cluster.url)
    assert meters.keys == sum(keys for keys, _ in held) == 300
    assert meters.memory_of_views == {"v@1": pytest.approx(sum(keys * size for keys, size in held), rel=0.05)}
    assert meters.memory_bytes > meters.memory_of_views["v@1"]


def test_positions_belong_to_slots(cluster, platform, online) -> None:
    online.load_functions()
    begun = online.begin("v@1")
    assert online.advance("v@1", begun, 5) and online.advance("v@1", begun, 3)
    again = online.begin("v@1")
    assert (again.position, again.furthest, again.nonce) == (5, 5, begun.nonce)
    cluster.owner(7).call("HDEL", slot_keys()[7], "v@1")
    assert not online.advance("v@1", begun, 8), "one slot is not what it was"
    part, others = online.begin("v@1").parts
    assert (part.position, part.slots.count(1), others.position) == (0, 1, 8)
    strange = dataclasses.replace(again, run_ids=(b"0" * 40,) * SLOTS)
    assert not online.advance("v@1", strange, 9)
    assert online.begin("v@1").furthest == 8
