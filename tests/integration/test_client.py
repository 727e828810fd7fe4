"""The client against a real Valkey: statuses, errors, threads, forks, dead servers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from online_support import OWNER, make_view, running_valkey

from feature_platform.domain.feature_service import FeatureService, ViewSelection
from feature_platform.domain.types import ColumnType
from feature_platform.errors import (
    ConfigurationError,
    CorruptValueError,
    EntityError,
    RequestError,
    StoreUnavailableError,
    UnknownNameError,
)
from feature_platform.online import FeatureClient, FeatureStatus
from feature_platform.online import catalog as catalogs
from feature_platform.online.catalog import document_of
from feature_platform.online.codec import Layout, tombstone
from feature_platform.online.connection import Connection
from feature_platform.online.keys import entity_key, row_key
from feature_platform.online.settings import OnlineSettings, ValkeyAddress

NOW = datetime(2026, 3, 10, tzinfo=UTC)
DAY = timedelta(days=1)
DELAYS = make_view(
    "delays", features={"mean": ColumnType.DOUBLE, "note": ColumnType.VARCHAR}, ttl=3 * DAY, warn_after=26 * DAY / 24
)
WEATHER = make_view(
    "weather",
    entities={"origin": ColumnType.VARCHAR, "gate": ColumnType.INTEGER},
    features={"mean": ColumnType.FLOAT, "day": ColumnType.DATE},
)
VIEWS = (DELAYS, WEATHER)
SERVICE = FeatureService(
    name="departure",
    description="",
    owner=OWNER,
    selections=(
        ViewSelection(view="delays", version=1, features=("mean",)),
        ViewSelection(view="weather", version=1, features=("mean", "day")),
    ),
    latency_budget=timedelta(milliseconds=20),
    batch_size=100,
    freshness=None,
    unique_id="exposure.test.departure",
    path="",
)


def write(url, view, entity, instant, row, *, position=7) -> None:
    types = tuple((column.name, column.type) for column in view.entities)
    value = (
        tombstone(position)
        if instant is None
        else Layout.of((c.name, c.type) for c in view.features).encode(position, instant, row)
    )
    put(url, row_key(view.key, entity_key(types, entity)), value)


def put(url, key, value) -> None:
    with Connection(ValkeyAddress.parse(url), 5.0) as connection:
        connection.call("SET", key, value)


def publish(url, *views, services=(SERVICE,), latest=None) -> None:
    with Connection(ValkeyAddress.parse(url), 5.0) as connection:
        documents = [document_of(view, latest=latest is None or view.key == latest) for view in views]
        catalogs.publish(connection, documents, services)


@pytest.fixture
def url(valkey_url: str) -> str:
    publish(valkey_url, *VIEWS)
    return valkey_url


@pytest.fixture
def client(url: str) -> Iterator[FeatureClient]:
    with FeatureClient.connect(url, clock=lambda: NOW) as client:
        yield client


def test_values_of_a_service_with_their_trust(url, client) -> None:
    write(url, DELAYS, {"carrier": "UA"}, NOW - DAY, {"mean": 4.5, "note": "é"})
    write(url, WEATHER, {"origin": "EWR", "gate": 1}, NOW - 400 * DAY, {"mean": None, "day": date(2026, 3, 9)})
    answer = client.get_online_features("departure", [{"carrier": "UA", "origin": "EWR", "gate": 1}])
    (row,) = answer
    assert row.values == {"delays__mean": 4.5, "weather__mean": None, "day": date(2026, 3, 9)}
    delays, weather = row.views["delays@1"], row.views["weather@1"]
    assert (delays.status, delays.event_timestamp, delays.age, delays.position) == ("fresh", NOW - DAY, DAY, 7)
    assert weather.status is FeatureStatus.FRESH, "NULL, not missing"
    assert answer.to_dicts() == [{"carrier": "UA", "origin": "EWR", "gate": 1, **row.values}]


@pytest.mark.parametrize(
    ("age", "status", "value"),
    [
        (-DAY, "fresh", 1.0),
        (timedelta(hours=25), "fresh", 1.0),
        (timedelta(hours=26), "stale", 1.0),
        (3 * DAY - timedelta(microseconds=1), "stale", 1.0),
        (3 * DAY, "expired", None),
        (999 * DAY, "expired", None),
    ],
)
def test_age_is_judged_by_event_time_and_the_clients_clock(url, client, age, status, value) -> None:
    write(url, DELAYS, {"carrier": "UA"}, NOW - age, {"mean": 1.0, "note": "n"})
    row = client.get_online_features("delays", [{"carrier": "UA"}])[0]
    assert row.values == {"mean": value, "note": value and "n"}
    assert (row.views["delays@1"].status, row.views["delays@1"].age) == (status, age)


def test_missing_is_missing_with_and_without_a_tombstone(url, client) -> None:
    write(url, DELAYS, {"carrier": "AA"}, None, {}, position=9)
    gone, never = client.get_online_features(["delays:mean"], [{"carrier": "AA"}, {"carrier": "ZZ"}])
    assert gone.values == never.values == {"mean": None}
    assert (gone.views["delays@1"].status, gone.views["delays@1"].position) == ("missing", 9)
    assert (never.views["delays@1"].status, never.views["delays@1"].position) == ("missing", None)


def test_entities_as_columns_and_none_at_all(url, client) -> None:
    write(url, DELAYS, {"carrier": "UA"}, NOW, {"mean": 1.0, "note": None})
    answer = client.get_online_features("delays:mean", {"carrier": ["UA", "ZZ", "UA"]})
    assert [row.values["mean"] for row in answer] == [1.0, None, 1.0]
    assert len(client.get_online_features("delays", [])) == 0
    assert len(client.get_online_features("delays", {"carrier": []})) == 0


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ("nothing", "serves no feature view 'nothing'"),
        (["delays:nothing"], "has no feature 'nothing'"),
        (["delays@9"], "serves no feature view 'delays@9'"),
        ([":"], "serves no feature view"),
    ],
)
def test_unknown_names(client, refs, message) -> None:
    with pytest.raises(UnknownNameError, match=message) as caught:
        client.get_online_features(refs, [{"carrier": "UA"}])
    assert caught.value.allowed


def test_asking_for_nothing(client) -> None:
    with pytest.raises(RequestError, match="no features"):
        client.get_online_features([], [{"carrier": "UA"}])


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ([{"origin": "EWR", "gate": 1.7}], "wrong type"),
        ([{"origin": "EWR", "gate": True}], "wrong type"),
        ([{"origin": "EWR", "gate": "1"}], "wrong type"),
        ([{"origin": "EWR", "gate": 2**31}], "wrong type"),
        ([{"origin": 1, "gate": 1}], "wrong type"),
        ([{"origin": b"EWR", "gate": 1}], "wrong type"),
        ([{"origin": "EWR", "gate": None}], "is null"),
        ([{"origin": "EWR", "gate": float("nan")}], "wrong type"),
        ([{"origin": "EWR"}], "'gate' is missing"),
        ([{"origin": "EWR", "gate": 1, "carrier": "UA"}], "unknown entity column carrier"),
        ([{"origin": "\ud800", "gate": 1}], "no valid Unicode"),
        ({"origin": ["EWR"], "gate": [1, 2]}, "differ in length"),
        ({"origin": "EWR", "gate": [1]}, "is no list"),
        (["EWR"], "is no dict"),
    ],
)
def test_wrong_entities(client, entities, message) -> None:
    with pytest.raises(EntityError, match=message):
        client.get_online_features("weather", entities)


def test_a_reference_without_version_means_the_latest(url) -> None:
    second = make_view("delays", 2, features={"mean": ColumnType.DOUBLE})
    publish(url, DELAYS, second, latest="delays@1")
    with FeatureClient.connect(url) as client:
        assert [view.key for view in client.describe("delays")] == ["delays@1"]
        assert [view.key for view in client.describe(["delays@v2"])] == ["delays@2"]
    publish(url, second)  # version 1 left the declarations
    with FeatureClient.connect(url) as client:
        assert [view.key for view in client.describe("delays")] == ["delays@2"]
        assert [view.key for view in client.describe(["delays@1"])] == ["delays@1"]


def test_a_client_learns_of_new_layouts_and_still_reads_old_ones(url, client) -> None:
    write(url, DELAYS, {"carrier": "UA"}, NOW, {"mean": 1.0, "note": "old"})
    assert client.get_online_features("delays", [{"carrier": "UA"}])[0].values == {"mean": 1.0, "note": "old"}
    wider = make_view(
        "delays", features={"mean": ColumnType.DOUBLE, "note": ColumnType.VARCHAR, "n": ColumnType.BIGINT}
    )
    publish(url, wider)
    write(url, wider, {"carrier": "AA"}, NOW, {"mean": 2.0, "note": "new", "n": 3})
    rows = client.get_online_features("delays", [{"carrier": "UA"}, {"carrier": "AA"}])
    assert [row.values["note"] for row in rows] == ["old", "new"], "a client with the old documents reads both"
    rows = client.get_online_features(["delays:n"], [{"carrier": "UA"}, {"carrier": "AA"}])
    assert [row.values["n"] for row in rows] == [None, 3], "an unknown feature is looked up again"


def test_services_that_are_no_longer_declared_go(url) -> None:
    publish(url, *VIEWS, services=())
    with FeatureClient.connect(url) as client, pytest.raises(UnknownNameError, match="departure"):
        client.describe("departure")


@pytest.mark.parametrize("value", [b"", b"short", bytes(18), bytes(40)])
def test_bytes_that_are_no_value(url, client, value) -> None:
    put(url, b"delays@1:{UA}", value)
    with pytest.raises(CorruptValueError):
        client.get_online_features("delays", [{"carrier": "UA"}])


def test_a_truncated_value(url, client) -> None:
    value = Layout.of((c.name, c.type) for c in DELAYS.features).encode(1, NOW, {"mean": 1.0, "note": "abc"})
    for cut in (*range(17, len(value)), len(value) + 1):
        put(url, b"delays@1:{UA}", value[:cut].ljust(cut, b"x"))
        with pytest.raises(CorruptValueError):
            client.get_online_features("delays", [{"carrier": "UA"}])[0].values  # noqa: B018 - it is read now


def test_what_is_not_asked_for_is_not_decoded(url, client) -> None:
    value = Layout.of((c.name, c.type) for c in DELAYS.features).encode(1, NOW, {"mean": 1.0, "note": "abc"})
    put(url, b"delays@1:{UA}", value.replace(b"abc", b"a\xffc"))
    for _ in range(2):
        assert client.get_online_features(["delays:mean"], [{"carrier": "UA"}])[0].values == {"mean": 1.0}
        answer = client.get_online_features("delays", [{"carrier": "UA"}])
        for read in (lambda answer=answer: answer[0].values, answer.to_columns, answer.to_arrow, answer.to_numpy):
            with pytest.raises(CorruptValueError, match="utf-8"):
                read()  # the text too


def test_nobody_there() -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be reached") as caught:
        FeatureClient.connect("unix:///nowhere/valkey.sock")
    assert "feature-platform status" in caught.value.hint
    client = FeatureClient(OnlineSettings(address=ValkeyAddress.parse("valkey://127.0.0.1:1")))
    with pytest.raises(StoreUnavailableError):
        client.get_online_features("delays", [{"carrier": "UA"}])


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"valkey://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError, match="did not answer in time"):
            FeatureClient.connect(url, timeout_seconds=0.05)


def test_a_password(url) -> None:
    with Connection(ValkeyAddress.parse(url), 5.0) as connection:
        connection.call("ACL", "SETUSER", "reader", "on", ">s3cr%t", "~*", "+@read", "+@connection")
        try:
            good = f"unix://reader:s3cr%25t@{ValkeyAddress.parse(url).socket_path}"
            with FeatureClient.connect(good) as client:
                assert client.describe("delays")
            with pytest.raises(ConfigurationError, match="refused") as caught:
                FeatureClient.connect(good.replace("s3cr", "other"))
            assert "other" not in str(caught.value)
        finally:
            connection.call("ACL", "DELUSER", "reader")


def test_a_restarted_server_is_found_again() -> None:
    with running_valkey() as url:
        publish(url, *VIEWS)
        client = FeatureClient.connect(url, clock=lambda: NOW)
        client.describe("delays")
        with Connection(ValkeyAddress.parse(url), 5.0) as other:
            other.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert len(client.get_online_features("delays", [{"carrier": "UA"}])) == 1
    with pytest.raises(StoreUnavailableError):
        client.get_online_features("delays", [{"carrier": "UA"}])
    client.close()
    with pytest.raises(ConfigurationError, match="closed"):
        client.ping()


def test_threads_share_a_client(url, client) -> None:
    for i in range(8):
        write(url, DELAYS, {"carrier": f"c{i}"}, NOW, {"mean": float(i), "note": None})
    wrong: list[object] = []

    def read(i: int) -> None:
        for _ in range(50):
            row = client.get_online_features("delays:mean", [{"carrier": f"c{i}"}])[0]
            if row.values["mean"] != float(i):
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_does_not_share_its_parents_connection(url) -> None:
    """In a process of its own: pytest's has threads, and a warning about forking them is an error."""
    write(url, DELAYS, {"carrier": "UA"}, NOW, {"mean": 1.0, "note": None})
    program = """
import os, sys
from feature_platform.online import FeatureClient
client = FeatureClient.connect(sys.argv[1])
read = lambda: client.get_online_features("delays:mean", [{"carrier": "UA"}])[0].views["delays@1"].position
assert read() == 7
children = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        os._exit(0 if all(read() == 7 for _ in range(100)) else 1)
    children.append(pid)
assert all(read() == 7 for _ in range(100))
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
"""
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=60)


def test_the_client_is_light() -> None:
    heavy = [
        "dagster",
        "dbt",
        "duckdb",
        "great_expectations",
        "numpy",
        "pandas",
        "pyarrow",
        "psycopg2",
        "asyncio",
        "ssl",
        "feature_platform.online.aio",
        "feature_platform.online.cluster",
        "feature_platform.online.columnar",
    ]
    program = f"import sys, feature_platform.online; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_from_env(url, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FEATURE_PLATFORM_VALKEY_URL", url)
    with FeatureClient.from_env() as client:
        client.ping()
    monkeypatch.delenv("FEATURE_PLATFORM_VALKEY_URL")
    monkeypatch.setenv("FEATURE_PLATFORM_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="FEATURE_PLATFORM_VALKEY_URL"):
        FeatureClient.from_env()
