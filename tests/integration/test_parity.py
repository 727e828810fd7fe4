"""Parity of a real ledger and lake with a real Valkey: what is counted, which cause is named, what a repair does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from offline_platform import Platform, declare, registry_of
from online_support import running_valkey

from feature_platform import lake
from feature_platform.cli.main import main
from feature_platform.domain.feature_view import Column, OnlineTier
from feature_platform.domain.types import ColumnType
from feature_platform.errors import LedgerConflictError, RequestError
from feature_platform.lake.sql import batches_table
from feature_platform.ledger import Ledger
from feature_platform.online.codec import Layout, tombstone
from feature_platform.online.connection import Connection
from feature_platform.online.keys import row_key
from feature_platform.online.settings import ValkeyAddress
from feature_platform.orchestration.parity import build_parity_asset
from feature_platform.settings import Settings
from feature_platform.sync import publish_schemas, raise_failures, sync, sync_stores
from feature_platform.sync.encoding import encode_keys
from feature_platform.sync.parity import Cause, ParityReport, check_parity, checking, repair
from feature_platform.sync.parity.sampling import Sample, entity_text

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
VIEW = declare(
    "delays",
    entities={"carrier": ColumnType.VARCHAR, "gate": ColumnType.INTEGER},
    features={"mean": ColumnType.DOUBLE, "note": ColumnType.VARCHAR},
)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SHORT = declare("short", entities={"carrier": ColumnType.VARCHAR}, features={"n": ColumnType.BIGINT}, ttl=3 * DAY)
NAN = float("nan")


@pytest.fixture
def platform(settings_in_environ: Settings, monkeypatch) -> Platform:
    platform = Platform(settings_in_environ, registry_of(VIEW, SHORT))
    for owner in ("feature_platform.declaration", "feature_platform.cli.parity"):
        monkeypatch.setattr(f"{owner}.load_registry", lambda _: platform.registry)
    platform.deploy()
    return platform


@pytest.fixture
def valkey(settings: Settings) -> Iterator[Connection]:
    with Connection(ValkeyAddress.parse(settings.valkey_url), 5.0) as connection:
        yield connection


@pytest.fixture
def check(platform: Platform) -> Callable[..., ParityReport]:
    return lambda view=VIEW, **options: check_parity(platform.settings, platform.registry, view, **options)


def sync_all(platform: Platform, view=VIEW) -> None:
    sync(platform.settings, platform.registry, view, run_id="run")


def row(carrier: str, day: int, mean: float | None, note: str | None = "é,{}") -> tuple[Any, ...]:
    return carrier, 1, MARCH + (day + 1) * DAY, mean, note


def counts(report: ParityReport) -> dict[str, int]:
    return {kind.value: count for kind, count in report.outcomes.items() if count}


def causes(report: ParityReport) -> dict[str, Cause]:
    return {one.entity: one.cause for one in report.examples}


def key(carrier: str) -> bytes:
    return row_key("delays@1", f"{carrier},1".encode())


def test_a_synced_store_is_in_parity_and_a_late_one_is_late(platform, check) -> None:
    assert counts(check()) == {}
    platform.add(VIEW, MARCH, [row("UA", 0, NAN), row("AA", 0, None, None), row("}{,%", 0, 1.0), row("", 0, 1.0)])
    late = check()
    assert counts(late) == {"missing": 4} and late.causes == {Cause.LATE_SYNC: 4} and late.only_late
    sync_all(platform)
    assert counts(check()) == {"match": 4}
    platform.add(VIEW, MARCH, [row("UA", 0, 2.0), row("AA", 0, None, None)])  # a correction; two rows vanish
    late = check()
    assert counts(late) == {"match": 1, "mismatch": 1, "extra": 2}
    assert late.causes == {Cause.LATE_SYNC: 3}
    assert (late.places.store, late.places.head) == (1, 2)
    after = repair(platform.settings, platform.registry, late, run_id="run")
    assert counts(after) == {"match": 4} and after.places.store == 2


def test_lost_writes_strangers_and_damage_are_told_apart_and_repaired(platform, check, valkey) -> None:
    carriers = [f"c{i}" for i in range(8)]
    platform.add(VIEW, MARCH, [row(c, 0, 1.0) for c in carriers])
    sync_all(platform)
    old = valkey.call("GET", key("c1"))
    platform.add(VIEW, MARCH + DAY, [row(c, 1, 2.0) for c in carriers])
    sync_all(platform)
    layout = Layout.of((c.name, c.type) for c in VIEW.features)
    valkey.call("DEL", key("c0"))  # evicted
    valkey.call("SET", key("c1"), old)  # an older row came back
    valkey.call("SET", key("c2"), tombstone(1))
    forged = {"mean": 666.0, "note": "not ours"}
    valkey.call("SET", key("c3"), layout.encode(2, MARCH + 2 * DAY, forged))
    valkey.call("SET", key("c4"), layout.encode(99, MARCH + 2 * DAY, forged))
    valkey.call("SET", key("c5"), b"short")
    valkey.call("SET", row_key("delays@1", b"nobody,1"), layout.encode(1, MARCH + DAY, forged))
    valkey.call("SET", row_key("delays@1", b"\xff"), layout.encode(1, MARCH + DAY, forged))
    report = check(sample=None)
    assert counts(report) == {"match": 2, "missing": 2, "mismatch": 4, "extra": 2}
    assert causes(report) == {
        **dict.fromkeys(("c0,1", "c1,1", "c2,1"), Cause.LOST_WRITE),
        **dict.fromkeys(("c3,1", "c4,1", "c5,1", "nobody,1", "\\xff"), Cause.UNKNOWN),
    }
    assert not report.only_late
    after = repair(platform.settings, platform.registry, report, run_id="run")
    assert counts(after) == {"match": 8}
    assert valkey.call("EXISTS", row_key("delays@1", b"nobody,1")) == 0


def test_an_emptied_store_is_known_to_have_lost_its_data(platform, check, valkey) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    sync_all(platform)
    valkey.call("FLUSHALL")
    report = check()
    assert report.causes == {Cause.STORE_LOST: 1}
    assert counts(repair(platform.settings, platform.registry, report, run_id="run")) == {"match": 1}


def test_dead_rows_are_no_difference(platform, check, valkey) -> None:
    old, recent = TODAY - 20 * DAY, TODAY - DAY
    platform.add(SHORT, old, [("long gone", old + DAY, 1)])
    platform.add(SHORT, TODAY - 6 * DAY, [("kept", TODAY - 5 * DAY, 1)])
    platform.add(SHORT, recent, [("UA", TODAY, 1)])
    sync_all(platform, SHORT)
    assert counts(check(SHORT)) == {"match": 1, "expired": 2}
    valkey.call("DEL", row_key("short@1", b"kept"))
    assert counts(check(SHORT)) == {"match": 1, "expired": 2}


def test_rows_of_an_older_declaration(platform, check) -> None:
    """A feature that was added: rows without it answer NULL, which is right until a batch has a value."""
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0), row("AA", 0, 1.0)])
    sync_all(platform)
    wider = dataclasses.replace(VIEW, features=(*VIEW.features, Column(name="late", type=ColumnType.DOUBLE)))
    with lake.connect(platform.settings) as connection:
        connection.execute(f"alter table {batches_table(VIEW)} add column late double")
    publish_schemas(platform.settings.valkey_url, registry_of(wider))
    check_wider = lambda: check_parity(platform.settings, registry_of(wider), wider)  # noqa: E731
    assert counts(check_wider()) == {"match": 2}
    with lake.connect(platform.settings) as connection:  # what no platform would do: rows filled in afterwards
        connection.execute(f"update {batches_table(VIEW)} set late = 5.0 where carrier = 'UA'")
    report = check_wider()
    assert counts(report) == {"match": 1, "mismatch": 1} and causes(report) == {"UA,1": Cause.CODE_CHANGE}
    after = repair(platform.settings, registry_of(wider), report, run_id="run")
    assert counts(after) == {"match": 2}


def test_lake_and_store_choose_the_same_sample(platform, check, valkey) -> None:
    names = [*(f"c{i}" for i in range(400)), "", "%", "a,b", "{x}", "é"]
    platform.add(VIEW, MARCH, [row(name, 0, 1.0) for name in names])
    sync_all(platform)
    sample = Sample(fraction=0.25, seed="s")
    with lake.connect(platform.settings, read_only=True) as connection:
        chosen = sample.predicate(VIEW)
        table = batches_table(VIEW)
        by_sql = connection.execute(f"select carrier, gate from {table} where {chosen.sql}", chosen.parameters)
        in_lake = {k for batch in by_sql.to_arrow_reader() for k in encode_keys(VIEW, batch).to_pylist()}
        texts = connection.execute(f"select {entity_text(VIEW)} from {table}").fetchall()
    stored = set(valkey.call("KEYS", "delays@1:{*"))
    assert {row_key("delays@1", text.encode()) for (text,) in texts} == stored
    assert in_lake == {k for k in stored if sample.holds(k[len("delays@1:{") : -1])}
    assert 60 < len(in_lake) < 150
    report = check(sample=100, seed="s")
    assert 60 < report.compared < 150 and not report.differing


def test_refusals(platform, check, valkey) -> None:
    with pytest.raises(RequestError, match="not served online"):
        check(dataclasses.replace(VIEW, online=OnlineTier.NONE))
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0)])
    sync_all(platform)
    valkey.call("HSET", "feature_platform:position:delays@1", "position", "9")
    with pytest.raises(LedgerConflictError, match="this ledger ends at 1"):
        check()


def test_command(platform, valkey) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0), row("AA", 0, 1.0)])
    sync_all(platform)
    invoke = lambda *arguments: CliRunner().invoke(main, ["parity", *arguments])  # noqa: E731
    first = invoke()
    assert first.exit_code == 0, first.output
    valkey.call("DEL", key("UA"))
    found = invoke("delays", "--json")
    assert found.exit_code == 1
    (report,) = json.loads(found.stdout)
    assert report["outcomes"] == {"match": 1, "missing": 1} and report["causes"] == {"lost write": 1}
    shown = invoke("delays", "--full")
    assert shown.exit_code == 1 and "UA,1" in shown.stdout and "lost write" in shown.stdout
    assert "--repair" in shown.output
    mended = invoke("delays", "--repair")
    assert mended.exit_code == 0, mended.output
    assert "in parity" in mended.output
    assert valkey.call("EXISTS", key("UA")) == 1
    platform.add(VIEW, MARCH + DAY, [row("UA", 1, 2.0)])
    late = invoke("delays", "--full")
    assert late.exit_code == 3 and "late sync" in late.stdout


def test_asset_and_check(platform, valkey) -> None:
    platform.add(VIEW, MARCH, [row("UA", 0, 1.0), row("AA", 0, 1.0)])
    sync_all(platform)
    valkey.call("DEL", key("UA"))
    asset = build_parity_asset(platform.settings, platform.registry, VIEW)
    for repairs, passed in ((False, False), (True, True)):
        config = {"ops": {"parity__delays": {"config": {"repair": repairs, "full": True}}}}
        result = dg.materialize([asset], run_config=config)
        (check,) = result.get_asset_check_evaluations()
        assert (check.check_name, check.passed) == ("in_parity", passed)
        assert check.metadata["missing"].value == (0 if passed else 1)


def test_the_asset_compares_every_store_and_all_of_what_differed(platform, valkey, monkeypatch) -> None:
    monkeypatch.setattr(checking.check_parity, "__kwdefaults__", checking.check_parity.__kwdefaults__ | {"sample": 20})
    names = [f"c{i}" for i in range(100)]
    platform.add(VIEW, MARCH, [row(name, 0, 1.0) for name in names])
    with running_valkey() as region, Connection(ValkeyAddress.parse(region), 5.0) as us:
        settings = dataclasses.replace(platform.settings, more_stores=(("us", region),))
        raise_failures(sync_stores(settings, platform.registry, [VIEW], run_id="run"))
        asset = build_parity_asset(settings, platform.registry, VIEW)
        with Ledger.connect(settings.ledger_url) as ledger:
            assert dg.materialize([asset]).success
            assert ledger.last_parity("delays@1", "us"), "a region is compared, too"
            # what a full comparison finds, a small sample of the same seed would not see
            hidden = next(n for n in names if not Sample(fraction=0.5, seed="s").holds(f"{n},1".encode()))
            us.call("DEL", key(hidden))
            check_parity(settings.at_store("us"), platform.registry, VIEW, sample=None, seed="s")
            (check,) = dg.materialize([asset]).get_asset_check_evaluations()
            assert not check.passed and "store us: 1 of 100" in (check.description or "")
            assert ledger.open_difference("delays@1", "us")
            assert ledger.open_difference("delays@1", "default") is None
            raise_failures(sync_stores(settings, platform.registry, [VIEW], run_id="run", rebuild=True))
            (check,) = dg.materialize([asset]).get_asset_check_evaluations()
            assert check.passed and ledger.open_difference("delays@1", "us") is None
