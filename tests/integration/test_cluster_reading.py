"""Both clients against a real cluster of three primaries and three replicas: scattered, redirected, bereaved."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest
from cluster_support import Cluster, ClusterNode, migrate, wait_until
from online_support import make_view

from feature_platform.domain.types import ColumnType
from feature_platform.errors import ConfigurationError, StoreUnavailableError
from feature_platform.online import FeatureClient, LogSettings
from feature_platform.online.aio import AsyncFeatureClient
from feature_platform.online.catalog import document_of, layout_command
from feature_platform.online.codec import Layout
from feature_platform.online.keys import VIEWS
from feature_platform.online.settings import OnlineSettings
from feature_platform.online.slots import key_slot
from feature_platform.online.writable import open_store

NOW = datetime(2026, 3, 10, tzinfo=UTC)
VIEW = make_view("delays", features={"mean": ColumnType.DOUBLE})
CARRIERS = [f"c{i}" for i in range(300)]
VALUES = [float(i) for i in range(300)]


@pytest.fixture(scope="module", autouse=True)
def rows(cluster: Cluster) -> None:
    """A view that has 300 entities."""
    document = document_of(VIEW, latest=True)
    layout = Layout.of((c.name, c.type) for c in VIEW.features)
    commands = [layout_command(document), ("HSET", VIEWS, document.key, document.to_json())]
    for carrier, value in zip(CARRIERS, VALUES, strict=True):
        commands.append(("SET", f"delays@1:{{{carrier}}}", layout.encode(1, NOW, {"mean": value})))
    with closing(open_store(cluster.url, 30.0)) as store:
        store.pipeline(commands)


def settings_of(cluster: Cluster, timeout_seconds: float = 30.0, read_from: str = "primaries") -> OnlineSettings:
    return OnlineSettings.parse(f"{cluster.url}?read_from={read_from}", timeout_seconds=timeout_seconds)


def client_of(cluster: Cluster, **settings) -> FeatureClient:
    return FeatureClient(settings_of(cluster, **settings), clock=lambda: NOW)


def gets(nodes: list[ClusterNode]) -> list[int]:
    found = []
    for node in nodes:
        stats = dict(line.split(":", 1) for line in node.call("INFO", "commandstats").decode().split()[2:])
        found.append(int(stats.get("cmdstat_get", "calls=0").split(",")[0].removeprefix("calls=")))
    return found


def test_one_request_reads_from_all_nodes(cluster) -> None:
    before = gets(cluster.primaries)
    with client_of(cluster) as client:
        answer = client.get_online_features("delays", {"carrier": [*CARRIERS, "none"]})
        assert answer.to_columns()["mean"] == [*VALUES, None]
    read = [after - before for after, before in zip(gets(cluster.primaries), before, strict=True)]
    assert sum(read) == 301
    assert min(read) > 50


def test_the_same_with_asyncio(cluster) -> None:
    async def read() -> None:
        async with AsyncFeatureClient(settings_of(cluster), clock=lambda: NOW) as client:
            answers = [client.get_online_features("delays", {"carrier": CARRIERS}) for _ in range(10)]
            for answer in await asyncio.gather(*answers):
                assert answer.to_columns()["mean"] == VALUES

    asyncio.run(read())


def test_reads_from_replicas(cluster) -> None:
    primaries, replicas = gets(cluster.primaries), gets(cluster.replicas)
    with client_of(cluster, read_from="replicas") as client:
        assert client.get_online_features("delays", {"carrier": CARRIERS}).to_columns()["mean"] == VALUES
    assert gets(cluster.primaries) == primaries
    assert sum(gets(cluster.replicas)) - sum(replicas) == 300


def test_the_address_of_one_node_is_not_enough(cluster) -> None:
    with pytest.raises(ConfigurationError, match=r"MOVED[\s\S]*valkey\+cluster://"):
        FeatureClient(OnlineSettings.parse(f"valkey://{cluster.primaries[0].name}")).describe("delays")


def test_what_is_served_is_logged(cluster) -> None:
    with FeatureClient(settings_of(cluster), clock=lambda: NOW, log=LogSettings()) as client:
        client.get_online_features("delays", {"carrier": CARRIERS[:3]})
        log = client.log
    assert (log.counts().logged, log.counts().error) == (1, "")


@contextmanager
def read_all_the_while(cluster: Cluster, **settings) -> Iterator[Callable[[], tuple[int, list[Exception]]]]:
    """Reads everything again and again with both clients; how often it worked, and what failed."""
    done, failures = [0], []
    stop = threading.Event()

    def check(answer) -> None:
        assert answer.to_columns()["mean"] == VALUES
        done[0] += 1

    def once(read: Callable[[], object]) -> None:
        try:
            check(read())
        except Exception as error:  # noqa: BLE001 - judged by the test
            failures.append(error)

    def with_threads() -> None:
        with client_of(cluster, **settings) as client:
            while not stop.is_set():
                once(lambda: client.get_online_features("delays", {"carrier": CARRIERS}))

    def with_tasks() -> None:
        with asyncio.Runner() as runner:
            client = AsyncFeatureClient(settings_of(cluster, **settings), clock=lambda: NOW)
            while not stop.is_set():
                once(lambda: runner.run(client.get_online_features("delays", {"carrier": CARRIERS})))
            runner.run(client.close())

    threads = [threading.Thread(target=target) for target in (with_threads, with_tasks)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: done[0] >= 2)
        yield lambda: (done[0], list(failures))
        reached = done[0]
        wait_until(lambda: done[0] >= reached + 4)  # it goes on
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_slot_is_migrated_while_reading(cluster) -> None:
    slots = sorted({key_slot(f"delays@1:{{{carrier}}}".encode()) for carrier in CARRIERS})[:20]
    with read_all_the_while(cluster) as progress:
        for slot in slots:
            source = cluster.owner(slot)
            target = next(node for node in cluster.primaries if node is not source)
            with client_of(cluster, timeout_seconds=5) as client:
                migrate(slot, source, target, cluster, lambda client=client: read_all(client))
    done, failures = progress()
    assert not failures
    assert done >= 6


def read_all(client: FeatureClient) -> None:
    assert client.get_online_features("delays", {"carrier": CARRIERS}).to_columns()["mean"] == VALUES


def test_a_primary_dies_while_reading_with_time_to_wait(cluster) -> None:
    with read_all_the_while(cluster) as progress:
        victim = cluster.primaries[1]
        victim.kill()
        wait_until(lambda: b"role:master" in cluster.replicas[1].call("INFO", "replication"))
    done, failures = progress()
    assert not failures, "whoever has time waits for the replica to be promoted"
    assert done >= 6
    cluster.revive(victim)


def test_a_primary_dies_while_reading_in_a_hurry(cluster) -> None:
    with read_all_the_while(cluster, timeout_seconds=0.3) as progress:
        victim = cluster.primaries[2]
        victim.kill()
        wait_until(lambda: progress()[1])
        cluster.promote(victim)
    _, failures = progress()
    assert all(isinstance(error, StoreUnavailableError) for error in failures), failures
    cluster.revive(victim)


def test_a_replica_dies_while_reading_from_replicas(cluster) -> None:
    with read_all_the_while(cluster, read_from="replicas") as progress:
        cluster.replicas[0].kill()
    done, failures = progress()
    assert not failures, "its primary answers instead"
    assert done >= 6
    cluster.revive(cluster.replicas[0])
