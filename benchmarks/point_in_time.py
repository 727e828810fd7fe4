"""What the point-in-time join costs, beside its floor and beside what else people would use, on the same files.

Contestants: ours in every mode, through `FeatureStore` on a real lake and ledger; the floor (scan and hash join without
time); DuckDB's ASOF JOIN; polars `join_asof`; pandas `merge_asof`; Feast's `get_historical_features` on its DuckDB
store. Polars and Feast get environments of their own, which are made here with pip.

Each measurement is a process of its own; contestants take turns, and of each the round with the least CPU time counts.
All that answer the same question must give the same answer: rows, values present, and a checksum over all of them.

    .venv/bin/python benchmarks/point_in_time.py --quick    10M rows, 1M labels, 1 view; 3 minutes once data is made
    .venv/bin/python benchmarks/point_in_time.py            10M rows: 100k, 1M, 10M labels; 1 and 5 views; memory limits
    .venv/bin/python benchmarks/point_in_time.py --full     the same and 100M rows (needs 25 GB of disk, 40 minutes)

Data is made once and kept in --data. The last line is `RESULT {...}`; its ratios are ours divided by theirs, in CPU
seconds unless the name says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import psutil
from pit import world

from feature_platform.settings import Settings

FEAST, POLARS = "feast[duckdb]==0.67.0", "polars==2.1.0"
MEMORY_GUARD_MB = 14_000
"""A contestant that takes more is ended, so that it does not end the machine."""
SECONDS_GUARD = 900
_OTHERS = ("DuckDB asof", "polars", "pandas", "Feast")
_ALL = ("floor", "modelled", "served", "auto", *_OTHERS)
_SAME_QUESTION = ("modelled", "modelled, hash", "modelled, one scan", "modelled, asof", *_OTHERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One table of the report."""

    days: int
    labels: int
    views: int = 1
    superseded: bool = False
    memory_limit: str = "1GB"
    contestants: tuple[str, ...] = _ALL
    rounds: int = 2

    @property
    def title(self) -> str:
        """What is joined with what."""
        rows = f"{self.days * world.ENTITIES // 10**6}M rows"
        views = f"{self.views} views of {rows}" if self.views > 1 else rows
        history = ", 10% of batches superseded" if self.superseded else ""
        limit = f", memory_limit {self.memory_limit}" if self.memory_limit != "1GB" else ""
        return f"{views}{history} x {_short(self.labels)} labels{limit}"


@dataclass(slots=True, kw_only=True)
class Result:
    """What one contestant cost in one case."""

    cpu: float = float("inf")
    wall: float = float("inf")
    import_cpu: float = 0.0
    peak_mb: float = 0.0
    answer: tuple[Any, ...] | None = None
    ended: str = ""
    rounds: list[float] = field(default_factory=list)


QUICK = (
    Case(days=10, labels=1_000_000),
    Case(days=10, labels=1_000_000, superseded=True, contestants=("modelled", "served")),
)
MIDDLE = (
    Case(days=10, labels=100_000),
    Case(days=10, labels=10_000_000),
    Case(days=10, labels=1_000_000, views=5, contestants=("modelled", "served", *_OTHERS)),
    Case(
        days=10,
        labels=10_000_000,
        memory_limit="2GB",
        contestants=("floor", "modelled", "served", "DuckDB asof", "polars"),
        rounds=3,
    ),
)
LARGE = (
    Case(days=100, labels=100_000, contestants=("floor", "modelled", "served", *_OTHERS), rounds=1),
    Case(days=100, labels=1_000_000, contestants=("floor", "modelled", "served"), rounds=3),
    Case(days=100, labels=1_000_000, contestants=("modelled, no ttl", "auto", *_OTHERS), rounds=1),
    Case(days=100, labels=1_000_000, superseded=True, contestants=("modelled", "served")),
    Case(days=100, labels=10_000_000, memory_limit="2GB", contestants=("floor", "modelled", "served"), rounds=1),
)


