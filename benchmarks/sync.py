"""What bringing rows to the online store costs, beside its floor and beside Feast, in one run against one Valkey.

Contestants: ours (`sync`: read from a real lake and ledger, encode, compare positions, write, record) into an empty
store (rebuild), over what the day before left (update), and over the very same rows (rewrite); the floor, which sends
prebuilt `SET key value PXAT …` of the same keys, values and ttl over a raw socket and does nothing else; Feast's
`materialize` with its Redis store, in an environment of its own that is made here with pip.

Each measurement is a process of its own; contestants take turns, and of each the fastest round counts.

    .venv/bin/python benchmarks/sync.py --quick    1M rows x 28 features; 3 minutes once data is made
    .venv/bin/python benchmarks/sync.py            1M and 10M rows (needs 12 GB of disk and 6 GB of memory)

Data is made once and kept in --data. The last line is `RESULT {...}`: rows per second of ours divided by the floor's,
rows per second of client CPU and bytes of the server's memory per entity divided by Feast's, and our peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pit import world as pit
from syncing import world

from feature_platform import lake
from feature_platform.lake.sql import batches_table
from feature_platform.online.keys import position_key
from feature_platform.settings import Settings

FEAST = "feast[redis]==0.67.0"
FEAST_ROWS = 100_000
"""Feast keeps all rows in memory several times over, and takes minutes for a million."""
PORT = 46379
ROUNDS = {1_000_000: 3, 10_000_000: 2}


@dataclass(slots=True, kw_only=True)
class Cost:
    """What one contestant cost, in its fastest round."""

    rows: int
    wall: float = float("inf")
    cpu: float = 0.0
    server_cpu: float = 0.0
    peak_mb: float = 0.0
    bytes_per_entity: float = 0.0

    @property
    def rows_per_second(self) -> float:
        """By the clock on the wall."""
        return self.rows / self.wall


@dataclass(slots=True, kw_only=True)
class Bench:
    """Where everything is."""

    home: Path
    settings: Settings
    server: world.Server = field(init=False)
    costs: dict[tuple[str, int], Cost] = field(default_factory=dict)

    @contextmanager
    def fresh_server(self) -> Iterator[None]:
        """A new server for the block.

        One that was emptied would serve whoever comes at once from memory that its allocator still holds, and not
        whoever comes ten seconds later: a floor of twice the speed, measured with 10M rows.
        """
        with world.running_valkey(PORT) as server:
            self.server = server
            yield

    def measure(self, name: str, contestant: str, rows: int, *, python: str = sys.executable, **extra: Any) -> None:
        """Run a contestant; its cost is kept if this was its fastest round."""
        case = {
            "home": str(self.home), "rows": rows, "valkey_url": self.server.url, "port": self.server.port,
            "ledger_url": self.settings.ledger_url, "lake_catalog": self.settings.lake_catalog,
            "frames": str(self.home / f"frames_{rows}_"), **extra,
        }  # fmt: skip
        path = self.home / "case.json"
        path.write_text(json.dumps(case), encoding="utf-8")
        script = Path(__file__).parent / "syncing" / "contestant.py"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("FEATURE_PLATFORM_")}
        before = self.server.cpu_seconds()
        done = subprocess.run(
            [python, str(script), contestant, str(path)], check=False, capture_output=True, text=True,
            env=environ | {"FEAST_USAGE": "False"},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
        measured = json.loads(done.stdout.splitlines()[-1])
        cost = self.costs.setdefault((name, rows), Cost(rows=rows))
        cost.peak_mb = max(cost.peak_mb, measured["peak_mb"])
        if measured["wall"] < cost.wall:
            cost.wall, cost.cpu = measured["wall"], measured["cpu"]
            cost.server_cpu = self.server.cpu_seconds() - before
        print(f"  {name}: {rows / measured['wall']:,.0f} rows/s", flush=True)

    def weigh(self, name: str, rows: int, empty: int) -> None:
        """Note how much memory of the server an entity takes."""
        self.costs[name, rows].bytes_per_entity = (self.server.used_memory() - empty) / rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1M rows only")
    parser.add_argument("--data", type=Path, help="where data and environments are kept (default: system temp)")
    parser.add_argument("--without-feast", action="store_true", help="leave Feast out")
    options = parser.parse_args()
    home = (options.data or Path(tempfile.gettempdir()) / "feature_platform_sync_benchmark").resolve()
    home.mkdir(parents=True, exist_ok=True)
    sizes = (1_000_000,) if options.quick else (1_000_000, 10_000_000)
    with pit.services(home) as settings:
        costs = {}
        for rows in sizes:
            world.prepare(settings, rows)
            bench = Bench(home=home, settings=settings)
            print(f"\n{rows:,} rows x 28 features", flush=True)
            if not (home / f"frames_{rows}_1.json").exists():
                with bench.fresh_server():
                    bench.measure("prebuild", "prebuild", rows)
            for _ in range(ROUNDS[rows]):
                _round(bench, rows)
            if rows == sizes[0] and not options.without_feast:
                _feast(bench)
            bench.costs.pop(("prebuild", rows), None)
            _table(bench.costs)
            costs |= bench.costs
    print("RESULT " + json.dumps(_ratios(costs, sizes)))


def _round(bench: Bench, rows: int) -> None:
    """Everybody once: into an empty store, and over what is there."""
    with bench.fresh_server():
        bench.measure("floor, new", "floor", rows, day="0")
        bench.measure("floor, update", "floor", rows, day="1")
    with bench.fresh_server():
        empty = bench.server.used_memory()
        bench.measure("rebuild", "ours", rows)
        if bench.server.keys() < rows:
            raise SystemExit(f"the store holds {bench.server.keys()} keys")
        bench.weigh("rebuild", rows, empty)
        _set_back(bench, rows)
        bench.measure("rewrite", "ours", rows)
    # as if only the first day had been synced: its values and expiries are there
    with bench.fresh_server():
        bench.measure("floor, new", "floor", rows, day="0")
        _set_back(bench, rows)
        bench.measure("update", "ours", rows)


def _set_back(bench: Bench, rows: int) -> None:
    with bench.server.connect() as connection:
        connection.call("HSET", position_key(world.view_of(rows).key), "position", 1)


def _feast(bench: Bench) -> None:
    """Feast, and ours with as many entities: what the server's tables take of an entity depends on their number."""
    rows, view = FEAST_ROWS, world.view_of(FEAST_ROWS)
    world.prepare(bench.settings, rows)
    with bench.fresh_server():
        empty = bench.server.used_memory()
        bench.measure("rebuild", "ours", rows)
        bench.weigh("rebuild", rows, empty)
    parquet = bench.home / f"feast_{rows}.parquet"
    columns = ", ".join(("entity", "event_timestamp", *view.feature_names))
    with lake.connect(bench.settings, read_only=True) as connection:
        connection.execute(
            f"copy (select {columns} from {batches_table(view)} where _partition_start ="
            f" (select max(_partition_start) from {batches_table(view)})) to '{parquet}'"
        )
    python = _environment(bench.home)
    with bench.fresh_server():
        empty = bench.server.used_memory()
        bench.measure("Feast", "feast", rows, python=python, parquet=str(parquet), features=list(view.feature_names))
        bench.weigh("Feast", rows, empty)


