"""Several online stores (regions), and a view version taken out of one."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from offline_platform import Platform, declare, registry_of
from online_support import running_valkey

from feature_platform import declaration
from feature_platform.cli.main import main
from feature_platform.domain.types import ColumnType
from feature_platform.errors import RequestError, StoreUnavailableError, UnknownNameError
from feature_platform.ledger import Ledger
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress
from feature_platform.settings import Settings
from feature_platform.sync import drop, dropping, raise_failures, sync, sync_stores

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VIEW = declare("delays", entities={"carrier": ColumnType.VARCHAR}, features={"mean": ColumnType.DOUBLE})
OTHER = declare("delays_too", entities={"carrier": ColumnType.VARCHAR}, features={"mean": ColumnType.DOUBLE})


@pytest.fixture
def platform(settings: Settings) -> Platform:
    platform = Platform(settings, registry_of(VIEW, OTHER))
    platform.deploy()
    with Ledger.connect(settings.ledger_url) as ledger:
        views = {view.key: dataclasses.asdict(view) for view in (VIEW, OTHER)}
        ledger.record_deployment(platform_version="1", manifest_hash="h", views=views)
    platform.add(VIEW, MARCH, [("UA", MARCH + DAY, 1.0), ("AA,{}", MARCH + DAY, 2.0)])
    platform.add(OTHER, MARCH, [("UA", MARCH + DAY, 3.0)])
    return platform


def held(url: str, view: str = "delays@1") -> int:
    with Connection(ValkeyAddress.parse(url), 5.0) as connection:
        return len(connection.call("KEYS", f"{view}:*"))


def with_stores(platform: Platform, **stores: str) -> Settings:
    return dataclasses.replace(platform.settings, more_stores=tuple(stores.items()))


def test_a_region_that_is_down_holds_nobody_and_catches_up(platform: Platform, tmp_path) -> None:
    views = [VIEW, OTHER]
    with running_valkey() as first:
        settings = with_stores(platform, us=first)
        outcomes = sync_stores(settings, platform.registry, views, run_id="run")
        raise_failures(outcomes)
        assert [(o.store, o.view, o.result.written) for o in outcomes if o.result] == [
            ("default", "delays@1", 2), ("default", "delays_too@1", 1),
            ("us", "delays@1", 2), ("us", "delays_too@1", 1),
        ]  # fmt: skip
    # the server of the region is dead from here on
    platform.add(VIEW, MARCH + DAY, [("DL", MARCH + 2 * DAY, 4.0)])
    outcomes = sync_stores(settings, platform.registry, views, run_id="run")
    assert [o.store for o in outcomes if o.error] == ["us", "us"]
    assert held(platform.settings.valkey_url) == 3
    with pytest.raises(StoreUnavailableError):
        raise_failures(outcomes)
    with Ledger.connect(settings.ledger_url) as ledger:
        assert [ledger.synced_position("delays@1", store) for store in ("default", "us")] == [2, 1]
    with running_valkey() as again:
        settings = with_stores(platform, us=again)
        done = sync_stores(settings, platform.registry, views, run_id="run", stores=["us"])
        assert [(o.result.from_position, o.result.to_position) for o in done if o.result] == [(0, 2), (0, 1)]
        assert held(again) == 3
    with pytest.raises(UnknownNameError, match="'mars'"):
        sync_stores(settings, platform.registry, views, run_id="run", stores=["mars"])


def test_a_version_is_dropped_without_touching_others(platform: Platform, monkeypatch) -> None:
    monkeypatch.setattr(dropping, "KEYS_PER_CALL", 1)
    settings, registry = platform.settings, platform.registry
    for view in (VIEW, OTHER):
        sync(settings, registry, view, run_id="run")
    with pytest.raises(RequestError, match="read by feature services"):
        drop(settings, registry, "delays@1")
    with Connection(ValkeyAddress.parse(settings.valkey_url), 5.0) as valkey:
        valkey.pipeline([("SET", "delays@1:{forgotten}", "x"), ("SET", "delays@1:{UA}:push", "x")])
        undeclared = registry_of(OTHER)
        assert drop(settings, undeclared, "delays@1").rows == 3
        assert valkey.call("KEYS", "*delays@1*") == [b"delays@1:{forgotten}"]
        assert valkey.call("HKEYS", "feature_platform:views") == [b"delays_too@1"]
        assert drop(settings, undeclared, "delays@1", scan=True).rows == 1
    assert held(settings.valkey_url, "delays_too@1") == 1
    assert sync(settings, registry, VIEW, run_id="run").from_position == 0
    assert drop(settings, registry, "delays@1", even_if_used=True).rows == 2
    with pytest.raises(UnknownNameError, match="ever deployed"):
        drop(settings, registry, "delays")


def test_the_commands(platform: Platform, settings_in_environ: Settings, monkeypatch) -> None:
    monkeypatch.setattr(declaration, "load_registry", lambda _: platform.registry)
    monkeypatch.setenv("FEATURE_PLATFORM_STORES", json.dumps({"us": "unix:///nowhere.sock"}))
    result = CliRunner().invoke(main, ["sync", "--all", "--json"], catch_exceptions=True)
    assert isinstance(result.exception, StoreUnavailableError) or result.exit_code == 75
    assert [one["store"] for one in json.loads(result.stdout)] == ["default", "default"]
    dropped = CliRunner().invoke(main, ["drop", "delays@1", "--yes", "--even-if-used", "--json"])
    assert json.loads(dropped.stdout) == {"view": "delays@1", "store": "default", "rows": 2}
    assert "no online store 'mars'" in str(CliRunner().invoke(main, ["drop", "delays@1", "--store", "mars"]).output)
    monkeypatch.setenv("FEATURE_PLATFORM_STORES", "us")
    assert "STORES is malformed" in CliRunner().invoke(main, ["sync", "--all"]).output
