"""How a client reads: round trips, deadlines, one refresh for all, cached and hot entities."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from online_support import OWNER, make_view

from feature_platform.domain.feature_service import FeatureService, Remedy, ServingPolicy, ViewSelection
from feature_platform.domain.feature_view import FreshnessSla
from feature_platform.domain.types import ColumnType
from feature_platform.errors import CorruptValueError, StoreUnavailableError, UnknownNameError, UnusableFeaturesError
from feature_platform.online import FeatureClient
from feature_platform.online import catalog as catalogs
from feature_platform.online.catalog import document_of
from feature_platform.online.codec import Layout
from feature_platform.online.connection import Connection
from feature_platform.online.settings import OnlineSettings, ValkeyAddress
from feature_platform.online.view_values import FeatureStatus

NOW = datetime(2026, 3, 10, tzinfo=UTC)
SLA = FreshnessSla(warn_after=timedelta(days=1), error_after=None)
DELAYS = make_view("delays", features={"mean": ColumnType.DOUBLE}, ttl=timedelta(days=3))
COUNTS = make_view("counts", features={"n": ColumnType.BIGINT})


@pytest.fixture
def store(valkey_url: str) -> Iterator[Connection]:
    with Connection(ValkeyAddress.parse(valkey_url), 5.0) as connection:
        fill(connection)
        yield connection


def fill(store: Connection) -> None:
    catalogs.publish(store, [document_of(view, latest=True) for view in (DELAYS, COUNTS)], ())
    put(store, DELAYS, "UA", {"mean": 1.5})
    put(store, COUNTS, "UA", {"n": 3})


def put(store: Connection, view, carrier: str, row, instant=NOW) -> None:
    value = Layout.of((c.name, c.type) for c in view.features).encode(1, instant, row)
    store.call("SET", f"{view.key}:{{{carrier}}}", value)


def client_of(store: Connection, **settings) -> FeatureClient:
    return FeatureClient(OnlineSettings(address=store.address, **settings), clock=lambda: NOW)


def count_of(store: Connection, command: str) -> int:
    info = store.call("INFO", "commandstats").decode()
    found = [line for line in info.splitlines() if line.startswith(f"cmdstat_{command}:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


def test_one_round_trip_for_any_number_of_views_and_entities(store) -> None:
    with client_of(store) as client:
        client.describe(["delays", "counts"])
        before = count_of(store, "mget"), count_of(store, "hgetall")
        answer = client.get_online_features(["delays", "counts"], {"carrier": ["UA", "AA", "UA"]})
        assert answer.to_columns() == {"carrier": ["UA", "AA", "UA"], "mean": [1.5, None, 1.5], "n": [3, None, 3]}
        assert (count_of(store, "mget"), count_of(store, "hgetall")) == (before[0] + 1, before[1])
        assert answer.statuses() == {
            "delays@1": ["fresh", "missing", "fresh"],
            "counts@1": ["fresh", "missing", "fresh"],
        }
        assert answer.ages()["delays@1"] == [timedelta(0), None, timedelta(0)]


@contextmanager
def slow_server(answer: bytes, pause: float) -> Iterator[str]:
    """Answers every request by one byte after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.recv(1 << 16)
                    for at in range(len(answer)):
                        if stop.wait(pause):
                            return
                        try:
                            connection.send(answer[at : at + 1])
                        except OSError:
                            break

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"valkey://127.0.0.1:{server.getsockname()[1]}"
        stop.set()
        thread.join()


def test_a_deadline_holds_for_the_whole_call() -> None:
    """A server that dribbles would keep a client for ever whose timeout begins anew with each piece."""
    with slow_server(b"+" + b"x" * 200, 0.02) as url:
        client = FeatureClient(OnlineSettings.parse(url, timeout_seconds=60))
        with pytest.raises(StoreUnavailableError, match="in time"):
            client.get_online_features("delays", [{"carrier": "UA"}], timeout_seconds=0.2)


