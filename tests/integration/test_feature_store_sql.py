"""`features.<view>` and the commands `training-set` and `sql`, on a real ledger and lake."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from offline_platform import CARRIER, Platform, declare, registry_of

from feature_platform.cli import offline, training_sets
from feature_platform.domain.types import ColumnType
from feature_platform.errors import RequestError

DAY = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = declare(
    "carrier_delays", version=2, entities={"carrier": ColumnType.VARCHAR}, features={"median": ColumnType.DOUBLE}
)


def at(days: int) -> datetime:
    return DAY + timedelta(days=days)


@pytest.fixture
def platform(settings, monkeypatch) -> Platform:
    built = Platform(settings, registry_of(CARRIER, SECOND))
    built.deploy()
    old, new, _, median = built.open_all(
        [
            (CARRIER, at(0), [["AA", at(1), 1.0, 10], ["UA", at(1), 2.0, 20]]),
            (CARRIER, at(0), [["AA", at(1), 1.5, None]]),
            (CARRIER, at(1), [["AA", at(2), 9.0, 99]]),
            (SECOND, at(0), [["AA", at(1), 7.0]]),
        ]
    )
    built.publish(old, new, median)
    for commands in (offline, training_sets):
        monkeypatch.setattr(commands, "open_store", lambda: built.store)
    return built


def test_people_see_published_rows_and_declared_columns_and_cannot_write(platform: Platform) -> None:
    with platform.store.connect() as connection:
        assert connection.sql("from features.carrier_delays_v1").fetchall() == [("AA", at(1), 1.5, None)]
        assert connection.sql("from features.carrier_delays").fetchall() == [("AA", at(1), 7.0)]
        assert connection.sql("from features.carrier_delays").columns == ["carrier", "event_timestamp", "median"]
        for write in ("delete from lake.batches.carrier_delays_v1", "create table lake.batches.mine (x int)"):
            with pytest.raises(duckdb.Error, match="read-only"):
                connection.execute(write)
        # what is published later is not seen; a new connection sees it
        platform.add(CARRIER, at(4), [["AA", at(5), 3.0, 3]])
        assert connection.sql("select count(*) from features.carrier_delays_v1").fetchall() == [(1,)]
    with platform.store.connect() as connection:
        assert connection.sql("select count(*) from features.carrier_delays_v1").fetchall() == [(2,)]


def test_sql_command(platform: Platform) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(offline.sql, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    query = "select carrier, delay, flights, event_timestamp from features.carrier_delays_v1"
    assert json.loads(run(query, "--json")) == [
        {"carrier": "AA", "delay": 1.5, "flights": None, "event_timestamp": "2026-03-02T00:00:00+00:00"}
    ]
    assert run(query, "--csv").splitlines() == [
        "carrier,delay,flights,event_timestamp",
        "AA,1.5,,2026-03-02T00:00:00+00:00",
    ]
    assert "1.5" in run(query)
    assert "features.carrier_delays_v1" in run()
    assert "first 2 rows" in run("select * from range(5)", "--limit", "2")
    assert len(json.loads(run("from range(5)", "--json", "--limit", "0"))) == 5

    def refused(query: str, says: str) -> None:
        with pytest.raises(RequestError, match=says):
            CliRunner().invoke(offline.sql, [query], catch_exceptions=False, standalone_mode=False)

    refused("select * from features.carier_delays", r"[\s\S]*features.carrier_delays, features.carrier_delays_v1")
    refused("select nothing from features.carrier_delays", "nothing")
    refused("create table x (y int)", "only reads")
    refused("attach ':memory:' as m", "only reads")
    refused("select 1; select 2", "one statement")
    refused("selec 1", "syntax")


def test_training_set_command(platform: Platform, tmp_path) -> None:
    labels, out = tmp_path / "labels.parquet", tmp_path / "set.parquet"
    pq.write_table(pa.Table.from_pylist([{"carrier": c, "event_timestamp": at(2)} for c in ("AA", "UA")]), labels)
    arguments = ["create", "carrier_delays@1", "--labels", str(labels), "--out", str(out)]
    told = CliRunner().invoke(training_sets.training_set, [*arguments, "--json"], catch_exceptions=False)
    facts = json.loads(told.output)
    assert (facts["rows"], facts["mode"], facts["null_shares"]) == (2, "auto", {"delay": 0.5, "flights": 1.0})
    assert facts["ledger_sequence"] > 0
    assert pq.read_table(out).column_names == ["carrier", "event_timestamp", "delay", "flights"]
    told = CliRunner().invoke(training_sets.training_set, arguments, catch_exceptions=False)
    assert "2 rows x 4 columns" in told.output
    assert "50.0%" in told.output
    with pytest.raises(RequestError, match="no point-in-time mode 'live'"):
        CliRunner().invoke(
            training_sets.training_set, [*arguments, "--mode", "live"], catch_exceptions=False, standalone_mode=False
        )