def _environment(home: Path) -> str:
    directory = home / "environments" / "Feast"
    if not (directory / "complete").exists():
        print(f"making an environment for {FEAST}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, FEAST], check=True)
        (directory / "complete").touch()
    return str(directory / "bin" / "python")


def _table(costs: dict[tuple[str, int], Cost]) -> None:
    print(f"  {'':16}{'rows/s':>11}{'client µs/row':>15}{'server µs/row':>15}{'peak MB':>9}{'bytes/entity':>14}")
    for (name, rows), cost in costs.items():
        client, server = cost.cpu / rows * 1e6, cost.server_cpu / rows * 1e6
        size = f"{cost.bytes_per_entity:14.0f}" if cost.bytes_per_entity else ""
        print(f"  {name:16}{cost.rows_per_second:11,.0f}{client:15.2f}{server:15.2f}{cost.peak_mb:9.0f}{size}")


def _ratios(costs: dict[tuple[str, int], Cost], sizes: Sequence[int]) -> dict[str, float | None]:
    """Of the largest size that was measured; Feast's speed beside ours of the smallest, its bytes beside as many."""
    largest, smallest = sizes[-1], sizes[0]
    feast, ours = costs.get(("Feast", FEAST_ROWS)), costs["rebuild", smallest]

    def speed(name: str, floor: str) -> float:
        return round(costs[name, largest].rows_per_second / costs[floor, largest].rows_per_second, 2)

    peaks = [costs[name, largest].peak_mb for name in ("rebuild", "rewrite", "update")]
    return {
        "rebuild_vs_floor": speed("rebuild", "floor, new"),
        "update_vs_floor": speed("update", "floor, update"),
        "rewrite_vs_floor": speed("rewrite", "floor, update"),
        "vs_feast_rows_per_cpu_s": round((ours.rows / ours.cpu) / (feast.rows / feast.cpu), 1) if feast else None,
        "bytes_per_entity_vs_feast": round(costs["rebuild", FEAST_ROWS].bytes_per_entity / feast.bytes_per_entity, 3)
        if feast
        else None,
        "peak_rss_mb_10m": round(max(peaks)) if largest == 10_000_000 else None,
    }


if __name__ == "__main__":
    main()
