"""What judging one large batch costs: the profile, the default suite and ten expectations, in a process of its own.

    python benchmarks/quality.py                      # 10 million rows of 28 columns; about four minutes, 2 GB of disk
    python benchmarks/quality.py --rows 1000000

The rows lie in a real lake. The figure that counts is the peak memory of the process that judges (RSS, as the kernel
keeps it); `profile_vs_scan` is the profile's time beside a sum over every numeric column, the least that a pass costs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2

from feature_platform.domain.batch import Batch, Measured
from feature_platform.domain.feature_view import (
    Column,
    Expectation,
    FeatureView,
    FreshnessSla,
    LateData,
    LatePolicy,
    OnlineTier,
    Owner,
)
from feature_platform.domain.quality_rules import FeatureRules, QualityRules, ReferenceKind, Rule, reference
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, partition_starting
from feature_platform.lake import connect
from feature_platform.lake.sql import batches_rows, build_create_table
from feature_platform.ledger import Ledger, migrate
from feature_platform.local.places import Places
from feature_platform.local.postgres import start_postgres, stop_postgres
from feature_platform.materialization.measure import peak_memory
from feature_platform.quality import judge, judge_profiles, load_earlier, profile_batches
from feature_platform.settings import Settings

NUMBERS, TEXTS = 23, 3
DAY = datetime(2026, 3, 1, tzinfo=UTC)
EXPECTATIONS = (
    ("ExpectTableRowCountToBeBetween", {"min_value": 1}),
    ("ExpectColumnMeanToBeBetween", {"column": "f0", "min_value": 0}),
    ("ExpectColumnStdevToBeBetween", {"column": "f1", "min_value": 0}),
    ("ExpectColumnMaxToBeBetween", {"column": "f2", "max_value": 1e9}),
    ("ExpectColumnUniqueValueCountToBeBetween", {"column": "t0", "min_value": 1}),
    ("ExpectColumnMedianToBeBetween", {"column": "f3", "min_value": 0}),
    ("ExpectColumnValuesToBeBetween", {"column": "f4", "min_value": 0}),
    ("ExpectColumnProportionOfNonNullValuesToBeBetween", {"column": "f5", "min_value": 0.5}),
    ("ExpectColumnValuesToMatchRegex", {"column": "t1", "regex": "^t"}),
    ("ExpectColumnQuantileValuesToBeBetween",
     {"column": "f6", "quantile_ranges": {"quantiles": [0.5, 0.9], "value_ranges": [[0, None], [0, None]]}}),
)  # fmt: skip


def the_view() -> FeatureView:
    """28 columns: a key, the event time, numbers and texts."""
    features = (
        *(Column(name=f"f{i}", type=ColumnType.DOUBLE) for i in range(NUMBERS)),
        *(Column(name=f"t{i}", type=ColumnType.VARCHAR) for i in range(TEXTS)),
    )
    recent = Rule(reference=reference(ReferenceKind.RECENT, Grain.DAY), tolerance=0.25)
    weekly = Rule(reference=reference(ReferenceKind.SAME_WEEKDAY, Grain.DAY), tolerance=0.5)
    rules = {column.name: FeatureRules(nulls=recent, drift=recent) for column in features}
    return FeatureView(
        name="large", version=1, description="", entities=(Column(name="k", type=ColumnType.BIGINT),),
        features=features, grain=Grain.DAY, begin=DAY - timedelta(days=60), ttl=None,
        availability_delay=timedelta(0), late_data=LateData(policy=LatePolicy.IGNORE, window=timedelta(0)),
        freshness=FreshnessSla(warn_after=None, error_after=None), online=OnlineTier.NONE,
        owner=Owner(name="x", email="x@example.com"), group="x", access="public", tags=(), deprecation_date=None,
        sources=(), expectations=tuple(Expectation(type=kind, arguments=given) for kind, given in EXPECTATIONS),
        unique_id="model.x.large.v1", table="large_v1", sql_path="", yaml_path="", code_version="1",
        quality=QualityRules(volume=weekly, features=rules),
    )  # fmt: skip


def settings_of(home: Path, server: object) -> Settings:
    """A platform in a directory that goes away."""
    return Settings(
        project=Path(__file__).parents[1], home=home, ledger_url=server.url("bench_ledger"),  # type: ignore[attr-defined]
        lake_catalog=f"dbname=bench_catalog {server.keywords}",  # type: ignore[attr-defined]
        lake_data=str(home / "lake"), valkey_url="", store="default", duckdb_memory="500MB",
    )  # fmt: skip


def write(settings: Settings, view: FeatureView, rows: int) -> Batch:
    """One batch of so many rows, and a month of published ones before it (profiles, no rows)."""
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
        days = [partition_starting(DAY - timedelta(days=back), Grain.DAY) for back in range(30, -1, -1)]
        *before, batch = ledger.open_batches(view, days, run_id="bench")
        lake.execute("create schema if not exists lake.batches")
        for statement in build_create_table(view):
            lake.execute(statement)
        numbers = ", ".join(
            f"case when random() < 0.02 then null else random() * {i + 1} * 100 end" for i in range(NUMBERS)
        )
        texts = "'t' || (random() * 1000)::integer, 't' || i, 't' || (i % 7)"
        for first in range(0, rows, 1_000_000):
            lake.execute(
                f"insert into lake.batches.large_v1 select i, '{batch.partition.end.isoformat()}', {numbers}, {texts},"
                f" '{batch.batch_id}', '{batch.partition.start.isoformat()}'"
                f" from range({first}, {min(rows, first + 1_000_000)}) as r (i)"
            )
            print(f"  {min(rows, first + 1_000_000):,} rows written", file=sys.stderr)
        with closing(connect(replace(settings, duckdb_memory="1GB"))) as reader:
            (profile,) = profile_batches(view, reader, [batch], rows={})
        ids = [one.batch_id for one in before]
        ledger.record_computed(
            Measured(batch_id=one, row_count=rows, byte_count=0, compute_seconds=0, peak_memory_bytes=0,
                     source_watermark=None)
            for one in ids
        )  # fmt: skip
        ledger.record_profiles([replace(profile, batch_id=one) for one in ids], seconds=1)
        ledger.record_audited(ids, passed=True)
        ledger.publish(ids)
    return batch


def judge_once(settings: Settings, batch: Batch, rows: int) -> dict[str, float]:
    """Everything a run does between writing and publishing, but dbt's tests."""
    view = the_view()
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
        began = time.perf_counter()
        sums = ", ".join(f"sum(f{i})" for i in range(NUMBERS))
        lake.execute(f"select {sums} from {batches_rows(view, [batch])}").fetchall()
        scanned = time.perf_counter()
        profiles = profile_batches(view, lake, [batch], rows={batch.batch_id: rows})
        profiled = time.perf_counter()
        outcomes = judge_profiles(view, [batch], profiles, load_earlier(ledger, view, [batch], profiles))
        after_profile = peak_memory()
        outcomes += judge(view, lake, [batch])
        ended = time.perf_counter()
    failed = [(one.check, dict(one.detail)) for one in outcomes if not one.passed]
    if failed:
        raise SystemExit(f"nothing is wrong with these rows, and yet: {failed}")
    return {
        "scan_seconds": scanned - began,
        "profile_seconds": profiled - scanned,
        "expectation_seconds": ended - profiled,
        "peak_mb_profile": after_profile / 2**20,
        "peak_mb": peak_memory() / 2**20,
    }


