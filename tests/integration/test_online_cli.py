"""`feature-platform sync` and `feature-platform get`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from offline_platform import Platform, declare, registry_of

from feature_platform import declaration
from feature_platform.cli.main import main
from feature_platform.domain.types import ColumnType
from feature_platform.settings import Settings

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
DELAYS = declare(
    "delays",
    entities={"carrier": ColumnType.VARCHAR, "gate": ColumnType.INTEGER},
    features={"mean": ColumnType.DOUBLE, "note": ColumnType.VARCHAR},
    ttl=7 * DAY,
)


@pytest.fixture
def platform(settings_in_environ: Settings, monkeypatch) -> Platform:
    platform = Platform(settings_in_environ, registry_of(DELAYS))
    monkeypatch.setattr(declaration, "load_registry", lambda _: platform.registry)
    platform.deploy()
    platform.add(DELAYS, NOW - DAY, [("UA", 1, NOW - DAY + timedelta(minutes=1), 4.5, None)])
    return platform


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_sync_then_get(platform: Platform) -> None:
    (synced,) = json.loads(invoke("sync", "--all", "--json"))
    assert (synced["view"], synced["to_position"], synced["written"]) == ("delays@1", 1, 1)
    assert "delays@1" in invoke("sync", "delays")
    answer = json.loads(invoke("get", "departure_delay", "--entity", "carrier=UA", "--entity", "gate=1", "--json"))
    assert answer["values"] == {"mean": 4.5, "note": None}
    assert answer["views"]["delays@1"]["status"] == "fresh"
    shown = invoke("get", "delays:mean", "delays:note", "--entity", "carrier=UA", "--entity", "gate=1")
    assert "4.5" in shown and "null" in shown and "fresh" in shown
    assert "missing" in invoke("get", "delays", "--entity", "carrier=ZZ", "--entity", "gate=1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sync"], "name the views to sync"),
        (["sync", "delays", "--all"], "name the views to sync"),
        (["get", "delays", "--entity", "carrier"], "no key of the views"),
        (["get", "delays", "--entity", "gate=x"], "no value of entity column 'gate'"),
        (["get", "delays", "--entity", "gate=1", "--entity", "gate=1"], "given twice"),
        (["get", "delays", "--entity", "gate=1"], "'carrier' is missing"),
    ],
)
def test_what_is_wrong_is_said(platform: Platform, arguments: list[str], message: str) -> None:
    invoke("sync", "--all")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert message in result.output
