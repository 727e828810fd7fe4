"""One contestant, in a process of its own: `python contestant.py NAME CASE.json` prints what it cost.

Rule: imports are over before the clock starts. CPU is user and system time of this process, memory its high-water mark,
imports included. Only what a contestant needs is imported: Feast lives in an environment of its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Work = Callable[[], None]

_ROWS_PER_CHUNK = 10_000
_OK = b"+OK\r\n"


def ours(case: Case) -> Work:
    """One sync, from where the store says it is."""
    import feature_platform.sync.runner  # noqa: F401 - with DuckDB and pyarrow, before the clock starts
    from feature_platform.sync import sync
    from syncing.world import registry_of, view_of

    view = view_of(case["rows"])
    registry = registry_of([view])
    settings = _settings(case)

    def work() -> None:
        result = sync(settings, registry, view, run_id="bench")
        if (result.entities, result.written) != (case["rows"], case["rows"]):
            raise SystemExit(f"not all was written: {result}")

    return work


def prebuild(case: Case) -> Work:
    """Frame what the floor sends: the same keys, values and expiry in plain SET commands, of both days."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from feature_platform import lake
    from feature_platform.lake.sql import batches_table
    from feature_platform.sync.encoding import encode_keys, encode_values, layout_of
    from syncing.world import TTL, view_of

    view = view_of(case["rows"])
    layout = layout_of(view)

    def text(numbers: Any) -> Any:
        return pc.cast(pc.cast(numbers, pa.large_string()), pa.large_binary())

    def bulk(items: Any) -> tuple[Any, ...]:
        return _scalar(b"$"), text(pc.binary_length(items)), _scalar(b"\r\n"), items, _scalar(b"\r\n")

    def _scalar(item: bytes) -> Any:
        return pa.scalar(item, pa.large_binary())

    def work() -> None:
        with lake.connect(_settings(case), read_only=True) as connection:
            days = [row[0] for row in connection.execute(
                f"select distinct _partition_start from {batches_table(view)} order by 1").fetchall()]  # fmt: skip
            for number, day in enumerate(days):
                chunks = []
                with Path(f"{case['frames']}{number}").open("wb") as file:
                    reader = connection.execute(
                        f"select * from {batches_table(view)} where _partition_start = ?", [day]
                    ).to_arrow_reader(_ROWS_PER_CHUNK)
                    for batch in reader:
                        events = pc.cast(batch.column("event_timestamp"), pa.int64()).to_numpy()
                        until = text(pa.array(np.asarray(events // 1000 + TTL // timedelta(milliseconds=1))))
                        frames = pc.binary_join_element_wise(
                            _scalar(b"*5\r\n$3\r\nSET\r\n"), *bulk(encode_keys(view, batch)),
                            *bulk(encode_values(view, layout, number + 1, batch)), _scalar(b"$4\r\nPXAT\r\n"),
                            *bulk(until), _scalar(b""),
                        )  # fmt: skip
                        data = b"".join(frames.to_pylist())
                        file.write(data)
                        chunks.append((len(data), batch.num_rows))
                Path(f"{case['frames']}{number}.json").write_text(json.dumps(chunks), encoding="utf-8")

    return work


def floor(case: Case) -> Work:
    """Send framed SET commands over a raw socket, two chunks under way, and look at every reply."""
    import socket

    path = case["frames"] + case["day"]
    chunks = json.loads(Path(path + ".json").read_text(encoding="utf-8"))
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.connect(case["valkey_url"].removeprefix("unix://"))

    def acknowledge(owed: int, *, down_to: int) -> int:
        while owed > down_to:
            data = opened.recv(1 << 16)
            owed -= len(data)
            if not data or data.count(b"+OK") < len(data) // len(_OK) - 1:
                raise SystemExit(f"a write failed: {data[:100]!r}")
        return owed

    def work() -> None:
        owed = 0
        buffer = memoryview(bytearray(max(size for size, _ in chunks)))
        with Path(path).open("rb", buffering=0) as file:
            for size, count in chunks:
                file.readinto(buffer[:size])
                opened.sendall(buffer[:size])
                owed = acknowledge(owed + len(_OK) * count, down_to=len(_OK) * count)
        acknowledge(owed, down_to=0)

    return work


def feast(case: Case) -> Work:
    """Feast's `materialize` from a Parquet file into its Redis store; `apply` is over before the clock starts."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    registry = Path(case["home"]) / "feast_registry.db"
    registry.unlink(missing_ok=True)
    config = RepoConfig(
        project="bench", provider="local", registry=str(registry), offline_store={"type": "file"},
        online_store={
            "type": "redis", "connection_string": f"127.0.0.1:{case['port']}", "key_ttl_seconds": 400 * 86400,
        },
        entity_key_serialization_version=3,
    )  # fmt: skip
    store = FeatureStore(config=config)
    entity = Entity(name="entity", join_keys=["entity"], value_type=ValueType.INT64)
    types = {"f": Float64, "i": Int64, "s": String}
    view = FeatureView(
        name="rows", entities=[entity], ttl=timedelta(days=400),
        schema=[Field(name=name, dtype=types[name[0]]) for name in case["features"]],
        source=FileSource(path=case["parquet"], timestamp_field="event_timestamp"),
    )  # fmt: skip
    store.apply([entity, view])
    now = datetime.now(UTC)

    def work() -> None:
        store.materialize(now - timedelta(days=399), now, feature_views=["rows"])

    return work


CONTESTANTS: dict[str, Callable[[Case], Work]] = {"ours": ours, "prebuild": prebuild, "floor": floor, "feast": feast}


def _settings(case: Case) -> Any:
    from feature_platform.settings import Settings

    return Settings(
        project=Path(case["home"]), home=Path(case["home"]), ledger_url=case["ledger_url"],
        lake_catalog=case["lake_catalog"], lake_data=f"{case['home']}/lake", valkey_url=case["valkey_url"],
        store="default", duckdb_memory="1GB",
    )  # fmt: skip


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
    name, case_path = sys.argv[1:]
    work = CONTESTANTS[name](json.loads(Path(case_path).read_text(encoding="utf-8")))
    imports, began = _cpu(), time.perf_counter()
    work()
    cost = {"wall": time.perf_counter() - began, "cpu": _cpu() - imports, "peak_mb": _peak_mb()}
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