def test_a_call_may_have_more_or_less_time_than_the_client(store) -> None:
    with client_of(store, timeout_seconds=0.3) as client:
        client.ping()
        store.call("CLIENT", "PAUSE", 100, "ALL")
        with pytest.raises(StoreUnavailableError, match="in time"):
            client.get_online_features("delays", [{"carrier": "UA"}], timeout_seconds=0.02)
        assert client.get_online_features("delays", [{"carrier": "UA"}], timeout_seconds=30)[0].values == {"mean": 1.5}


def test_documents_are_read_once_for_all_threads(store) -> None:
    with client_of(store, timeout_seconds=30, catalog_seconds=0.0) as client:
        # every request finds the documents too old
        client.ping()
        before = count_of(store, "hgetall")
        barrier = threading.Barrier(16)

        def read() -> None:
            barrier.wait()
            for _ in range(5):
                assert client.get_online_features("delays", [{"carrier": "UA"}])[0].values == {"mean": 1.5}

        store.call("CLIENT", "PAUSE", 200, "ALL")
        threads = [threading.Thread(target=read) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert count_of(store, "hgetall") - before < 3 * 16 * 5, "some went on with what others had read"

    with client_of(store, timeout_seconds=30) as client:
        before = count_of(store, "hgetall")
        store.call("CLIENT", "PAUSE", 200, "ALL")
        threads = [threading.Thread(target=client.describe, args=("delays",)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert count_of(store, "hgetall") - before == 3, "one of them read the three hashes"


def test_a_store_that_was_emptied_has_missing_rows_and_no_unknown_names(store) -> None:
    """Whether or not the documents were read again while it was empty."""
    with client_of(store, catalog_seconds=0.0) as client:
        assert client.get_online_features("delays", [{"carrier": "UA"}])[0].values == {"mean": 1.5}
        store.call("FLUSHALL")
        (row,) = client.get_online_features("delays", [{"carrier": "UA"}])
        assert (row.values, row.views["delays@1"].status) == ({"mean": None}, FeatureStatus.MISSING)
        with pytest.raises(UnknownNameError):
            client.describe("nothing")
        fill(store)
        assert client.get_online_features("delays", [{"carrier": "UA"}])[0].values == {"mean": 1.5}
    store.call("FLUSHALL")
    with client_of(store) as client, pytest.raises(UnknownNameError, match="the store is empty"):
        client.describe("delays")


def test_an_unknown_name_is_not_looked_up_again_at_once(store) -> None:
    with client_of(store) as client:
        client.describe("delays")
        before = count_of(store, "hgetall")
        for _ in range(20):
            with pytest.raises(UnknownNameError):
                client.describe("nothing")
        assert count_of(store, "hgetall") - before == 3


def test_cached_entities_are_bounded_and_short_lived(store) -> None:
    with client_of(store, cache_seconds=30.0, cache_entries=2) as client:

        def read(*carriers):
            return client.get_online_features("delays", {"carrier": list(carriers)}).to_columns()["mean"]

        assert read("UA", "AA") == [1.5, None]
        put(store, DELAYS, "UA", {"mean": 9.0})
        put(store, DELAYS, "AA", {"mean": 9.0})
        assert read("UA", "AA") == [1.5, None], "also that there was none"
        assert read("B1", "B2") == [None, None]
        assert read("UA", "AA") == [9.0, 9.0], "the oldest made room"
    with client_of(store, cache_seconds=0.001) as client:
        assert client.get_online_features("delays", [{"carrier": "UA"}])[0].values == {"mean": 9.0}
        put(store, DELAYS, "UA", {"mean": 8.0})
        time.sleep(0.002)
        assert client.get_online_features("delays", [{"carrier": "UA"}])[0].values == {"mean": 8.0}


def test_hot_entities_are_reported_per_view(store) -> None:
    with client_of(store) as client:
        for i in range(2000):
            client.get_online_features(["delays", "counts"], [{"carrier": "UA" if i % 2 else f"c{i}"}])
        (hot,) = client.hot_keys("delays@1")
        assert (hot.view, hot.entity) == ("delays@1", "UA")
        assert {one.view for one in client.hot_keys()} == {"delays@1", "counts@1"}
        assert 0.1 < hot.share < 0.4


def test_a_document_of_a_newer_platform_keeps_nobody_else_waiting(store) -> None:
    text = document_of(COUNTS, latest=True).to_json().replace("BIGINT", "OCTONION")
    store.call("HSET", "feature_platform:views", "counts@1", text)
    with client_of(store) as client:
        assert client.get_online_features("delays", [{"carrier": "UA"}])[0].values == {"mean": 1.5}
        for ref in ("counts", "counts@1", "counts@v1", "counts:n"):
            with pytest.raises(CorruptValueError, match=r"counts@1 cannot be read[\s\S]*OCTONION[\s\S]*upgrade"):
                client.get_online_features([ref], [{"carrier": "UA"}])


def service(policy: ServingPolicy) -> FeatureService:
    return FeatureService(
        name="model",
        description="",
        owner=OWNER,
        selections=(
            ViewSelection(view="delays", version=1, features=("mean",)),
            ViewSelection(view="counts", version=1, features=("n",)),
        ),
        latency_budget=None,
        batch_size=None,
        freshness=None,
        unique_id="exposure.test.model",
        path="",
        policy=policy,
    )


def test_a_service_says_what_is_done_about_values_that_are_not_fresh(store) -> None:
    views = [document_of(view, latest=True) for view in (replace(DELAYS, freshness=SLA), COUNTS)]
    defaults = {"delays@1": {"mean": -1}, "counts@1": {"n": None}}
    put(store, DELAYS, "old", {"mean": 5.0}, NOW - timedelta(days=2))
    put(store, DELAYS, "dead", {"mean": 5.0}, NOW - timedelta(days=3))
    carriers = {"carrier": ["UA", "old", "dead", "none"]}

    def read(**remedies):
        catalogs.publish(store, views, [service(ServingPolicy(defaults=defaults, **remedies))])
        with client_of(store) as client:
            answer = client.get_online_features("model", carriers)
            table = answer.to_arrow()
            assert table.drop_columns("carrier").to_pydict() == {k: answer.to_columns()[k] for k in ("mean", "n")}
            assert [row.values["mean"] for row in answer] == answer.to_columns()["mean"]
            return answer

    statuses = ["fresh", "stale", "expired", "missing"]
    answer = read()
    assert answer.to_columns()["mean"] == [1.5, 5.0, None, None]
    assert answer.statuses()["delays@1"] == statuses
    answer = read(expired=Remedy.DEFAULT, missing=Remedy.DEFAULT)
    assert answer.to_columns()["mean"] == [1.5, 5.0, -1.0, -1.0]
    assert isinstance(answer[2].values["mean"], float)
    assert answer.to_columns()["n"] == [3, None, None, None]
    assert answer.statuses()["delays@1"] == statuses, "a default is told from a value"
    assert read(stale=Remedy.DEFAULT).to_columns()["mean"] == [1.5, -1.0, None, None]
    for remedy, unusable in (("stale", [(1, "delays@1", "stale")]), ("expired", [(2, "delays@1", "expired")])):
        with pytest.raises(UnusableFeaturesError, match="entity") as caught:
            read(**{remedy: Remedy.RAISE})
        assert list(caught.value.unusable) == unusable
    with pytest.raises(UnusableFeaturesError) as caught:
        read(missing=Remedy.RAISE)
    assert len(caught.value.unusable) == 4
    assert "and 1 more" in str(caught.value)
    with client_of(store) as client:
        assert client.get_online_features(["delays"], carriers).statuses()["delays@1"] == statuses, "a service's alone"
