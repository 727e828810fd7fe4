"""What a run of Dagster costs over the work in it, launched through daemon and code server as a user's runs are.

Four kinds of run, taken in turn so that the noise of the machine falls on all of them alike; medians are compared:

- empty: one asset that does nothing, in a location that imports dagster and dagster_postgres only;
- partition: one partition of `route_delays`, its expectations taken out, from launch to `online`;
- partition_with_gx: one partition of `carrier_delays`, with its expectations;
- range_90: 90 partitions of both daily views in one run, against their compiled SQL in plain DuckDB plus an empty run.

A run counts from the daemon's launch to its end: the start of the process and its imports are part of it. The split
comes from Dagster's and the ledger's clocks. The last line is `RESULT {...}`; its ratios are ours divided by theirs.

    .venv/bin/python benchmarks/run_overhead.py [--rounds 5] [--home DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EMPTY_LOCATION = """
import dagster as dg
import dagster_postgres  # noqa: F401 - what the empty run is allowed to import

@dg.asset
def empty() -> None: ...

defs = dg.Definitions(assets=[empty], executor=dg.in_process_executor)
"""
RANGE_DAYS = 90
VIEWS = {"partition": "route_delays", "partition_with_gx": "carrier_delays"}
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { id } } ... on Error { message } } }"""
RUN_STATS = """query($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status stats { __typename
  ... on RunStatsSnapshot { enqueuedTime launchTime startTime endTime } } } } }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Seconds of one run."""

    run_id: str
    total: float
    imports: float
    """From launch until the run's first event: process start, imports, definitions."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind (default: 5)")
    parser.add_argument("--home", type=Path, help="keep the stack's data here (default: a temporary directory)")
    options = parser.parse_args()
    if options.home is not None:
        options.home.mkdir(parents=True, exist_ok=True)
        _measure(options.home.resolve(), options.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="run_overhead_") as directory:
        _measure(Path(directory), options.rounds)


def _measure(directory: Path, rounds: int) -> None:
    project, home = _project(directory), directory / "home"
    os.environ |= {"FEATURE_PLATFORM_PROJECT": str(project), "FEATURE_PLATFORM_HOME": str(home)}
    # imported here: they read the environment that was just set
    from feature_platform import local
    from feature_platform.cli.dagster_client import DagsterClient
    from feature_platform.local import supervision

    connections = local.start(project, home)
    os.environ.update(connections)
    server = None
    try:
        settings, registry = _deploy()
        server = _serve_empty(directory, connections, home)
        client = DagsterClient(supervision.start_dagster(project, home, connections, port=None))
        print(f"up: {client.url}; {rounds} rounds", flush=True)
        _result(settings, registry, client, rounds)
    finally:
        supervision.stop_dagster(home)
        if server is not None:
            server.terminate()
            server.wait(timeout=30)
        local.stop(home)


def _project(directory: Path) -> Path:
    """A copy of the reference project; `route_delays` without expectations, a second location that is empty."""
    project = directory / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(ROOT / "dbt_project", project / "dbt_project", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(ROOT / "dagster_home", project / "dagster_home")
    (project / "feature_platform").symlink_to(ROOT / "feature_platform")
    declaration = project / "dbt_project" / "models" / "feature_views" / "route_delays.yml"
    lines = declaration.read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip() == "expectations:")
    depth = len(lines[begin]) - len(lines[begin].lstrip())
    end = next(i for i in range(begin + 1, len(lines)) if len(lines[i]) - len(lines[i].lstrip()) <= depth)
    declaration.write_text("\n".join(lines[:begin] + lines[end:]) + "\n", encoding="utf-8")
    (directory / "empty_location.py").write_text(EMPTY_LOCATION, encoding="utf-8")
    (project / "workspace.yaml").write_text(
        "load_from:\n"
        "  - grpc_server: {socket: {env: FEATURE_PLATFORM_CODE_SOCKET}, location_name: feature_platform}\n"
        "  - grpc_server: {socket: {env: EMPTY_SOCKET}, location_name: empty}\n",
        encoding="utf-8",
    )
    return project


def _deploy() -> tuple[Any, Any]:
    from feature_platform.cli.materialization import deploy_project
    from feature_platform.lake import connect
    from feature_platform.ledger import Ledger
    from feature_platform.reference import SOURCES, load_source
    from feature_platform.settings import Settings

    settings = Settings.from_env()
    registry = deploy_project(settings).registry
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
        for source in SOURCES:
            load_source(lake, ledger, source, home=settings.home, through=datetime.now(UTC))
    return settings, registry


def _serve_empty(directory: Path, connections: dict[str, str], home: Path) -> subprocess.Popen[bytes]:
    from feature_platform.local.places import Places
    from feature_platform.local.supervision import dagster_environ

    socket = Path(tempfile.mkdtemp(prefix="fp_")) / "empty.sock"
    os.environ["EMPTY_SOCKET"] = str(socket)
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "dagster",
            "code-server",
            "start",
            "-s",
            str(socket),
            "-f",
            str(directory / "empty_location.py"),
        ],
        env=dagster_environ(Places(home=home), connections),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not socket.exists():
        if time.monotonic() > deadline or server.poll() is not None:
            raise SystemExit("the empty location's code server did not start")
        time.sleep(0.2)
    return server


def _result(settings: Any, registry: Any, client: Any, rounds: int) -> None:
    last_day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    runs: dict[str, list[Run]] = {"empty": [], "partition": [], "partition_with_gx": [], "range_90": []}
    splits: dict[str, list[dict[str, float]]] = {kind: [] for kind in (*VIEWS, *map(_in_range, VIEWS.values()))}
    _launch(client, "empty", [["empty"]], {})  # the first run compiles files; it is not counted
    for number in range(rounds):
        day = f"{last_day - timedelta(days=number):%Y-%m-%d}"
        runs["empty"].append(_launch(client, "empty", [["empty"]], {}))
        for kind, view in VIEWS.items():
            run = _launch(client, "feature_platform", [[view], ["online", view]], {"dagster/partition": day})
            runs[kind].append(run)
            splits[kind].append(_split(settings, registry.view(view).key, run))
        print(f"round {number + 1}: " + ", ".join(f"{k} {v[-1].total:.1f} s" for k, v in runs.items() if v), flush=True)
    begin = last_day - timedelta(days=rounds + RANGE_DAYS)
    tags = {
        "dagster/asset_partition_range_start": f"{begin:%Y-%m-%d}",
        "dagster/asset_partition_range_end": f"{begin + timedelta(days=RANGE_DAYS - 1):%Y-%m-%d}",
    }
    for _ in range(min(rounds, 3)):
        run = _launch(client, "feature_platform", [[view] for view in VIEWS.values()], tags)
        runs["range_90"].append(run)
        for view in VIEWS.values():
            splits[_in_range(view)].append(_split(settings, registry.view(view).key, run))
    plain = statistics.median(_plain_sql(settings, registry, begin) for _ in range(3))
    _report(settings, registry, runs, splits, plain)


def _in_range(view: str) -> str:
    return f"{view} in range_90"


def _launch(client: Any, location: str, assets: list[list[str]], tags: dict[str, str]) -> Run:
    selector = {
        "repositoryLocationName": location,
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": path} for path in assets],
    }
    metadata = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
    params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": metadata}
    launched = client._ask(LAUNCH, params=params)["launchRun"]  # noqa: SLF001 - the commands know one location only
    if launched["__typename"] != "LaunchRunSuccess":
        raise SystemExit(f"{assets}: {launched}")
    run_id = launched["run"]["id"]
    while True:
        answer = client._ask(RUN_STATS, id=run_id)["runOrError"]  # noqa: SLF001 - a question only this asks
        if answer["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
            break
        time.sleep(0.5)
    if answer["status"] != "SUCCESS":
        raise SystemExit(f"run {run_id} of {assets}: {answer['status']}: {client.run_failures(run_id)}")
    stats = answer["stats"]
    return Run(
        run_id=run_id,
        total=stats["endTime"] - stats["launchTime"],
        imports=stats["startTime"] - stats["launchTime"],
    )


def _split(settings: Any, view_key: str, run: Run) -> dict[str, float]:
    """Where the seconds of one run went, by the ledger's clocks; what is left are Dagster's events and the rest."""
    from feature_platform.ledger import Ledger

    with Ledger.connect(settings.ledger_url) as ledger:
        batch = ledger.batches(view_key, run_id=run.run_id)[0]
        syncs = [one for one in ledger.syncs(view_key, settings.store) if one.began_at >= batch.opened_at]
        sync = max(syncs, key=lambda one: one.began_at, default=None)
    parts = {
        "process start, imports, definitions": run.imports,
        "dbt": (batch.computed_at - batch.opened_at).total_seconds(),
        "checks": (batch.audited_at - batch.computed_at).total_seconds(),
        "publish": (batch.published_at - batch.audited_at).total_seconds(),
        "sync": (sync.ended_at - sync.began_at).total_seconds() if sync and sync.ended_at else 0.0,
    }
    return parts | {"lazy imports, events, rest": run.total - sum(parts.values())}


def _plain_sql(settings: Any, registry: Any, begin: datetime) -> float:
    """Seconds of the same SQL, as dbt compiles it, in plain DuckDB, written to Parquet."""
    from feature_platform.domain.batch import Batch
    from feature_platform.domain.windows import Grain, partition_starting
    from feature_platform.lake import connect
    from feature_platform.materialization import dbt_run

    manifest = dbt_run.load_manifest(settings)
    queries = []
    for name in VIEWS.values():
        view = registry.view(name)
        batches = [
            Batch(
                batch_id=str(i),
                seq=i,
                view=view.key,
                partition=partition_starting(begin + timedelta(days=i), Grain.DAY),
            )
            for i in range(RANGE_DAYS)
        ]
        compiled = dbt_run.invoke(
            settings,
            ["compile", "--select", dbt_run.select_node(manifest, view.unique_id)],
            manifest=manifest,
            run_directory=settings.home / "dbt" / "benchmark",
            variables=dbt_run.build_vars(batches),
        )
        queries.append(compiled.results[0].compiled_sql)
    dbt_run.close_lake()
    with closing(connect(settings, read_only=True)) as lake, tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        for number, query in enumerate(queries):
            lake.execute(f"copy ({query}) to '{directory}/{number}.parquet' (format parquet)")
        return time.perf_counter() - began


def _report(
    settings: Any, registry: Any, runs: dict[str, list[Run]], splits: dict[str, list[dict[str, float]]], plain: float
) -> None:
    from feature_platform.ledger import Ledger

    medians = {kind: statistics.median(run.total for run in of_kind) for kind, of_kind in runs.items()}
    print(
        f"\nmedian seconds: {', '.join(f'{kind} {value:.2f}' for kind, value in medians.items())}, "
        f"plain SQL of the range {plain:.2f}"
    )
    print(f"empty run: process start, imports, definitions {statistics.median(r.imports for r in runs['empty']):.2f}")
    for kind, of_kind in splits.items():
        parts = {name: statistics.median(split[name] for split in of_kind) for name in of_kind[0]}
        print(f"{kind}: " + ", ".join(f"{name} {value:.2f}" for name, value in parts.items()))
    with Ledger.connect(settings.ledger_url) as ledger:
        peak = max(
            batch.peak_memory_bytes or 0 for name in VIEWS.values() for batch in ledger.batches(registry.view(name).key)
        )
    print(
        "RESULT "
        + json.dumps(
            {
                "partition_vs_empty_run": round(medians["partition"] / medians["empty"], 2),
                "partition_with_gx_vs_empty_run": round(medians["partition_with_gx"] / medians["empty"], 2),
                "range_90_vs_plain_sql_plus_empty_run": round(medians["range_90"] / (plain + medians["empty"]), 2),
                "peak_rss_mb": round(peak / 2**20),
            }
        )
    )


if __name__ == "__main__":
    main()
