"""`feature-platform status` of two online stores, on a real ledger: one of them is behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from tiny_platform import SOURCE, TinyPlatform
from used_platform import write

from feature_platform.cli.main import main
from feature_platform.ledger import Ledger
from feature_platform.settings import PREFIX

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def ledger(tiny: TinyPlatform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    for name in ("PROJECT", "HOME", "LEDGER_URL", "LAKE_CATALOG", "LAKE_DATA", "STORE"):
        monkeypatch.setenv(PREFIX + name, str(getattr(tiny.settings, name.lower())))
    monkeypatch.setenv(PREFIX + "VALKEY_URL", "valkey://127.0.0.1:1")
    monkeypatch.setenv(PREFIX + "STORES", json.dumps({"us": "valkey://127.0.0.1:2"}))
    with Ledger.connect(tiny.settings.ledger_url) as connected:
        yield connected


def test_each_store_has_its_age_and_the_stage_that_is_behind(
    tiny: TinyPlatform, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synced(store: str) -> None:
        head = ledger.head("user_activity@1")
        sync_id = ledger.begin_sync("user_activity@1", store, 0, head, server_run_id="server", run_id="run")
        ledger.end_sync(sync_id, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)

    now = datetime(2024, 1, 10, 12, tzinfo=UTC)
    monkeypatch.setattr(Ledger, "now", lambda _: now)
    ledger.record_source_load(SOURCE, loaded_through=now - HOUR, row_count=0, watermark=None, run_id="load")
    write(tiny, "2024-01-06")
    for store in ("default", "us"):
        synced(store)
    write(tiny, "2024-01-08", "2024-01-09")
    synced("default")
    report = json.loads(CliRunner().invoke(main, ["status", "--json"]).output)
    here, us = (one for one in report["views"] if one["view"] == "user_activity@1")
    assert [(one["store"], one["state"], one["waiting"]) for one in (here, us)] == [
        ("default", "fresh", 0),
        ("us", "error", 2),
    ]
    lags = {"arrival": HOUR, "compute": 11 * HOUR, "publish": 0 * HOUR, "sync": 0 * HOUR}
    assert here["lags"] == {stage: lag.total_seconds() for stage, lag in lags.items()}
    assert us["lags"] == here["lags"] | {"sync": (3 * DAY).total_seconds()}
    assert (us["age"], us["served_event"][:10]) == ((3 * DAY + 12 * HOUR).total_seconds(), "2024-01-07")
    assert [one["subject"] for one in report["problems"] if one["kind"] == "stale"] == ["user_activity@1 in store us"]
