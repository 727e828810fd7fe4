"""What a read costs, beside its floor and beside what else people would use, against one Valkey.

Contestants: our client with rows, a dict of columns, numpy and Arrow, and the one for asyncio; the floor (a framed MGET
on a raw socket, the reply read but not looked at); valkey-py's MGET; Feast's `get_online_features` on the same server.
Feast gets an environment of its own, which is made here with pip.

1, 10, 100 and 1000 entities, of 1 and of 3 views with 28 features each (20 float64, 5 int64, 3 texts; 1% NULL).
Contestants take turns within every case, so that the noise of the machine falls on all alike. All that decode must give
the same answer.

    .venv/bin/python benchmarks/online_read.py                    all of it, 3 minutes once Feast is there
    .venv/bin/python benchmarks/online_read.py --without-feast

The last line is `RESULT {...}`: ratios of medians, ours divided by the floor's, and Feast's divided by our rows; the
same of 10th percentiles under `p10`. Where others use the machine too, a read of milliseconds is interrupted and one of
microseconds is not, so medians compare the two unfairly: the 10th percentile says what the work costs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from reading import world
from reading.contestants import TAKES, Contestant, Feast, Floor, Ours, OursAsync, ValkeyPy

FEAST = "feast[redis]==0.67.0"
SIZES = {1: 400, 10: 400, 100: 60, 1000: 12}
"""Entities of a request, and requests of each contestant per round."""
FEAST_SHARE = 0.05
ROUNDS = 8
_TARGETS = {
    "rows_vs_floor_1": 1.6,
    "rows_vs_floor_10": 2.5,
    "rows_vs_floor_1000": 3.0,
    "columnar_vs_floor_1000": 1.5,
    "async_vs_floor_10": 2.5,
    "vs_feast_1": 8,
    "vs_feast_100": 25,
    "vs_feast_1000": 60,
}
Seconds = dict[tuple[str, int, int], list[float]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-feast", action="store_true", help="leave Feast out; its ratios are missing then")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of every contestant (default {ROUNDS})")
    parser.add_argument("--data", type=Path, help="where Feast's environment is kept (default: system temp)")
    options = parser.parse_args()
    home = (options.data or Path(tempfile.gettempdir()) / "feature_platform_online_read").resolve()
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        address = stack.enter_context(world.running_valkey())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=home)))
        rows, instant = world.draw(), world.now()
        world.write(address, rows, instant)
        ours = [Ours(name, address) for name in TAKES]
        contestants: list[Contestant] = [Floor(address), ValkeyPy(address), *ours, OursAsync(address)]
        if not options.without_feast:
            world.write_parquet(rows, instant, directory)
            contestants.append(Feast(address, _environment(home), directory))
        for contestant in contestants:
            stack.callback(contestant.close)
        measured = _measure(contestants, options.rounds)
        _compare(contestants, rows)
    _conclude(measured)


def _environment(home: Path) -> str:
    """The interpreter that has Feast; made where it is missing."""
    directory = home / "environments" / "feast"
    if not (directory / "complete").exists():
        print(f"making an environment for {FEAST}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, FEAST], check=True)
        (directory / "complete").touch()
    return str(directory / "bin" / "python")


def _measure(contestants: Sequence[Contestant], rounds: int) -> Seconds:
    source = random.Random(11)
    measured: Seconds = {}
    for views in (1, len(world.VIEWS)):
        for size, requests in SIZES.items():
            draws = [source.sample(range(world.ENTITIES), size) for _ in range(requests)]
            for contestant in contestants:
                contestant.read(draws[:2], views)  # connections, plans, decoders
            for _ in range(rounds):
                for contestant in contestants:
                    few = max(2, int(requests * FEAST_SHARE)) if isinstance(contestant, Feast) else requests
                    measured.setdefault((contestant.name, size, views), []).extend(contestant.read(draws[:few], views))
            print(f"  {size} entities, {views} views: done", flush=True)
    return measured


def _compare(contestants: Sequence[Contestant], rows: dict[str, list[world.Row]]) -> None:
    """The same answer from all who decode, and the one that was written."""
    draw = list(range(0, world.ENTITIES, 97))
    expected = {name: [rows[view][i][name] for i in draw] for view in world.VIEWS for name in world.features(view)}
    for contestant in contestants:
        if isinstance(contestant, Ours):
            found = contestant.answer(draw, len(world.VIEWS))
        elif isinstance(contestant, Feast):
            contestant.read([draw], len(world.VIEWS))
            found = contestant.last
        else:
            continue
        if {name: found[name] for name in expected} != expected:
            raise SystemExit(f"{contestant.name} does not give what was written")
    print(f"all who decode give the same {len(expected)} features of {len(draw)} entities")


def _conclude(measured: Seconds) -> None:
    names = list(dict.fromkeys(name for name, _, _ in measured))
    for views in (1, len(world.VIEWS)):
        print(f"\n{views} {'view' if views == 1 else 'views'} of 28 features, microseconds: p10 / p50 / p99")
        print(f"{'':20}" + "".join(f"{f'{size} entities':>25}" for size in SIZES))
        for name in names:
            cells = [_cell(measured[name, size, views]) for size in SIZES]
            print(f"{name:20}" + "".join(f"{cell:>25}" for cell in cells))
    load = " ".join(f"{one:.0f}" for one in os.getloadavg())
    print(f"\nload {load}; targets: {json.dumps(_TARGETS)}")
    result = _ratios(measured, 1, 50) | {f"{name}_3_views": value for name, value in _ratios(measured, 3, 50).items()}
    print(f"RESULT {json.dumps(result | {'p10': _ratios(measured, 1, 10)})}")


def percentile(seconds: Sequence[float], percent: int) -> float:
    """The value that so many percent of the others do not exceed."""
    return sorted(seconds)[min(len(seconds) - 1, len(seconds) * percent // 100)]


def _cell(seconds: list[float]) -> str:
    return " / ".join(f"{percentile(seconds, percent) * 1e6:,.0f}" for percent in (10, 50, 99))


def _ratios(measured: Seconds, views: int, percent: int) -> dict[str, float]:
    def of(name: str, size: int) -> float:
        return percentile(measured[name, size, views], percent)

    found = {f"rows_vs_floor_{size}": of("ours, rows", size) / of("floor", size) for size in (1, 10, 1000)}
    found["columnar_vs_floor_1000"] = of("ours, numpy", 1000) / of("floor", 1000)
    found["async_vs_floor_10"] = of("ours, asyncio rows", 10) / of("floor", 10)
    if ("Feast", 1, views) in measured:
        for size in (1, 100, 1000):
            found[f"vs_feast_{size}"] = of("Feast", size) / of("ours, rows", size)
    return {name: round(value, 2) for name, value in found.items()}


if __name__ == "__main__":
    main()
