"""Freshness by data time and incidents, on a real ledger; notices are taken by a real web server."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from dagster import AssetCheckSeverity
from ledger_batches import measured
from views import view_with

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.due import due_partition
from feature_platform.domain.feature_view import FeatureView, FreshnessSla, OnlineTier, Owner, Source
from feature_platform.domain.windows import Grain, partition_starting, partitions_between
from feature_platform.ledger import Ledger
from feature_platform.observability import (
    FreshnessState,
    ServedFacts,
    find_problems,
    freshness_of,
    frontiers_of,
    judge_freshness,
    watch,
)
from feature_platform.orchestration.freshness import freshness_result
from feature_platform.orchestration.timetable import partitions_definition
from feature_platform.settings import Settings

LOG = logging.getLogger("test_freshness")
DAY = timedelta(days=1)
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def ledger(ledger_url):
    with Ledger.connect(ledger_url) as connected:
        yield connected


@pytest.fixture
def webhook():
    """A web server that keeps what it is sent, and refuses while told to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not server.refusing:
                server.taken.append(json.loads(body))
            self.send_response(503 if server.refusing else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.taken, server.refusing = [], False
    server.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def view(webhook) -> FeatureView:
    return replace(
        view_with(),
        begin=BEGIN,
        freshness=FreshnessSla(warn_after=timedelta(hours=26), error_after=timedelta(hours=50)),
        owner=Owner(name="ops", email="ops@example.com", routes=("${OPS_URL}",)),
    )


@pytest.fixture
def look(ledger, view, webhook):
    """One look of the sensor at an instant."""
    registry = registry_of(view)

    def look(now: datetime):
        return watch(ledger, registry, stores=("default",), now=now, log=lambda: LOG, environ={"OPS_URL": webhook.url})

    return look


def registry_of(view: FeatureView) -> FeatureRegistry:
    return FeatureRegistry(views={view.key: view}, services={}, sources={}, latest={view.name: view.version})


def publish(ledger: Ledger, view: FeatureView, day: int, *, rows: int = 3, passes: bool = True) -> None:
    partition = partition_starting(BEGIN + day * DAY, Grain.DAY)
    (batch,) = ledger.open_batches(view, [partition], run_id="run")
    ledger.record_computed([measured(batch.batch_id, rows, watermark=partition.end)])
    outcome = CheckOutcome(batch_id=batch.batch_id, check="c", kind="data_test", passed=passes, blocking=True)
    ledger.record_checks([outcome])
    ledger.record_audited([batch.batch_id], passed=passes)
    if passes:
        ledger.publish([batch.batch_id])
    else:
        ledger.record_failed([batch.batch_id], "1 blocking check failed")


def sync(ledger: Ledger, view: FeatureView, *, store: str = "default") -> None:
    head = ledger.head(view.key)
    sync_id = ledger.begin_sync(view.key, store, 0, head, server_run_id="server", run_id="run")
    ledger.end_sync(sync_id, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)


def state(ledger: Ledger, view: FeatureView, now: datetime) -> FreshnessState:
    (freshness,) = freshness_of(ledger, registry_of(view), stores=("default",), now=now)
    return freshness.state


def test_age_is_that_of_the_newest_served_event(ledger, view):
    publish(ledger, view, 0)
    sync(ledger, view)
    served = BEGIN + DAY
    assert state(ledger, view, served + timedelta(hours=26)) is FreshnessState.FRESH
    assert state(ledger, view, served + timedelta(hours=26, seconds=1)) is FreshnessState.WARN
    assert state(ledger, view, served + timedelta(hours=50, seconds=1)) is FreshnessState.ERROR


def test_published_is_not_served(ledger, view):
    publish(ledger, view, 0)
    sync(ledger, view)
    publish(ledger, view, 2)
    now = BEGIN + 3 * DAY + timedelta(hours=12)
    assert state(ledger, view, now) is FreshnessState.ERROR
    assert state(ledger, replace(view, online=OnlineTier.NONE), now) is FreshnessState.FRESH
    sync(ledger, view)
    assert state(ledger, view, now) is FreshnessState.FRESH


def test_backfilling_an_old_partition_does_not_turn_a_stale_view_fresh(ledger, view):
    publish(ledger, view, 5)
    sync(ledger, view)
    now = BEGIN + 10 * DAY
    assert state(ledger, view, now) is FreshnessState.ERROR
    for day in (0, 1, 5):  # the last one computes the newest partition again
        publish(ledger, view, day)
        sync(ledger, view)
        assert state(ledger, view, now) is FreshnessState.ERROR


def test_only_one_region_is_behind(ledger, view, webhook):
    publish(ledger, view, 0)
    sync(ledger, view)
    sync(ledger, view, store="us")
    publish(ledger, view, 2)
    sync(ledger, view)
    now = BEGIN + 3 * DAY + timedelta(hours=1)
    found = freshness_of(ledger, registry_of(view), stores=("default", "us"), now=now)
    assert [(one.store, one.state) for one in found] == [("default", FreshnessState.FRESH), ("us", FreshnessState.WARN)]
    report = watch(
        ledger, registry_of(view), stores=("default", "us"), now=now, log=lambda: LOG, environ={"OPS_URL": webhook.url}
    )
    assert [one.subject for one in report.problems] == ["carrier_delays@1 in store us"]
    assert "in store us is stale" in webhook.taken[0]["message"]


def test_the_check_in_dagster_says_the_store_that_is_worst_and_shows_all(ledger, ledger_url, view):
    settings = Settings(
        project=Path(), home=Path(), ledger_url=ledger_url, lake_catalog="", lake_data="", valkey_url="",
        store="default", duckdb_memory="1GB", more_stores=(("us", "valkey://127.0.0.1:1"),),
    )  # fmt: skip
    publish(ledger, view, 0)
    for store in ("default", "us"):
        sync(ledger, view, store=store)
    publish(ledger, view, 2)
    sync(ledger, view, store="us")
    now = BEGIN + 3 * DAY + timedelta(hours=1)
    said = freshness_result(settings, view, ledger, now=now)
    assert (said.passed, said.severity) == (False, AssetCheckSeverity.WARN)
    assert "in store default is 2 d 1 h old" in said.description
    shown = {name: one.value for name, one in said.metadata.items() if name != "stores"}
    assert (shown["age_seconds"], shown["lag_sync_seconds"]) == (49 * 3600, 48 * 3600)
    rows = [one.data for one in said.metadata["stores"].records]
    assert [(one["store"], one["state"]) for one in rows] == [("default", "warn"), ("us", "fresh")]
    sync(ledger, view)
    assert freshness_result(settings, view, ledger, now=now).passed


def test_a_source_whose_loads_bring_nothing_is_told_to_the_owners_of_its_views(ledger, view):
    source = Source(
        unique_id="source.tiny.raw.flights",
        name="raw.flights",
        schema="raw",
        table="flights",
        loaded_at_field="at",
        event_time="at",
        reporting_lag=timedelta(0),
        freshness=FreshnessSla(warn_after=timedelta(hours=4), error_after=timedelta(hours=12)),
    )
    registry = registry_of(replace(view, sources=(source,)))
    now = BEGIN + DAY

    def told(at: datetime) -> list[tuple[str, str, str]]:
        found = find_problems(ledger, registry, stores=("default",), now=at)
        return [(one.subject, one.severity, one.owner.name) for one in found if one.kind == "source"]

    assert told(now) == []  # never loaded: the view that never served is told
    ledger.record_source_load("raw.flights", loaded_through=now, row_count=3, watermark=now, run_id="load")
    later = now + timedelta(hours=5)
    ledger.record_source_load("raw.flights", loaded_through=later, row_count=0, watermark=now, run_id="load")
    assert told(now + timedelta(hours=4)) == []
    subject = "carrier_delays@1 in source raw.flights"
    assert told(later) == [(subject, "warn", view.owner.name)]
    assert told(now + timedelta(hours=13)) == [(subject, "error", view.owner.name)]


def test_a_source_that_never_brought_a_row_is_silent_however_often_it_is_loaded(ledger, view):
    source = Source(
        unique_id="source.tiny.raw.codes",
        name="raw.codes",
        schema="raw",
        table="codes",
        loaded_at_field="at",
        event_time="at",
        reporting_lag=timedelta(0),
        freshness=FreshnessSla(warn_after=timedelta(hours=4), error_after=None),
    )
    registry = registry_of(replace(view, sources=(source,)))
    began = ledger.now()
    for hour in range(3):
        at = began + timedelta(hours=hour)
        ledger.record_source_load("raw.codes", loaded_through=at, row_count=0, watermark=None, run_id="load")
    at = lambda hours: [  # noqa: E731
        one.message
        for one in find_problems(ledger, registry, stores=("default",), now=began + timedelta(hours=hours))
        if one.kind == "source"
    ]
    assert at(3) == []
    (message,) = at(5)
    assert "has brought nothing for" in message and "(no row ever)" in message


def test_the_lags_of_the_stages_add_up_to_the_age_and_name_the_one_that_stands_still(ledger, view):
    source = Source(
        unique_id="source.tiny.raw.flights",
        name="raw.flights",
        schema="raw",
        table="flights",
        loaded_at_field="at",
        event_time="at",
        reporting_lag=timedelta(0),
    )
    weather = replace(source, unique_id="source.tiny.raw.weather", name="raw.weather", table="weather")
    view = replace(view, sources=(source, weather))
    now = BEGIN + 10 * DAY
    hours = lambda: {  # noqa: E731
        stage: lag / timedelta(hours=1) if lag is not None else None
        for stage, lag in frontiers_of(ledger, view, "default").lags(now=now).items()
    }
    assert set(hours().values()) == {None}
    ledger.record_source_load("raw.weather", loaded_through=now, row_count=0, watermark=None, run_id="load")
    assert hours()["arrival"] is None, "one of its sources was never loaded"
    # the slowest of the sources counts
    ledger.record_source_load("raw.flights", loaded_through=now - DAY, row_count=0, watermark=None, run_id="load")
    publish(ledger, view, 3)
    sync(ledger, view)
    publish(ledger, view, 5)
    publish(ledger, view, 6, passes=False)
    assert hours() == {"arrival": 24, "compute": 48, "publish": 24, "sync": 48}
    (freshness,) = freshness_of(ledger, registry_of(view), stores=("default",), now=now)
    assert sum(hours().values()) == freshness.age / timedelta(hours=1)
    assert list(frontiers_of(ledger, replace(view, online=OnlineTier.NONE), "default").lags(now=now)) == [
        "arrival",
        "compute",
        "publish",
    ]


@pytest.mark.parametrize("change", ["2026-03-08", "2026-11-01", "2026-03-29", "2026-10-25"])  # New York, Berlin
@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "UTC"])
def test_ages_partitions_and_due_instants_do_not_know_of_daylight_saving(view, change, zone, monkeypatch):
    """Views have no time zone but UTC: a day has 24 hours on every day of the year, wherever a process runs."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        local, midnight = ZoneInfo(zone), datetime.fromisoformat(change).replace(tzinfo=UTC)
        day = partition_starting(midnight, Grain.DAY)
        assert day.end - day.start == DAY
        assert len(list(partitions_between(day.start, day.end, Grain.HOUR))) == 24
        facts = ServedFacts(store="default", newest_event=midnight.astimezone(local), expected_since=BEGIN)
        for seconds, state in ((0, FreshnessState.FRESH), (1, FreshnessState.WARN)):
            now = (midnight + timedelta(hours=26, seconds=seconds)).astimezone(local)
            judged = judge_freshness(view, facts, now=now)
            assert (judged.state, judged.age) == (state, timedelta(hours=26, seconds=seconds))
        shown = partitions_definition(Grain.HOUR, midnight)
        assert shown.get_partition_keys(current_time=day.end)[0] == f"{change}-00:00"
        assert len(shown.get_partition_keys(current_time=day.end)) == 24
        for hour in range(48):
            due = due_partition((midnight + timedelta(hours=hour)).astimezone(local), Grain.HOUR, timedelta(minutes=90))
            assert due.end == midnight + timedelta(hours=hour - 2)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_empty_batch_makes_nothing_fresh(ledger, view):
    publish(ledger, view, 0)
    publish(ledger, view, 3, rows=0)
    sync(ledger, view)
    assert state(ledger, view, BEGIN + 4 * DAY) is FreshnessState.ERROR


def test_a_view_that_never_served_is_as_old_as_its_deployment(ledger, view):
    ledger.record_deployment(platform_version="1", manifest_hash="h", views={view.key: {}})
    (deployment,) = ledger.deployments()
    soon, late = (deployment.deployed_at + timedelta(hours=hours) for hours in (1, 51))
    assert state(ledger, view, soon) is FreshnessState.WAITING
    publish(ledger, view, (soon - BEGIN).days - 1)
    assert state(ledger, view, soon) is FreshnessState.WAITING  # published, but no store has it
    assert state(ledger, replace(view, online=OnlineTier.NONE), soon) is FreshnessState.FRESH
    assert state(ledger, view, late) is FreshnessState.ERROR


def test_an_incident_is_told_once_and_resolved_once(ledger, view, look, webhook):
    publish(ledger, view, 0)
    sync(ledger, view)
    stale_at = BEGIN + DAY + timedelta(hours=51)
    for _ in range(3):
        look(stale_at)
    (told,) = webhook.taken
    assert (told["status"], told["kind"], told["severity"]) == ("firing", "stale", "error")
    assert "carrier_delays@1" in told["message"]
    assert "no declared service reads it" in told["impact"]
    assert (told["command"], told["runbook"]) == ("feature-platform status", "docs/runbooks/stale-view.md")
    (incident,) = ledger.incidents(open_only=True)
    assert incident.owner == "ops@example.com"
    publish(ledger, view, 2)
    sync(ledger, view)
    for _ in range(3):
        look(stale_at)
    assert [notice["status"] for notice in webhook.taken] == ["firing", "resolved"]
    assert ledger.incidents(open_only=True) == ()


def test_it_is_told_again_when_it_gets_worse(ledger, view, look, webhook):
    publish(ledger, view, 0)
    sync(ledger, view)
    look(BEGIN + DAY + timedelta(hours=27))
    look(BEGIN + DAY + timedelta(hours=51))
    assert [notice["severity"] for notice in webhook.taken] == ["warn", "error"]
    assert [one.severity for one in ledger.incidents(open_only=True)] == ["error"]


def test_a_notice_nobody_took_changes_nothing_and_is_sent_again(ledger, view, look, webhook):
    publish(ledger, view, 0)
    sync(ledger, view)
    stale_at = BEGIN + DAY + timedelta(hours=51)
    webhook.refusing = True
    for _ in range(2):
        report = look(stale_at)
        assert report.untold == 1
        assert [(one.kind, one.subject) for one in report.problems] == [
            ("stale", "carrier_delays@1 in store default"),
            ("route", "route 1 of ops"),
        ]
    assert len(ledger.incidents(open_only=True)) == 2
    assert webhook.taken == []
    webhook.refusing = False
    look(stale_at)
    publish(ledger, view, 2)
    sync(ledger, view)
    webhook.refusing = True
    assert look(stale_at).untold == 1
    assert [one.kind for one in ledger.incidents(open_only=True)] == ["route"]
    webhook.refusing = False
    look(stale_at)
    look(stale_at)
    assert ledger.incidents(open_only=True) == ()
    assert [(notice["status"], notice["kind"]) for notice in webhook.taken] == [
        ("firing", "stale"),
        ("resolved", "stale"),
    ]


def test_without_a_route_the_log_is_told(ledger, view, caplog):
    publish(ledger, view, 0)
    sync(ledger, view)
    with caplog.at_level(logging.WARNING, logger=LOG.name):
        watch(ledger, registry_of(view), stores=("default",), now=BEGIN + 9 * DAY, log=lambda: LOG, environ={})
    assert "is stale" in caplog.text
    assert len(ledger.incidents(open_only=True)) == 1


def test_an_owner_without_a_usable_route_is_told_through_the_platforms(ledger, view, webhook):
    publish(ledger, view, 0)
    sync(ledger, view)
    platform = Owner(name="platform", email="platform@example.com", routes=("${PLATFORM_URL}",))
    for routes in ((), ("${OPS_URL}",)):  # none declared; one whose variable is not set
        registry = registry_of(replace(view, owner=replace(view.owner, routes=routes)))
        watch(
            ledger, replace(registry, platform=platform), stores=("default",), now=BEGIN + 9 * DAY, log=lambda: LOG,
            environ={"PLATFORM_URL": webhook.url},
        )  # fmt: skip
    (told,) = webhook.taken
    assert (told["kind"], told["owner"]) == ("stale", "ops@example.com")


def test_the_log_is_asked_for_only_if_there_is_something_to_tell(ledger, view):
    asked = []

    def log() -> logging.Logger:
        asked.append(1)
        return LOG

    publish(ledger, view, 0)
    sync(ledger, view)
    assert watch(ledger, registry_of(view), stores=("default",), now=BEGIN + DAY, log=log, environ={}).problems == ()
    assert asked == []  # Dagster keeps a file for each tick whose log was touched
    for _ in range(2):
        assert watch(ledger, registry_of(view), stores=("default",), now=BEGIN + 9 * DAY, log=log, environ={}).problems
    assert asked == [1]


def test_a_route_that_is_no_url_stops_nothing_and_its_secret_is_not_logged(ledger, view, caplog):
    publish(ledger, view, 0)
    sync(ledger, view)
    routed = replace(view, owner=replace(view.owner, routes=("http://127.0.0.1/top secret",)))
    with caplog.at_level(logging.WARNING, logger=LOG.name):
        report = watch(
            ledger, registry_of(routed), stores=("default",), now=BEGIN + 9 * DAY, log=lambda: LOG, environ={}
        )
    assert report.untold == 1
    assert "not taken by its http route" in caplog.text
    assert "top secret" not in caplog.text


def test_apprise_takes_its_own_urls(ledger, view, webhook):
    publish(ledger, view, 0)
    sync(ledger, view)
    url = webhook.url.replace("http://", "json://")
    routed = replace(view, owner=replace(view.owner, routes=(url,)))
    watch(ledger, registry_of(routed), stores=("default",), now=BEGIN + 9 * DAY, log=lambda: LOG, environ={})
    (told,) = webhook.taken
    assert "carrier_delays@1" in told["message"]
    for said in ("Impact: requests get older values", "Run: feature-platform status", "docs/runbooks/stale-view.md"):
        assert said in told["message"]


def test_failing_partitions_are_told_until_they_are_published(ledger, view, look, webhook):
    now = BEGIN + 2 * DAY
    publish(ledger, view, 0)
    publish(ledger, view, 0, passes=False)
    sync(ledger, view)
    look(now)
    (told,) = webhook.taken
    assert (told["kind"], told["severity"]) == ("failing", "error")
    assert "2026-03-01" in told["message"]
    assert "blocking check failed" in told["message"]
    publish(ledger, view, 0)
    look(now)
    assert [notice["status"] for notice in webhook.taken] == ["firing", "resolved"]


def test_batches_left_by_a_crash_are_told(ledger, view, look, webhook):
    ledger.record_deployment(platform_version="1", manifest_hash="h", views={view.key: {}})
    ledger.open_batches(view, [partition_starting(BEGIN, Grain.DAY)], run_id="killed")
    look(datetime.now(UTC))
    assert webhook.taken == []
    look(datetime.now(UTC) + timedelta(hours=3))
    # at some hours of the day a partition comes due between
    (told,) = [one for one in webhook.taken if one["kind"] != "missing"]
    assert told["kind"] == "unfinished"
    assert "killed" in told["message"]


def test_a_correction_that_never_reached_the_store_is_told(ledger, view, look, webhook):
    today = (datetime.now(UTC) - BEGIN).days  # fresh for three hours more, at whatever hour of the day this runs
    for day in (0, today):
        publish(ledger, view, day)
    sync(ledger, view)
    publish(ledger, view, 0)
    publish(ledger, view, 0)
    look(datetime.now(UTC) + timedelta(hours=1))
    assert webhook.taken == []
    look(datetime.now(UTC) + timedelta(hours=3))
    (told,) = webhook.taken
    assert (told["kind"], told["severity"]) == ("unserved", "warn")
    assert "2 publish(es)" in told["message"]
    sync(ledger, view)
    look(datetime.now(UTC) + timedelta(hours=3))
    assert [notice["status"] for notice in webhook.taken] == ["firing", "resolved"]
