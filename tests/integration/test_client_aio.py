"""The client for asyncio against a real Valkey: the same answers, shared connections, deadlines, the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from online_support import make_view

from feature_platform.domain.types import ColumnType
from feature_platform.errors import ConfigurationError, EntityError, StoreUnavailableError, UnknownNameError
from feature_platform.online import FeatureClient, LogSettings
from feature_platform.online import catalog as catalogs
from feature_platform.online.aio import AsyncFeatureClient
from feature_platform.online.aio_transport import CONNECTIONS
from feature_platform.online.catalog import document_of
from feature_platform.online.codec import Layout
from feature_platform.online.connection import Connection
from feature_platform.online.settings import OnlineSettings, ValkeyAddress

NOW = datetime(2026, 3, 10, tzinfo=UTC)
VIEW = make_view("delays", features={"mean": ColumnType.DOUBLE, "note": ColumnType.VARCHAR}, ttl=timedelta(days=3))


@pytest.fixture
def store(valkey_url: str) -> Iterator[Connection]:
    with Connection(ValkeyAddress.parse(valkey_url), 5.0) as connection:
        catalogs.publish(connection, [document_of(VIEW, latest=True)], ())
        layout = Layout.of((c.name, c.type) for c in VIEW.features)
        for i in range(100):
            value = layout.encode(1, NOW - timedelta(hours=i), {"mean": float(i), "note": f"n{i}" if i % 3 else None})
            connection.call("SET", f"delays@1:{{c{i}}}", value)
        yield connection


def client_of(store: Connection, log: LogSettings | None = None, **settings) -> AsyncFeatureClient:
    return AsyncFeatureClient(OnlineSettings(address=store.address, **settings), clock=lambda: NOW, log=log)


def test_the_same_answers_as_without_asyncio(store) -> None:
    entities = {"carrier": [f"c{i}" for i in range(0, 120, 7)]}

    async def read():
        async with client_of(store) as client:
            with pytest.raises(UnknownNameError):
                await client.get_online_features("nothing", entities)
            with pytest.raises(EntityError):
                await client.get_online_features("delays", {"carrier": [1]})
            assert [view.key for view in await client.describe("delays")] == ["delays@1"]
            return await client.get_online_features("delays", entities)

    found = asyncio.run(read())
    with FeatureClient(OnlineSettings(address=store.address), clock=lambda: NOW) as client:
        expected = client.get_online_features("delays", entities)
    assert found.to_dicts() == expected.to_dicts()
    assert [row.views for row in found] == [row.views for row in expected]
    assert found.to_arrow() == expected.to_arrow()


def test_many_tasks_share_few_connections(store) -> None:
    before = clients(store)

    async def read() -> int:
        async with client_of(store, timeout_seconds=30) as client:

            async def one(i: int) -> None:
                for _ in range(5):
                    answer = await client.get_online_features("delays:mean", [{"carrier": f"c{i}"}])
                    assert answer[0].values["mean"] in (float(i), None)
                    assert answer[0].views["delays@1"].age == timedelta(hours=i)

            await asyncio.gather(*map(one, range(100)))
            return clients(store) - before

    assert asyncio.run(read()) <= CONNECTIONS


def clients(store: Connection) -> int:
    info = dict(line.split(":") for line in store.call("INFO", "clients").decode().split()[2:])
    return int(info["connected_clients"])


def test_a_task_that_gives_up_does_not_disturb_the_others(store) -> None:
    async def read() -> None:
        async with client_of(store, timeout_seconds=30) as client:
            await client.describe("delays")
            store.call("CLIENT", "PAUSE", 100, "ALL")
            # of two limits the later one is met first, and a third is known before either has passed
            late = [client.get_online_features("delays", [{"carrier": "c1"}], timeout_seconds=t) for t in (0.04, 0.02)]
            patient = [client.get_online_features("delays", [{"carrier": f"c{i}"}]) for i in range(2, 20)]
            cancelled = asyncio.ensure_future(client.get_online_features("delays", [{"carrier": "c50"}]))
            asyncio.get_running_loop().call_later(0.01, cancelled.cancel)
            first, second, *others = await asyncio.gather(*late, *patient, return_exceptions=True)
            assert all(isinstance(one, StoreUnavailableError) and "in time" in str(one) for one in (first, second))
            assert [answer[0].values["mean"] for answer in others] == [float(i) for i in range(2, 20)]
            assert cancelled.cancelled()

    asyncio.run(read())


def test_a_server_that_does_not_answer_and_one_that_comes_back(store) -> None:
    async def read() -> None:
        async with client_of(store, timeout_seconds=0.1) as client:
            await client.ping()
            store.call("CLIENT", "PAUSE", 250, "ALL")
            with pytest.raises(StoreUnavailableError, match="in time"):
                await client.get_online_features("delays", [{"carrier": "c1"}])
            answer = await client.get_online_features("delays", [{"carrier": "c1"}], timeout_seconds=30)
            assert answer[0].values["mean"] == 1.0
            store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            answers = [client.get_online_features("delays", [{"carrier": "c2"}], timeout_seconds=30) for _ in range(9)]
            assert all(answer[0].values["mean"] == 2.0 for answer in await asyncio.gather(*answers))
        with pytest.raises(ConfigurationError, match="closed"):
            await client.ping()

    asyncio.run(read())


def test_nobody_there() -> None:
    async def read() -> None:
        for url in ("unix:///nowhere/valkey.sock", "valkey://127.0.0.1:1"):
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                await AsyncFeatureClient.connect(url)

    asyncio.run(read())


def test_documents_are_read_once_for_all_tasks(store) -> None:
    store.call("CONFIG", "RESETSTAT")

    async def read() -> None:
        async with client_of(store, timeout_seconds=30) as client:
            await asyncio.gather(*(client.describe("delays") for _ in range(50)))

    asyncio.run(read())
    stats = store.call("INFO", "commandstats").decode()
    assert "cmdstat_hgetall:calls=3," in stats


def test_what_is_served_is_logged(store) -> None:
    async def read():
        async with client_of(store, log=LogSettings()) as client:
            answer = await client.get_online_features("delays", [{"carrier": "c1"}], request_id="r-1")
            assert answer.request_id == "r-1"
            assert (await client.get_online_features("delays", [{"carrier": "c1"}])).request_id
            return client.log

    log = asyncio.run(read())
    assert (log.counts().logged, log.counts().dropped) == (2, 0)
    assert store.call("XLEN", "feature_platform:log") == 2
