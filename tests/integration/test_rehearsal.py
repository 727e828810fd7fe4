"""Run workers are forks of a process that has rehearsed: it holds nothing that a fork must not share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from feature_platform.settings import PREFIX

REHEARSED = """
import json, os, sys, threading
import psutil
import feature_platform.orchestration.rehearsal
from feature_platform.declaration import load_registry
from feature_platform.domain.windows import parse_partition_key
from feature_platform.materialization import dbt_run, materialize
from feature_platform.settings import Settings

settings = Settings.from_env()
process = psutil.Process()
loaded = set(sys.modules)
sockets = [one for one in process.net_connections("all") if one.raddr]
held = {"threads": threading.active_count(), "connections": len(sockets),
        "manifest": dbt_run.load_manifest(settings) is dbt_run.load_manifest(settings)}

def run(number):
    view = load_registry(settings.manifest_path).view("user_activity")
    partition = parse_partition_key(f"2024-01-0{number}", view.grain)
    materialize(settings, load_registry(settings.manifest_path), view, [partition], run_id=f"fork {number}")
    return {"imported": sorted(set(sys.modules) - loaded), "scratch": dbt_run.dbt_environment(settings)}

def fork(number):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(run(number)).encode())
        os._exit(0)
    os.close(write)
    return read

reads = [fork(number) for number in (2, 3)]
print(json.dumps({"held": held, "forks": [json.loads(os.fdopen(read).read()) for read in reads]}))
"""


def test_forks_of_a_rehearsed_process_run_side_by_side_and_import_next_to_nothing(tiny) -> None:
    tiny.add_events((1, 10.0, "2024-01-02 09:00"), (1, 5.0, "2024-01-03 09:00"))
    tiny.load_through("2024-01-10")
    own = {
        "PROJECT": tiny.settings.project,
        "HOME": tiny.settings.home,
        "LEDGER_URL": tiny.settings.ledger_url,
        "VALKEY_URL": "valkey://nowhere",
        "LAKE_CATALOG": tiny.settings.lake_catalog,
        "LAKE_DATA": tiny.settings.lake_data,
        "DUCKDB_MEMORY": tiny.settings.duckdb_memory,
    }
    answer = subprocess.run(
        [sys.executable, "-c", REHEARSED],
        env=os.environ | {PREFIX + name: str(value) for name, value in own.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    assert "cold caches" not in answer.stderr
    told = json.loads(answer.stdout)
    assert told["held"] == {"threads": 1, "connections": 0, "manifest": True}
    heavy = {name.partition(".")[0] for fork in told["forks"] for name in fork["imported"]}
    assert not heavy & {"dbt", "duckdb", "sqlparse", "agate", "great_expectations", "dagster"}, told["forks"]
    assert len({fork["scratch"][PREFIX + "SCRATCH"] for fork in told["forks"]}) == 2
    assert [row[0] for row in tiny.visible("user_activity")] == [1, 1]
    assert not (Path(tiny.settings.home) / "dbt" / "rehearsal").exists()