def _short(count: int) -> str:
    """`1M`, `100k`."""
    return f"{count // 10**6}M" if count >= 10**6 else f"{count // 1000}k"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="10M rows, 1M labels, 1 view")
    size.add_argument("--full", action="store_true", help="100M rows too")
    parser.add_argument("--data", type=Path, help="where data and environments are kept (default: system temp)")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this contestant; may be repeated")
    options = parser.parse_args()
    home = (options.data or Path(tempfile.gettempdir()) / "feature_platform_point_in_time").resolve()
    cases = QUICK if options.quick else (*QUICK, *MIDDLE, *(LARGE if options.full else ()))
    if options.only:
        cases = tuple(replace(c, contestants=tuple(n for n in c.contestants if n in options.only)) for c in cases)
    home.mkdir(parents=True, exist_ok=True)
    pythons = _environments(home, {name for case in cases for name in case.contestants})
    with world.services(home) as settings:
        world.prepare(settings, list(_datasets(cases)), say=lambda line: print(f"  {line}", flush=True))
        measured = {case: _measure(home, settings, case, pythons) for case in cases}
    _conclude(measured)


def _datasets(cases: Iterable[Case]) -> Iterable[world.Dataset]:
    """Each dataset that is needed, once."""
    return dict.fromkeys(dataset for case in cases for dataset in _data_of(case))


def _data_of(case: Case) -> tuple[world.Dataset, ...]:
    return (world.superseded(case.days),) if case.superseded else world.datasets(case.days, case.views)


def _environments(home: Path, names: Iterable[str]) -> dict[str, str]:
    """The interpreter of each contestant; made where it is missing."""
    pythons = dict.fromkeys(names, sys.executable)
    for name, packages in (("Feast", [FEAST]), ("polars", [POLARS])):
        if name not in pythons:
            continue
        directory = home / "environments" / name
        if not (directory / "complete").exists():
            print(f"making an environment for {packages[0]}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
            pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            subprocess.run([*pip, *packages], check=True)
            (directory / "complete").touch()
        pythons[name] = str(directory / "bin" / "python")
    return pythons


def _measure(home: Path, settings: Settings, case: Case, pythons: dict[str, str]) -> dict[str, Result]:
    """Every contestant in turn, so that the noise of the machine falls on all alike."""
    labels = world.make_labels(home, count=case.labels, days=case.days)
    limited = replace(settings, duckdb_memory=case.memory_limit)
    path = world.write_case(home / "case.json", limited, _data_of(case), labels, folders="Feast" in case.contestants)
    print(f"\n{case.title}", flush=True)
    results = {name: Result() for name in case.contestants}
    for number in range(case.rounds):
        for name, result in results.items():
            # whoever takes minutes or was ended is not asked again
            if result.ended or (number and result.wall > SECONDS_GUARD / 10):
                continue
            _round(path, case, name, python=pythons[name], result=result)
            print(f"  round {number + 1}: {name}: {result.ended or f'{result.rounds[-1]:.1f} CPU s'}", flush=True)
    _compare(case, results)
    _table(results)
    return results


def _round(path: Path, case: Case, name: str, *, python: str, result: Result) -> None:
    out = path.with_name("answer.parquet")
    out.unlink(missing_ok=True)
    cost, result.ended = _run(python, name, path, out)
    if result.ended:
        return
    result.rounds.append(cost["cpu"])
    result.peak_mb = max(result.peak_mb, cost["peak_mb"])
    if cost["cpu"] < result.cpu:
        result.cpu, result.wall, result.import_cpu = cost["cpu"], cost["wall"], cost["import_cpu"]
    if result.answer is None and name != "floor":
        result.answer = _checksum(out, [feature for d in _data_of(case) for feature in d.view().feature_names])
    out.unlink(missing_ok=True)


def _run(python: str, name: str, path: Path, out: Path) -> tuple[dict[str, float], str]:
    """What it cost, or why it was ended."""
    script = Path(__file__).parent / "pit" / "contestant.py"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FEATURE_PLATFORM_")}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [python, str(script), name, str(path), str(out)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environ | {"FEAST_USAGE": "False"},
        )
        watched, deadline = psutil.Process(process.pid), time.monotonic() + SECONDS_GUARD
        while process.poll() is None:
            time.sleep(0.1)
            try:
                used = watched.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
            if used > MEMORY_GUARD_MB or time.monotonic() > deadline:
                process.kill()
                process.wait()
                return {}, f"ended at {used / 1024:.1f} GB" if used > MEMORY_GUARD_MB else f"ended at {SECONDS_GUARD} s"
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            return {}, f"failed: {lines[-1][:200] if lines else process.returncode}"
        assert process.stdout is not None  # noqa: S101 - it was asked for
        return json.loads(process.stdout.read().splitlines()[-1]), ""


