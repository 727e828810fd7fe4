"""`up` and `down` of Dagster: idempotent, bounded with runs queued, and no run is lost when everything is killed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from feature_platform import local
from feature_platform.errors import ServiceStartError
from feature_platform.local import abandoned_runs, supervision, webserver
from feature_platform.local.processes import Recorded, identity, wait_until

PROJECT = Path(__file__).parents[2]
DEFINITIONS = """
import time
import dagster as dg

@dg.asset
def endless() -> None:
    time.sleep(3600)

defs = dg.Definitions(assets=[endless], jobs=[dg.define_asset_job("endless_job", executor_def=dg.in_process_executor)])
"""
LAUNCH = """mutation { launchRun(executionParams: {
  selector: {repositoryLocationName: "feature_platform", repositoryName: "__repository__", jobName: "endless_job"},
  mode: "default", runConfigData: {}}) { __typename ... on LaunchRunSuccess { run { runId } } } }"""
CANCEL = """mutation { terminateRun(runId: "%s", terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"


@pytest.fixture
def stack(initialized_once):
    """A project with one endless asset, and its data directory."""
    project = Path(tempfile.mkdtemp(prefix="fp-test-"))
    project.chmod(0o711)
    shutil.copytree(PROJECT / "dagster_home", project / "dagster_home", ignore=lambda *_: {"storage", "logs"})
    shutil.copy(PROJECT / "workspace.yaml", project)
    (project / "endless.py").write_text(DEFINITIONS)
    home = project / ".feature_platform"
    yield project, home
    supervision.stop_dagster(home)
    local.delete(home)
    shutil.rmtree(project)


def start(project: Path, home: Path, **options) -> str:
    return supervision.start_dagster(project, home, local.start(project, home), module="endless", **options)


def pids(home: Path) -> dict[str, int]:
    return {service.name: service.pid for service in supervision.dagster_status(home) if service.running}


def statuses(url: str) -> dict[str, str]:
    return {run["runId"]: run["status"] for run in webserver.query(url, RUNS)["runsOrError"]["results"]}


def everything(home: Path) -> list[psutil.Process]:
    leaders = [Recorded.read(home / "run", name) for name in ("daemon", "webserver", "code")]
    return [process for leader in leaders for process in (psutil.Process(leader.pid), *leader.members())]


def launch(url: str) -> str:
    return webserver.query(url, LAUNCH)["launchRun"]["run"]["runId"]


@pytest.fixture
def taken_meanwhile(monkeypatch):
    """A port that is free when it is looked for, and another program's when the webserver has started."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        looked = supervision._free_port
        answers = iter([other.getsockname()[1]])
        monkeypatch.setattr(supervision, "_free_port", lambda port: next(answers, None) or looked(port))
        yield other.getsockname()[1]


@pytest.mark.timeout(1200)
def test_up_twice_kill_up_and_down_with_queued_runs(stack, taken_meanwhile):
    project, home = stack
    url = start(project, home)
    assert not url.endswith(f":{taken_meanwhile}")
    assert start(project, home) == url
    running = pids(home)
    assert set(running) == {"code", "webserver", "daemon"}
    with pytest.raises(ServiceStartError, match="another port"):
        start(project, home, port=1)

    launched = [launch(url) for _ in range(5)]
    assert wait_until(lambda: list(statuses(url).values()).count("STARTED") == 3, seconds=300)  # of dagster.yaml
    begun = [run for run in launched if statuses(url)[run] == "STARTED"]

    # the machine goes down: all processes of Dagster at once
    killed = everything(home)
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=60)
    assert pids(home) == {}

    url = start(project, home)
    assert set(pids(home).values()).isdisjoint(running.values())
    after = statuses(url)
    assert {after[run] for run in begun} == {"FAILURE"}  # their slots are free
    assert {after[run] for run in launched if run not in begun} <= {"QUEUED", "STARTING", "STARTED"}
    # and Dagster starts them again
    assert wait_until(lambda: len(statuses(url)) == len(launched) + len(begun), seconds=300)

    # the code server dies alone, with its runs: the daemon, which lives, starts them again as well
    assert wait_until(lambda: list(statuses(url).values()).count("STARTED") == 3, seconds=300)
    code = psutil.Process(pids(home)["code"])
    for process in (code, *code.children(recursive=True)):
        process.kill()
    # a run whose turn comes while no code server answers keeps its place
    queued = [run for run, status in statuses(url).items() if status == "QUEUED"]
    webserver.query(url, CANCEL % next(run for run, status in statuses(url).items() if status == "STARTED"))
    log = home / "logs" / "daemon.log"
    assert wait_until(lambda: f"error dequeuing run {queued[-1]}" in log.read_text("utf-8"), seconds=120)
    assert wait_until(lambda: statuses(url)[queued[-1]] == "QUEUED", seconds=30)
    before = statuses(url)
    url = start(project, home)
    assert wait_until(lambda: statuses(url)[queued[-1]] == "STARTED", seconds=300)
    cut_off = {run for run, status in before.items() if status in ("STARTING", "STARTED")}
    after = statuses(url)
    assert {after[run] for run in cut_off} == {"FAILURE"}
    assert wait_until(lambda: len(statuses(url)) > len(before), seconds=300)

    left = everything(home)
    assert wait_until(lambda: "STARTED" in statuses(url).values(), seconds=300)
    assert sorted(supervision.stop_dagster(home)) == ["code", "daemon", "webserver"]
    assert [process for process in left if identity(process.pid) and process.is_running()] == []
    assert supervision.stop_dagster(home) == ()
    # what was in progress did not fail by being asked to end: the next start has it begun again
    database = local.start(project, home)["FEATURE_PLATFORM_DAGSTER_URL"].replace("+psycopg2", "", 1)
    assert abandoned_runs.in_progress(database)


def test_a_port_in_use_is_named(stack):
    project, home = stack
    connections = local.start(project, home)
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServiceStartError, match=f"port {port} is in use") as raised:
            supervision.start_dagster(project, home, connections, port=port, module="endless")
    assert str(os.getpid()) in raised.value.found
    assert f"--port {port + 1}" in raised.value.hint
    assert pids(home) == {}


def test_the_webserver_of_another_stack_is_not_taken_for_ours():
    """It took the port after we had found it free; ours is about to end."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"dagster_webserver_version": "1"}')

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        port = str(other.server_port)
        url = f"http://localhost:{port}"
        this = Recorded(name="webserver", pid=os.getpid(), identity=identity(os.getpid()), detail=port)
        ours = subprocess.Popen(["sleep", "60"])
        try:
            assert webserver.answers(url)
            assert supervision._serves(this, url)
            assert not supervision._serves(replace(this, pid=ours.pid, identity=identity(ours.pid)), url)
        finally:
            ours.kill()
            ours.wait()
            other.shutdown()


def test_a_process_that_ends_at_once_is_explained_by_its_log(stack):
    project, home = stack
    (project / "dagster_home" / "dagster.yaml").write_text("no_such_key: 1\n")
    with pytest.raises(ServiceStartError) as raised:
        start(project, home)
    assert "no_such_key" in raised.value.found
