"""The feature log on a real Valkey and a real lake: bounded, never lost in between, and compared with the lake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from offline_platform import CARRIER, ROUTE, Platform, registry_of
from online_support import running_valkey

from feature_platform import lake
from feature_platform.cli import served_log as commands
from feature_platform.errors import LockBusyError, NotDeployedError, RequestError, StoreUnavailableError
from feature_platform.lake.log_tables import drains_table, plan_tables, served_table
from feature_platform.ledger import Ledger, log_drain_lock
from feature_platform.observability import look_at_store
from feature_platform.online import FeatureClient, FeatureLog, LogSettings
from feature_platform.online.connection import Connection
from feature_platform.online.feature_log import STREAM, waiting_entries
from feature_platform.online.settings import ValkeyAddress
from feature_platform.served_log import drain, drain_stores, draining, measure_skew
from feature_platform.served_log.skew import Cause
from feature_platform.sync import publish_schemas, sync

# the store would take rows that are older than their ttl for long dead
DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
ENTITIES = [{"carrier": "AA", "origin": "J,{FK}%", "gate": 1}, {"carrier": "UA", "origin": "", "gate": -2}]


def at(days: float, hours: float = 0) -> datetime:
    return DAY + timedelta(days=days, hours=hours)


@pytest.fixture
def platform(settings) -> Platform:
    """A day of carriers and an hour of routes, online; the log's tables stand."""
    built = Platform(settings, registry_of(CARRIER, ROUTE))
    built.deploy(*(statement for _, statements in plan_tables({}) for statement in statements))
    built.add(CARRIER, at(0), [["AA", at(1), 1.5, 10], ["UA", at(1), float("nan"), None]])
    built.add(ROUTE, at(1), [["J,{FK}%", 1, at(1, 1), 0.5], ["", -2, at(1, 1), 0.25]])
    publish_schemas(settings.valkey_url, built.registry)
    bring_online(built)
    return built


def bring_online(platform: Platform) -> None:
    for view in platform.registry.views.values():
        sync(platform.settings, platform.registry, view, run_id="test")


def ask(platform: Platform, moment: datetime, *, request_id: str | None = None, **log) -> str | None:
    url = platform.settings.valkey_url
    with FeatureClient.connect(url, clock=lambda: moment, log=LogSettings(**log)) as client:
        return client.get_online_features("departure_delay", ENTITIES, request_id=request_id).request_id


def waiting(platform: Platform) -> int:
    with closing(Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0)) as connection:
        return waiting_entries(connection)


def rows(platform: Platform, select: str = "*", table: str | None = None) -> list[tuple]:
    with closing(lake.connect(platform.settings, read_only=True)) as connection:
        return connection.execute(f"select {select} from {table or served_table()} order by all").fetchall()


def test_what_was_served_is_in_the_lake_as_it_was(platform: Platform) -> None:
    named = ask(platform, at(1, 4), request_id="order-17")
    made = ask(platform, at(1, 5))
    ask(platform, at(9), values=0.0)
    assert (named, len(made or "")) == ("order-17", 24)
    assert waiting(platform) == 3
    done: list[tuple[int, int]] = []
    result = drain(platform.settings, progress=lambda *counts: done.append(counts))
    assert (result.entries, result.rows, result.lost, result.dropped, result.unreadable) == (3, 12, 0, 0, 0)
    assert done == [(3, 3)]
    assert waiting(platform) == 0
    found = rows(platform, 'request_id, view, entity_key, status, event_timestamp, "values", position, asked')
    assert (
        "order-17",
        "carrier_delays@1",
        "AA",
        "fresh",
        at(1),
        '{"delay":1.5,"flights":10}',
        1,
        "departure_delay",
    ) in found
    assert (
        "order-17",
        "carrier_delays@1",
        "UA",
        "fresh",
        at(1),
        '{"delay":"nan","flights":null}',
        1,
        "departure_delay",
    ) in found
    assert (
        "order-17",
        "route_delays@1",
        "J%2C%7BFK%7D%25,1",
        "fresh",
        at(1, 1),
        '{"delay":0.5}',
        1,
        "departure_delay",
    ) in found
    assert ("order-17", "route_delays@1", "%,-2", "fresh", at(1, 1), '{"delay":0.25}', 1, "departure_delay") in found
    # of the third request it was logged only which row was served, and that one was too old
    assert {row[3:6] for row in found if row[0] not in {named, made} and row[1] == "carrier_delays@1"} == {
        ("expired", at(1), None)
    }
    assert drain(platform.settings).entries == 0


