"""One contestant, in a process of its own: `python contestant.py NAME CASE.json OUT.parquet` prints what it cost.

Rule: everybody reads the labels from Parquet, joins, and writes a Parquet file (the floor writes one row). Imports are
over before the clock starts. CPU is user and system time of this process, memory its high-water mark, imports included.
Only what a contestant needs is imported: polars and Feast live in environments of their own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Work = Callable[[Case, str], None]


def ours(*, mode: str, ttl: bool = True, plan: str | None = None) -> Work:
    """`FeatureStore.get_historical_features(...).to_parquet`."""
    import pandas as pd  # noqa: F401 - DuckDB's client imports it with the first parameter of a query, if it is there

    from feature_platform.offline import FeatureStore
    from feature_platform.settings import Settings
    from pit.world import TTL, Dataset, registry_of

    def work(case: Case, out: str) -> None:
        settings = Settings(
            project=Path(case["home"]), home=Path(case["home"]), ledger_url=case["ledger_url"],
            lake_catalog=case["lake_catalog"], lake_data=f"{case['home']}/lake", valkey_url="", store="default",
            duckdb_memory=case["memory_limit"],
        )  # fmt: skip
        wanted = ("name", "days", "letter", "superseded_every")
        views = [Dataset(**{k: v[k] for k in wanted}).view(ttl=TTL if ttl else None) for v in case["views"]]
        store = FeatureStore(settings, registry_of(views))
        with store.get_historical_features(case["labels"], "all", mode=mode, plan=plan) as features:
            features.to_parquet(out)

    return work


def _duckdb(case: Case) -> Any:
    import duckdb

    connection = duckdb.connect(
        config={"memory_limit": case["memory_limit"], "temp_directory": f"{case['home']}/spill"}
    )
    connection.execute("set TimeZone = 'UTC'")
    return connection


def floor() -> Work:
    """Scan the view and join it to the labels by key alone, without time; all features are summed."""
    import duckdb  # noqa: F401 - imported before the clock starts

    def work(case: Case, out: str) -> None:
        (view,) = case["views"]
        sums = ", ".join(f"sum(r.{feature})" for feature in view["features"])
        _duckdb(case).execute(
            f"copy (select count(*), {sums} from read_parquet({view['files']}) r join '{case['labels']}' l"
            f" using (entity)) to '{out}'"
        )

    return work


def asof() -> Work:
    """DuckDB's ASOF JOIN as its documentation shows it."""
    import duckdb  # noqa: F401 - imported before the clock starts

    def work(case: Case, out: str) -> None:
        columns, joins = [], ""
        for number, view in enumerate(case["views"]):
            alive = f"r{number}.event_timestamp > l.event_timestamp - interval {case['ttl_days']} day"
            columns += [f"case when {alive} then r{number}.{feature} end as {feature}" for feature in view["features"]]
            joins += (
                f" asof left join read_parquet({view['files']}) r{number} on l.entity = r{number}.entity"
                f" and l.event_timestamp >= r{number}.event_timestamp"
            )
        _duckdb(case).execute(f"copy (select l.*, {', '.join(columns)} from '{case['labels']}' l{joins}) to '{out}'")

    return work


def polars() -> Work:
    """Lazy `join_asof`, streamed from and to Parquet."""
    import polars as pl

    def work(case: Case, out: str) -> None:
        joined = pl.scan_parquet(case["labels"]).sort("event_timestamp")
        for view in case["views"]:
            rows = pl.scan_parquet(view["files"], hive_partitioning=False, extra_columns="ignore")
            rows = rows.select("entity", "event_timestamp", *view["features"]).sort("event_timestamp")
            joined = joined.join_asof(
                rows, on="event_timestamp", by="entity", tolerance=timedelta(days=case["ttl_days"]),
                check_sortedness=False,
            )  # fmt: skip
        joined.sink_parquet(out)

    return work


def pandas() -> Work:
    """`merge_asof`."""
    import pandas as pd
    import pyarrow.parquet as pq

    def work(case: Case, out: str) -> None:
        joined = pd.read_parquet(case["labels"]).sort_values("event_timestamp")
        for view in case["views"]:
            columns = ["entity", "event_timestamp", *view["features"]]
            rows = pd.concat([pq.ParquetFile(path).read(columns).to_pandas() for path in view["files"]])
            joined = pd.merge_asof(
                joined, rows.sort_values("event_timestamp"), on="event_timestamp", by="entity",
                tolerance=pd.Timedelta(days=case["ttl_days"]),
            )  # fmt: skip
        joined.to_parquet(out, index=False)

    return work


def feast() -> Work:
    """Feast's `get_historical_features` on its DuckDB offline store; `apply` is over before the clock starts."""
    import pandas as pd
    import pyarrow.parquet as pq
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    case: Case = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    registry = Path(case["home"]) / "feast_registry.db"
    registry.unlink(missing_ok=True)
    config = RepoConfig(
        project="bench", provider="local", registry=str(registry), offline_store={"type": "duckdb"},
        online_store=None, entity_key_serialization_version=3,
    )  # fmt: skip
    store = FeatureStore(config=config)
    entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.INT64)
    views = [
        FeatureView(
            name=view["name"], entities=[entity], ttl=timedelta(days=case["ttl_days"]), online=False,
            schema=[Field(name=feature, dtype=Float64) for feature in view["features"]],
            source=FileSource(path=f"{view['folder']}/*.parquet", timestamp_field="event_timestamp"),
        )
        for view in case["views"]
    ]  # fmt: skip
    store.apply([entity, *views])

    def work(case: Case, out: str) -> None:
        references = [f"{view['name']}:{feature}" for view in case["views"] for feature in view["features"]]
        labels = pd.read_parquet(case["labels"])
        pq.write_table(store.get_historical_features(entity_df=labels, features=references).to_arrow(), out)

    return work


CONTESTANTS: dict[str, Callable[[], Work]] = {
    "modelled": lambda: ours(mode="modelled"),
    "modelled, hash": lambda: ours(mode="modelled", plan="hash"),
    "modelled, one scan": lambda: ours(mode="modelled", plan="one_scan"),
    "served, hash": lambda: ours(mode="served", plan="hash"),
    "modelled, asof": lambda: ours(mode="modelled", plan="asof"),
    "modelled, no ttl": lambda: ours(mode="modelled", ttl=False),
    "served": lambda: ours(mode="served"),
    "auto": lambda: ours(mode="auto"),
    "floor": floor,
    "DuckDB asof": asof,
    "polars": polars,
    "pandas": pandas,
    "Feast": feast,
}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mb() -> float:
    """Of this program: `ru_maxrss` would begin with what the process was before it became this program."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Measure one contestant."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    name, case_path, out = sys.argv[1:]
    case = json.loads(Path(case_path).read_text(encoding="utf-8"))
    work = CONTESTANTS[name]()
    imports, began = _cpu(), time.perf_counter()
    work(case, out)
    print(
        json.dumps(
            {
                "cpu": _cpu() - imports,
                "wall": time.perf_counter() - began,
                "import_cpu": imports,
                "peak_mb": _peak_mb(),
            }
        )
    )


if __name__ == "__main__":
    main()
