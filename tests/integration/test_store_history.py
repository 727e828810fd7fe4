"""What syncs and looks record of a real store, and what the ledger derives from it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from click.testing import CliRunner
from offline_platform import Platform, declare, registry_of

from feature_platform.cli.ledger import ledger as cli_ledger
from feature_platform.domain.feature_view import OnlineTier
from feature_platform.domain.serving_history import Loss
from feature_platform.domain.types import ColumnType
from feature_platform.errors import StoreUnavailableError
from feature_platform.ledger import Ledger
from feature_platform.observability import find_problems, look_at_store
from feature_platform.online import functions
from feature_platform.online.connection import Connection
from feature_platform.online.keys import position_key
from feature_platform.online.settings import ValkeyAddress
from feature_platform.sync import sync

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
VIEW = declare("delays", entities={"carrier": ColumnType.VARCHAR}, features={"mean": ColumnType.DOUBLE})
OTHER = declare("other", entities={"carrier": ColumnType.VARCHAR}, features={"mean": ColumnType.DOUBLE})


@pytest.fixture
def platform(settings) -> Platform:
    platform = Platform(settings, registry_of(VIEW, OTHER))
    platform.deploy()
    platform.add(VIEW, MARCH, [("UA", MARCH + timedelta(days=1), 1.0)])
    return platform


@pytest.fixture
def ledger(platform: Platform):
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        yield ledger


@pytest.fixture
def look(platform: Platform, ledger: Ledger):
    return lambda: look_at_store(ledger, platform.registry, store="default", valkey_url=platform.settings.valkey_url)


def problems_of(platform: Platform, ledger: Ledger):
    return find_problems(ledger, platform.registry, stores=("default",), now=datetime.now(UTC))


def run(platform: Platform) -> None:
    sync(platform.settings, platform.registry, VIEW, run_id="run")


def test_a_look_creates_nothing_and_repeats_cost_one_small_row(platform, ledger, look) -> None:
    assert str(look()) == "store default holds 0 view(s), changed since the last look"
    with Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0) as store:
        assert store.call("DBSIZE") == 0
    assert [look().is_news for _ in range(3)] == [False] * 3
    (seen,) = ledger.observations(VIEW.key, "default")
    assert seen.asked.at < seen.observed_at < seen.good_until
    history = ledger.served_history(VIEW.key, "default")
    assert (history.live_since, history.confirmed_until) == (None, seen.good_until)
    run(platform)
    assert [look().is_news for _ in range(3)] == [True, False, False]
    assert ledger.stores() == ("default",)
    with pytest.raises(psycopg2.errors.RaiseException, match="append-only"), ledger.connection.cursor() as cursor:
        cursor.execute("delete from store_observed")


def test_a_sync_is_evidence_and_its_history_never_changes(platform, ledger, look) -> None:
    look()
    run(platform)
    (known,) = ledger.served_history(VIEW.key, "default").known
    (ended,) = ledger.served_history(VIEW.key, "default").ends
    assert known.since is None
    assert known.until < ended[0], "asked to advance before the end was recorded"
    then, before = ledger.sequence(), ledger.served_history(VIEW.key, "default")
    run(platform)  # nothing to do: seen, but no sync
    assert len(ledger.served_history(VIEW.key, "default").syncs) == 1
    assert ledger.served_history(VIEW.key, "default").confirmed_until > known.until
    look()
    assert ledger.served_history(VIEW.key, "default", at_sequence=then) == before
    assert ledger.served_history(VIEW.key, "default", at_sequence=0).known == ()


def test_an_emptied_store_is_an_incident_until_it_is_built_again(platform, ledger, look, monkeypatch) -> None:
    run(platform)
    look()
    with Connection(ValkeyAddress.parse(platform.settings.valkey_url), 5.0) as store:
        store.call("FLUSHALL")
        look()
        (lost,) = [p for p in problems_of(platform, ledger) if p.kind == "lost"]
        assert "emptied" in lost.message and "feature-platform sync delays@1" in lost.message
        (incident,) = ledger.served_history(VIEW.key, "default").incidents
        assert (incident.until, incident.loss) == (None, Loss.EMPTIED)
        run(platform)
        assert "lost" not in {problem.kind for problem in problems_of(platform, ledger)}
        (healed,) = ledger.served_history(VIEW.key, "default").incidents
        assert (healed.since, healed.loss) == (incident.since, Loss.EMPTIED)
        assert healed.since < healed.until
        # a store that was set back by hand, or by a replica that became primary
        platform.add(VIEW, MARCH, [("UA", MARCH + timedelta(days=1), 2.0)])
        run(platform)
        look()
        store.call("HSET", position_key(VIEW.key), "position", "1")
        look()
        assert [one.loss for one in ledger.served_history(VIEW.key, "default").incidents] == [Loss.EMPTIED, Loss.BEHIND]
        monkeypatch.setenv("FEATURE_PLATFORM_LEDGER_URL", platform.settings.ledger_url)
        told = CliRunner().invoke(cli_ledger, ["stores", "delays", "--json"], catch_exceptions=False)
        (row,) = json.loads(told.output)
        assert [one["loss"] for one in row["incidents"]] == ["emptied", "set back"]
        assert "to now: set back" in CliRunner().invoke(cli_ledger, ["stores"], catch_exceptions=False).output


def test_a_store_that_cannot_be_reached_is_no_sighting(platform, ledger) -> None:
    with pytest.raises(StoreUnavailableError):
        look_at_store(ledger, platform.registry, store="default", valkey_url="redis://127.0.0.1:1")
    assert ledger.observations(VIEW.key, "default") == ()
    cold = replace(VIEW, online=OnlineTier.NONE)
    assert look_at_store(ledger, registry_of(cold), store="default", valkey_url="redis://127.0.0.1:1") is None


def test_a_probe_says_what_begin_said(platform, settings) -> None:
    with Connection(ValkeyAddress.parse(settings.valkey_url), 5.0) as store:
        begun = functions.begin(store, VIEW.key)
        look = functions.probe(store, [VIEW.key, OTHER.key])
    assert look.positions == {VIEW.key: (begun.nonce, 0), OTHER.key: None}
    assert look.server_run_id == begun.server_run_id