def test_a_drain_that_dies_between_commit_and_trim_takes_nothing_twice(platform: Platform, monkeypatch) -> None:
    for number in range(5):
        ask(platform, at(1, 4), request_id=str(number))
    monkeypatch.setattr(draining, "ENTRIES_PER_PAGE", 2)
    monkeypatch.setattr(draining, "ROWS_PER_COMMIT", 8)
    write = draining._write
    calls = []

    def dying(*args, **options):
        write(*args, **options)
        calls.append(1)
        if len(calls) == 2:
            raise StoreUnavailableError("it dies here")

    monkeypatch.setattr(draining, "_write", dying)
    with pytest.raises(StoreUnavailableError):
        drain(platform.settings)
    monkeypatch.setattr(draining, "_write", write)
    result = drain(platform.settings)
    assert (result.entries, result.lost) == (1, 0)
    assert rows(platform, "request_id, count(*)", f"{served_table()} group by 1") == [(str(n), 4) for n in range(5)]
    assert waiting(platform) == 0
    assert len(rows(platform, table=drains_table())) == 3


def test_what_the_cap_removed_and_what_is_unreadable_is_counted(platform: Platform) -> None:
    ask(platform, at(1, 4))
    with closing(Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0)) as connection:
        connection.call("XADD", STREAM, "*", "e", b"\x09later format")
        connection.call("XADD", STREAM, "*", "e", b"")
        connection.call("XTRIM", STREAM, "MAXLEN", 2)
    result = drain(platform.settings)
    assert (result.entries, result.unreadable, result.lost, result.rows) == (2, 2, 1, 0)
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        (counted,) = ledger.drain_totals()
    assert (counted.store, counted.entries, counted.unreadable, counted.lost, counted.rows) == ("default", 2, 2, 1, 0)
    # the store lost its data: another stream, from its beginning
    with closing(Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0)) as connection:
        connection.call("DEL", STREAM)
    ask(platform, at(1, 4))
    result = drain(platform.settings)
    assert (result.entries, result.lost, result.rows) == (1, 0, 4)
    # one drains at a time, and only into what is deployed
    settings = platform.settings
    with Ledger.connect(settings.ledger_url) as ledger, log_drain_lock(ledger.connection, settings.store):
        with pytest.raises(LockBusyError, match="being drained"):
            drain(settings)
        assert drain(replace(settings, store="other")).entries == 0
    with lake.connect(settings) as connection:
        connection.execute(f"drop table {drains_table()}")
    with pytest.raises(NotDeployedError, match="deploy"):
        drain(settings)


def test_the_logs_of_all_stores_are_drained_and_one_that_is_down_holds_nobody(platform: Platform) -> None:
    with running_valkey() as region:
        both = replace(platform.settings, more_stores=(("us", region),))
        publish_schemas(region, platform.registry)
        ask(platform, at(1, 4), request_id="here")
        ask(replace(platform, settings=both.at_store("us")), at(1, 4), request_id="there")
        assert [(one.store, one.entries) for one in drain_stores(both)] == [("default", 1), ("us", 1)]
        assert set(rows(platform, "store, request_id")) == {("default", "here"), ("us", "there")}
    ask(platform, at(1, 5), request_id="later")
    first_down = replace(both, more_stores=(("default", both.valkey_url),), store="us", valkey_url=region)
    with pytest.raises(StoreUnavailableError):
        drain_stores(first_down)
    assert ("default", "later") in rows(platform, "store, request_id")