def main() -> None:
    """Write, then judge in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        given = json.loads(options.child)
        given["settings"] |= {"project": Path(given["settings"]["project"]), "home": Path(given["settings"]["home"])}
        batch = Batch(batch_id=given["batch_id"], seq=1, view="large@1", partition=partition_starting(DAY, Grain.DAY))
        print(json.dumps(judge_once(Settings(**given["settings"]), batch, options.rows)))
        return
    with tempfile.TemporaryDirectory(prefix="fp-bench-quality-") as directory:
        home = Path(directory)
        home.chmod(0o711)
        places = Places(home=home)
        with places.lock():
            server = start_postgres(places, settings=("fsync=off",))
        try:
            with closing(psycopg2.connect(f"dbname=postgres {server.keywords}")) as connection:
                connection.autocommit = True
                for name in ("bench_ledger", "bench_catalog"):
                    connection.cursor().execute(f"create database {name}")
            settings = settings_of(home, server)
            (home / "lake").mkdir(exist_ok=True)
            migrate(settings.ledger_url)
            batch = write(settings, the_view(), options.rows)
            child = json.dumps({"settings": asdict(settings), "batch_id": batch.batch_id}, default=str)
            done = subprocess.run(
                [sys.executable, __file__, "--rows", str(options.rows), "--child", child],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        finally:
            stop_postgres(places)
    found = json.loads(done.stdout.splitlines()[-1])
    print({name: round(value, 2) for name, value in found.items()})
    judged = found["profile_seconds"] + found["expectation_seconds"]
    result = {
        "rows": options.rows,
        f"peak_rss_mb_{options.rows // 1_000_000}m": round(found["peak_mb"]),
        "seconds_per_million_rows": round(judged / (options.rows / 1e6), 2),
        "profile_vs_scan": round(found["profile_seconds"] / found["scan_seconds"], 2),
    }
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    main()
