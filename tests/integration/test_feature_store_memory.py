"""Bounded memory: a join of more data than DuckDB may hold streams to Parquet; and only the files needed are read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from ledger_batches import measured
from offline_platform import Platform, declare, registry_of

from feature_platform import lake
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, partitions_between
from feature_platform.errors import MemoryLimitError
from feature_platform.lake.sql import batches_table
from feature_platform.ledger import Ledger
from feature_platform.offline.point_in_time import Plan

DAY = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, ENTITIES, LABELS = 40, 25_000, 1_200_000
WIDE = declare(
    "wide",
    entities={"entity": ColumnType.BIGINT},
    features={f"x{i}": ColumnType.DOUBLE for i in range(8)},
    ttl=timedelta(days=7),
)


@pytest.fixture
def platform(settings) -> Platform:
    """1M rows of 8 random doubles in 40 daily batches: 72 MB of Parquet."""
    built = Platform(settings, registry_of(WIDE))
    built.deploy()
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        batches = ledger.open_batches(WIDE, partitions_between(DAY, DAY + timedelta(days=DAYS), Grain.DAY), run_id="r")
        features = ", ".join("random()" for _ in range(7))
        for batch in batches:
            connection.execute(
                f"insert into {batches_table(WIDE)} select i, $end - to_seconds(hash(i) % 3600),"
                f" epoch($end), {features}, $id, $start from range({ENTITIES}) t(i)",
                {"end": batch.partition.end, "start": batch.partition.start, "id": batch.batch_id},
            )
        ids = [batch.batch_id for batch in batches]
        ledger.record_computed(measured(i, ENTITIES) for i in ids)
        ledger.record_audited(ids, passed=True)
        ledger.publish(ids)
    return built


def memory_kb(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def test_more_than_memory_streams_to_parquet(platform: Platform, tmp_path, record_property) -> None:
    labels = tmp_path / "labels.parquet"
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'; set memory_limit = '500MB'")
        connection.execute(
            f"copy (select (hash(i) % {ENTITIES})::bigint as entity,"
            f" timestamptz '2026-01-01' + to_seconds((i * 7) % {DAYS * 86400}) as event_timestamp, i as n,"
            f" repeat(md5(i::varchar), 3) as padding from range({LABELS}) t(i))"
            f" to '{labels}' (row_group_size 50000)"
        )
        # labels (115 MB of text) and answers (77 MB) are more than the limit
        store = platform.with_memory("180MB").store
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
        before = memory_kb("VmRSS")
        outputs = []
        for plan in Plan:
            with store.get_historical_features(labels, "wide", plan=plan) as features:
                outputs.append(features.to_parquet(tmp_path / f"{plan}.parquet"))
        grown = (memory_kb("VmHWM") - before) // 1024
        record_property("peak_rss_grew_mb", grown)
        assert grown < 600
        assert pq.read_metadata(outputs[0]).num_rows == LABELS
        # what a limit cannot do at all says what to do, and leaves nothing behind
        with (
            pytest.raises(MemoryLimitError, match="FEATURE_PLATFORM_DUCKDB_MEMORY"),
            platform.with_memory("20MB").store.get_historical_features(labels, "wide") as features,
        ):
            features.to_parquet(tmp_path / "too_little" / "set.parquet")
        assert not list(tmp_path.glob("too_little/*"))
        # both plans agree, rows are in order, and x0 is the end of the newest day seen: an independent look
        (different,), *_ = connection.execute(
            f"select count(*) from '{outputs[0]}' a join '{outputs[1]}' b using (n) where a is distinct from b"
        ).fetchall()
        (wrong,), *_ = connection.execute(
            f"""select count(*) from (select *, row_number() over () - 1 as place from '{outputs[0]}')
            where n <> place or x0 is distinct from nullif(epoch(date_trunc('day', event_timestamp
                + to_seconds(hash(entity) % 3600))), epoch(timestamptz '2026-01-01'))"""
        ).fetchall()
        assert (different, wrong) == (0, 0)


def test_only_files_within_reach_are_read(platform: Platform) -> None:
    """Labels of one day and a ttl of 7 days reach 8 of 40 daily batches, each a file."""
    from feature_platform.offline import point_in_time as pit

    with Ledger.connect(platform.settings.ledger_url) as ledger:
        active = ledger.active_batches(WIDE.key)
    at = DAY + timedelta(days=30, hours=12)
    reach = pit.within_reach(active, oldest=at, newest=at, ttl=WIDE.ttl, availability_delay=timedelta(0))
    with lake.connect(platform.settings, read_only=True) as connection:
        connection.execute("use memory; create table listed (_batch_id varchar)")
        connection.executemany("insert into listed values (?)", [[b.batch_id] for b in reach.batches])
        rows = pit.reachable_rows(batches_table(WIDE), ["entity"], batches="listed", reach=reach)
        (plan,) = connection.execute(f"explain analyze select * from {rows.sql}", dict(rows.parameters)).fetchall()
    assert len(reach.batches) == 8
    files = plan[1].split("Total Files Read:")[1].split()[0]
    assert int(files) <= 9, plan[1]