def test_a_replica_takes_over_that_had_not_heard_of_the_last_drain(platform: Platform) -> None:
    ask(platform, at(1, 4), request_id="first")
    drain(platform.settings)
    ask(platform, at(1, 5), request_id="second")
    with closing(Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0)) as connection:
        behind = connection.call("DUMP", STREAM)
        ask(platform, at(1, 6), request_id="lost with the primary, but drained")
        assert drain(platform.settings).entries == 2
        connection.call("RESTORE", STREAM, 0, behind, "REPLACE")
        ask(platform, at(1, 7), request_id="third")
    result = drain(platform.settings)
    assert (result.rows, result.lost) == (4, 0)
    logged = rows(platform, "distinct request_id, count(*) over (partition by request_id)")
    assert logged == [("first", 4), ("lost with the primary, but drained", 4), ("second", 4), ("third", 4)]
    assert waiting(platform) == 0
    assert drain(platform.settings).entries == 0


def test_a_replica_takes_over_whose_clock_is_late(platform: Platform) -> None:
    ask(platform, at(1, 4), request_id="first")
    drain(platform.settings)
    ask(platform, at(1, 5), request_id="second")
    with closing(Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0)) as connection:
        behind = connection.call("DUMP", STREAM)
        ((second, _),) = connection.call("XRANGE", STREAM, "-", "+")
        ask(platform, at(1, 6), request_id="drained")
        assert drain(platform.settings).entries == 2
        ask(platform, at(1, 7), request_id="late")
        ((_, late),) = connection.call("XRANGE", STREAM, "-", "+")
        connection.call("RESTORE", STREAM, 0, behind, "REPLACE")
        milliseconds, _, number = second.decode().partition("-")
        connection.call("XADD", STREAM, f"{milliseconds}-{int(number) + 1}", *late)
        ask(platform, at(1, 8), request_id="third")
    assert drain(platform.settings).lost == 0
    logged = rows(platform, "distinct request_id, count(*) over (partition by request_id)")
    assert logged == [(name, 4) for name in ("drained", "first", "late", "second", "third")]
    assert waiting(platform) == 0


def offered(log: FeatureLog, count: int, size: int = 1) -> None:
    for _ in range(count):
        log.offer("s", None, at(1), [("v@1", [b"v@1:{k}"] * size, [None] * size)])


def test_a_log_that_cannot_be_sent_is_bounded_and_told_later() -> None:
    sent: list = []
    down = threading.Event()
    down.set()

    def send(commands) -> None:
        if down.is_set():
            raise StoreUnavailableError("down")
        sent.extend(commands)

    log = FeatureLog(LogSettings(waiting_values=10), send)
    offered(log, 1, size=50)  # larger than the queue, and nothing else waits
    wait_for(lambda: log.counts().error)
    offered(log, 30)
    counts = log.counts()
    assert (counts.waiting, counts.dropped, counts.logged) == (11, 20, 0)
    down.clear()
    wait_for(lambda: log.counts().logged == 11)
    offered(log, 1)
    log.close()
    assert (log.counts().logged, log.counts().dropped, log.counts().error) == (12, 20, "")
    from feature_platform.online.log_format import LogEntry

    entries = [LogEntry.parse(command[-1]) for command in sent]
    assert [entry.number for entry in entries] == list(range(12))
    assert sum(entry.dropped for entry in entries) == 20
    offered(log, 1)  # after it was closed nothing is sent
    assert log.counts().waiting == 1


def test_what_the_store_refuses_for_good_is_dropped_and_closing_ends(valkey_url: str) -> None:
    with closing(Connection(ValkeyAddress.parse(valkey_url), 5.0)) as connection:
        connection.call("SET", STREAM, "no stream")
        with FeatureLog_on(valkey_url) as log:
            offered(log, 3)
            wait_for(lambda: log.counts().dropped == 3)
            assert "WRONGTYPE" in log.counts().error
        connection.call("DEL", STREAM)


