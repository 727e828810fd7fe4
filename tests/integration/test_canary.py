"""A value goes from the lake to a client, and what goes wrong on the way is found."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from datetime import timedelta

import dagster as dg
import pytest
from click.testing import CliRunner
from offline_platform import CARRIER, Platform, registry_of
from online_support import running_valkey

from feature_platform import declaration
from feature_platform.canary import run_canary, running, writing
from feature_platform.cli.main import main
from feature_platform.declaration.canary import KEY, canary_view, with_canary
from feature_platform.errors import LockBusyError, RequestError, UnknownNameError
from feature_platform.lake import connect
from feature_platform.lake.sql import batches_table
from feature_platform.ledger import Ledger, canary_lock
from feature_platform.maintenance import maintain
from feature_platform.observability import find_dead_canaries
from feature_platform.observability.canaries import canary_metrics
from feature_platform.online import FeatureClient
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress
from feature_platform.orchestration.canary import build_canary_sensor
from feature_platform.settings import Settings


@pytest.fixture
def platform(settings: Settings) -> Platform:
    Platform(settings, with_canary(registry_of(CARRIER))).deploy()
    return Platform(settings, registry_of(CARRIER))


def canary(platform: Platform, settings: Settings | None = None):
    return run_canary(settings or platform.settings, platform.registry, run_id="run")


def test_a_value_comes_through_and_the_ledger_says_so(platform: Platform) -> None:
    (first,), (second,) = canary(platform), canary(platform)
    assert first.is_ok and second.is_ok, (first, second)
    assert second.written_at < second.online_at < second.read_at
    assert second.took < timedelta(minutes=1) and second.took == second.read_at - second.written_at
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert ledger.last_canary("default") == ledger.last_good_canary("default") == second
        # a batch like others: opened, computed, audited, published, synced; the second one supersedes the first
        newest, _ = ledger.batches(KEY)
        assert (newest.state, newest.batch.batch_id, newest.row_count) == ("published", second.batch_id, 1)
        assert [check.passed for check in ledger.checks(newest.batch.batch_id)] == [True]
        assert ledger.synced_position(KEY, "default") == ledger.head(KEY) == 2
        with canary_lock(ledger.connection), pytest.raises(LockBusyError, match="another round"):
            canary(platform)
    with FeatureClient.connect(platform.settings.valkey_url) as client:
        (row,) = client.get_online_features(KEY, [{"store": "default"}])
        assert row.values["number"] == newest.batch.seq and row.values["nothing"] is None


def test_one_store_that_is_down_is_found_and_holds_no_other(platform: Platform) -> None:
    with running_valkey() as second:
        settings = dataclasses.replace(platform.settings, more_stores=(("us", second),))
        assert [(one.store, one.is_ok) for one in canary(platform, settings)] == [("default", True), ("us", True)]
    here, us = canary(platform, settings)
    assert here.is_ok
    assert (us.failed_at, us.online_at, us.read_at) == ("sync", None, None) and "cannot" in us.failure
    with Ledger.connect(settings.ledger_url) as ledger:
        assert ledger.last_canary("us") == us
        assert ledger.last_good_canary("us").written_at < us.written_at
    with running_valkey() as again:  # empty: the canary brings itself back
        settings = dataclasses.replace(platform.settings, more_stores=(("us", again),))
        assert all(one.is_ok for one in canary(platform, settings))
    with pytest.raises(UnknownNameError, match="'mars'"):
        run_canary(settings, platform.registry, run_id="run", stores=["mars"])
    with pytest.raises(RequestError, match="no online store"):
        canary(platform, dataclasses.replace(platform.settings, valkey_url=""))


@pytest.mark.parametrize(
    ("damage", "steps"),
    [
        (lambda value: value[:-1] + bytes([value[-1] ^ 1]), ["compare"]),
        (lambda value: value[:20], ["read", "compare"]),
    ],
    ids=["one bit", "cut off"],
)
def test_a_value_that_was_tampered_with_is_told(platform: Platform, monkeypatch, damage, steps) -> None:
    synced = running.sync

    def tampering(settings: Settings, *args, **options):
        result = synced(settings, *args, **options)
        with Connection(ValkeyAddress.parse(settings.valkey_url), 5.0) as valkey:
            (key,) = valkey.call("KEYS", f"{KEY}:*")
            valkey.call("SET", key, damage(valkey.call("GET", key)))
        return result

    monkeypatch.setattr(running, "sync", tampering)
    (read,) = canary(platform)
    assert read.failed_at in steps and read.failure and read.online_at, read


def test_a_lake_that_loses_rows_publishes_nothing(platform: Platform, monkeypatch) -> None:
    monkeypatch.setattr(writing, "_insert", lambda *_: None)
    (read,) = canary(platform)
    assert (read.failed_at, read.batch_id) == ("write", None) and "does not hold what was written" in read.failure
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert [one.state for one in ledger.batches(KEY)] == ["failed"] and ledger.head(KEY) == 0


def test_the_command_and_a_platform_that_was_not_deployed_since(
    settings: Settings, settings_in_environ: Settings, platform: Platform, monkeypatch
) -> None:
    monkeypatch.setattr(declaration, "load_registry", lambda _: platform.registry)
    done = CliRunner().invoke(main, ["canary", "--json"])
    (answer,) = json.loads(done.stdout)
    assert done.exit_code == 0 and answer["ok"] and answer["seconds"] > 0
    for listing in ("batches", "syncs", "events"):
        assert KEY not in CliRunner().invoke(main, ["ledger", listing, "--json"]).stdout
        assert KEY in CliRunner().invoke(main, ["ledger", listing, KEY, "--json"]).stdout
    with closing(connect(settings)) as lake:
        lake.execute(f"drop table {batches_table(canary_view(platform.registry))}")
    failed = CliRunner().invoke(main, ["canary", "--store", "default"])
    assert failed.exit_code == 1 and "feature-platform deploy" in " ".join(failed.output.split())


def test_it_is_a_problem_when_it_fails_and_when_nobody_tries(platform: Platform, monkeypatch) -> None:
    settings, registry = platform.settings, platform.registry

    with Ledger.connect(settings.ledger_url) as ledger:

        def found(**later: float) -> list[tuple[str, str]]:
            now = ledger.now() + timedelta(**later)
            problems = find_dead_canaries(ledger, registry, stores=["default"], now=now)
            return [(one.severity, one.message.partition("default ")[2]) for one in problems]

        def state() -> dict[str, float]:
            metrics = canary_metrics(ledger, registry, store="default")
            return {one.name.partition("canary_")[2]: one.samples[0].value for one in metrics if one.samples}

        assert found() == [] and state() == {}, "nothing is deployed"
        ledger.record_deployment(platform_version="1", manifest_hash="h", views={})
        assert found(minutes=10) == [] and found(minutes=20) == [("error", "has never been tried")]
        assert [*state()] == ["data_timestamp_seconds"]

        (good,) = canary(platform)
        assert found(minutes=10) == []
        assert state() == {
            "data_timestamp_seconds": good.written_at.timestamp(), "ok": 1, "seconds": good.took.total_seconds()
        }  # fmt: skip
        ((severity, message),) = found(minutes=20)
        assert severity == "error" and message.startswith("is not tried any more: the last value came through at 2")
        assert " ago" not in message, "it is kept while it is open, and would grow wrong"

        away = dataclasses.replace(settings, valkey_url="valkey://127.0.0.1:1")
        (bad,) = canary(platform, away)
        assert bad.failed_at == "sync"
        ((severity, message),) = found()
        assert severity == "warn" and message.startswith("failed at sync") and "came through" in message
        assert [one[0] for one in found(minutes=20)] == ["error"]
        assert (state()["ok"], state()["data_timestamp_seconds"]) == (0, good.written_at.timestamp())

        monkeypatch.setattr(running, "differences", lambda *_: "number: wrote 1, read 2")
        canary(platform)
        ((severity, message),) = found()
        assert severity == "error" and "wrote 1, read 2" in message, "at once"
        monkeypatch.undo()

        sensor = build_canary_sensor(settings, registry)
        assert "read" in sensor(dg.build_sensor_context()).skip_message
        assert found() == []
        with canary_lock(ledger.connection):
            assert "not tried" in sensor(dg.build_sensor_context()).skip_message
        assert [*find_dead_canaries(ledger, registry_of(), stores=["default"], now=good.read_at)] == []


def test_what_it_wrote_goes_with_maintenance(platform: Platform) -> None:
    for _ in range(3):
        canary(platform)
    view = canary_view(platform.registry)
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        later = ledger.now() + timedelta(days=4)
    report = maintain(platform.settings, platform.registry, now=later)
    assert {table.table: table.rows_deleted for table in report.tables}[KEY] == 2
    with closing(connect(platform.settings, read_only=True)) as lake:
        assert lake.execute(f"select count(*) from {batches_table(view)}").fetchone() == (1,)
    assert canary(platform)[0].is_ok