def _checksum(out: Path, features: Sequence[str]) -> tuple[Any, ...]:
    """Rows, values present, and a sum of hashes that does not depend on the order of rows."""
    values = [f"case when isnan({name}) then null else {name} end" for name in features]
    with duckdb.connect(config={"memory_limit": "1GB"}) as connection:
        answer = connection.execute(
            f"select count(*), {' + '.join(f'count({value})' for value in values)},"
            f" sum(hash(n, {', '.join(values)})::hugeint) from '{out}'"
        ).fetchone()
    return tuple(answer or ())


def _compare(case: Case, results: dict[str, Result]) -> None:
    """Stop if two contestants answer the same question differently."""
    answers = {name: r.answer for name, r in results.items() if name in _SAME_QUESTION and r.answer is not None}
    if len(set(answers.values())) > 1:
        raise SystemExit(f"{case.title}: the answers differ: {answers}")


def _table(results: dict[str, Result]) -> None:
    floor = results["floor"].cpu if "floor" in results else None
    titles = f"{'CPU s':>9}{'/ floor':>9}{'wall s':>9}{'peak MB':>9}{'imports s':>11}"
    print(f"  {'':20}{titles}  answer (rows, values, sum)")
    for name, r in results.items():
        if r.ended:
            print(f"  {name:20}  {r.ended}")
            continue
        ratio = f"{r.cpu / floor:9.2f}" if floor else " " * 9
        answer = f"{r.answer[0]} {r.answer[1]} …{int(r.answer[2]) % 10**6:06d}" if r.answer else ""
        print(f"  {name:20}{r.cpu:9.2f}{ratio}{r.wall:9.2f}{r.peak_mb:9.0f}{r.import_cpu:11.1f}  {answer}")
    print(flush=True)


def _conclude(measured: dict[Case, dict[str, Result]]) -> None:
    """The last line: 1M labels, one view; each ratio of the largest data that both finished."""
    flat: dict[int, dict[str, Result]] = {}
    hard: dict[int, dict[str, Result]] = {}
    for case, results in measured.items():
        if case.labels == 1_000_000 and case.views == 1:
            of_size = (hard if case.superseded else flat).setdefault(case.days, {})
            of_size |= {name: result for name, result in results.items() if not result.ended}
    print("RESULT " + json.dumps(_ratios(flat, hard)))


def _ratios(flat: dict[int, dict[str, Result]], hard: dict[int, dict[str, Result]]) -> dict[str, float | None]:
    def ratio(
        theirs: str, *, ours: str = "modelled", what: str = "cpu", of: dict[int, dict[str, Result]] = flat
    ) -> float | None:
        both = [of[days] for days in sorted(of) if {ours, theirs} <= of[days].keys()]
        return round(getattr(both[-1][ours], what) / getattr(both[-1][theirs], what), 2) if both else None

    largest = [flat[days]["modelled"] for days in sorted(flat) if "modelled" in flat[days]]
    return {
        "modelled_vs_floor": ratio("floor"),
        "served_vs_modelled": ratio("modelled", ours="served"),
        "served_vs_modelled_superseded10": ratio("modelled", ours="served", of=hard),
        "vs_asof": ratio("DuckDB asof"),
        "vs_polars": ratio("polars"),
        "vs_pandas": ratio("pandas"),
        "vs_feast_wall": ratio("Feast", what="wall"),
        "vs_feast_rss": ratio("Feast", what="peak_mb"),
        "peak_rss_mb": round(largest[-1].peak_mb) if largest else None,
    }


if __name__ == "__main__":
    main()