class FeatureLog_on:  # noqa: N801 - reads as what it is
    """A log with a connection of its own."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(ValkeyAddress.parse(url), 5.0)
        self.log = FeatureLog(LogSettings(), self.connection.pipeline)

    def __enter__(self) -> FeatureLog:
        return self.log

    def __exit__(self, *_: object) -> None:
        self.log.close()
        self.connection.close()


def wait_for(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


def test_a_forked_child_logs_its_own_requests_once_and_a_killed_one_what_was_acknowledged(platform: Platform) -> None:
    with FeatureClient.connect(platform.settings.valkey_url, clock=lambda: at(1, 4), log=LogSettings()) as client:
        client.get_online_features("departure_delay", ENTITIES, request_id="parent")
        if (child := os.fork()) == 0:
            try:
                client.get_online_features("departure_delay", ENTITIES, request_id="child")
                client.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert drain(platform.settings).entries == 2
    assert rows(platform, "distinct request_id") == [("child",), ("parent",)]

    # a killed one loses only what waited
    program = (
        "import sys, time\n"
        "from feature_platform.online import FeatureClient, LogSettings\n"
        "client = FeatureClient.connect(sys.argv[1], log=LogSettings())\n"
        "client.get_online_features('carrier_delays', [{'carrier': 'AA'}], request_id='one')\n"
        "while client.log.counts().logged < 1: time.sleep(0.01)\n"
        "print('logged', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, platform.settings.valkey_url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert drain(platform.settings).entries == 1


def test_skew_says_where_log_and_lake_part_and_why(platform: Platform) -> None:
    store = platform.store
    with pytest.raises(RequestError, match="feature-platform drain"):
        measure_skew(store)
    ask(platform, datetime.now(UTC), request_id="fair")
    with Ledger.connect(platform.settings.ledger_url) as ledger:  # what the store held is known once it is seen again
        look_at_store(ledger, platform.registry, store="default", valkey_url=platform.settings.valkey_url)
    drain(platform.settings)
    report = measure_skew(store)
    assert [(account.mode, account.judged) for view in report.views for account in view.accounts] == [
        ("served", 2), ("modelled", 2), ("served", 2), ("modelled", 2)
    ]  # fmt: skip
    assert (report.requests, report.has_skew, report.undeclared) == (1, False, ())
    assert {view.view: (view.rows, view.compared, dict(view.statuses)) for view in report.views} == {
        "carrier_delays@1": (2, 2, {"fresh": 2}),
        "route_delays@1": (2, 2, {"fresh": 2}),
    }

    # sooner than the declared delay of 90 minutes; then a newer row that is published and not online
    ask(platform, at(1, 1), request_id="ahead")
    platform.add(CARRIER, at(1), [["AA", at(2), 2.5, 11]])
    ask(platform, at(2, 2), request_id="behind")
    ask(platform, at(2, 2), request_id="unsampled", values=0.0)
    # and a correction of what was served right
    platform.add(CARRIER, at(0), [["AA", at(1), 1.75, 10]])
    ask(platform, at(1, 4), request_id="corrected")
    drain(platform.settings)
    report = measure_skew(replace(platform, registry=registry_of(CARRIER)).store)
    assert (report.requests, report.undeclared) == (5, ("route_delays@1",))
    (view,) = report.views
    assert (view.rows, view.compared) == (10, 8)
    (account,) = (one for one in view.accounts if one.mode == "modelled")
    # UA has vanished with the correction
    assert account.causes == {
        "the lake has no such row any more": 3,
        "served sooner than availability_delay says": 2,
        "the store held an older row": 2,
        "the row was computed again since": 1,
    }
    flights = next(one for one in account.features if one.feature == "flights")
    assert [(one.request_id, one.entity, one.cause) for one in flights.examples] == [
        ("ahead", "AA", Cause.AHEAD), ("behind", "AA", Cause.BEHIND), ("fair", "AA", Cause.BEHIND)
    ]  # fmt: skip
    delay = measure_skew(platform.store, since=at(1, 4), until=at(2)).views[0].accounts[1].features[0]
    example = next(one for one in delay.examples if one.entity == "AA")
    assert (example.request_id, example.logged, example.recomputed) == ("corrected", 1.5, 1.75)
    assert (example.served_event_timestamp, example.position) == (at(1), 1)


def test_commands(platform: Platform, settings_in_environ, monkeypatch) -> None:
    monkeypatch.setattr(commands, "open_store", lambda: platform.store)

    def run(command, *arguments: str) -> str:
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    ask(platform, at(1, 1), request_id="ahead")
    assert "1 request" in run(commands.drain)
    assert [one["entries"] for one in json.loads(run(commands.drain, "--json"))] == [0]
    told = run(commands.skew, "ahead")
    assert "served sooner than availability_delay says" in told
    assert "carrier_delays@1" in told
    assert json.loads(run(commands.skew, "--since", DAY.isoformat(), "--json"))["requests"] == 1
