"""Dagster's processes on one machine: a code server (the parent of all runs), the webserver, the daemon.

Rule: what is started is recorded, and `stop` ends exactly what was recorded, with everything it started, within a
bounded time, whatever is queued. (`dagster dev` did not end within minutes while runs were queued, so it is not used.)
Queued runs stay queued and go on at the next start.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import psutil

from feature_platform.errors import ServiceStartError
from feature_platform.local import abandoned_runs, webserver
from feature_platform.local.places import Places
from feature_platform.local.processes import Recorded, end, excerpt, send, spawn, wait_until
from feature_platform.local.services import ServiceStatus
from feature_platform.settings import PREFIX

DEFAULT_PORT = 3000
CODE, WEBSERVER, DAEMON = "code", "webserver", "daemon"
DEFINITIONS = "feature_platform.definitions"
_HOST = "127.0.0.1"
_PORTS_TO_TRY = 20
_CODE_SECONDS = _UI_SECONDS = 300.0  # seconds on a quiet machine; the first start compiles all Python files
_STOP_SECONDS = 10.0
_RECONNECT_SECONDS = 60.0


def start_dagster(
    project: Path, home: Path, connections: Mapping[str, str], *, port: int | None = None, module: str = DEFINITIONS
) -> str:
    """Start code server, webserver and daemon, or leave them if they run; the UI's URL once it answers.

    Args:
        project: directory with `workspace.yaml` and `dagster_home/dagster.yaml`.
        home: data directory.
        connections: what `services.start` returned.
        port: the UI's port; by default 3000, or the next free one.
        module: the module with the definitions.

    Raises:
        ServiceStartError: the port is taken, a process ended, or the definitions do not load.
    """
    places = Places(home=home.resolve())
    environ = dagster_environ(places, connections)
    with places.lock():
        running = _alive(places, WEBSERVER)
        if running is not None and port is not None and running.detail != str(port):
            raise ServiceStartError(
                "the UI runs already, on another port",
                found=f"port {running.detail}",
                hint=f"`feature-platform down`, then `feature-platform up --port {port}`",
            )
        chosen = "" if running else str(_free_port(port))
        _copy_instance_config(project, places)
        workspace = ("-w", str(project / "workspace.yaml"))
        if _alive(places, CODE) is None:
            _end_sessions([Recorded.read(places.run, CODE)])
            abandoned = _runs_in_progress(connections)
            socket_path = _code_socket(places)
            socket_path.unlink(missing_ok=True)
            server = ("dagster", "code-server", "start", "-s", str(socket_path), "-m", module)
            _start(CODE, *server, project=project, places=places, environ=environ)
            _wait_for_code(places)
            _settle_abandoned_runs(project, environ, abandoned)
        _wait_for_code(places)

        def start_webserver(chosen: str) -> Recorded:
            _end_sessions([Recorded.read(places.run, WEBSERVER)])
            server = ("dagster_webserver", "-h", _HOST, "-p", chosen, *workspace)
            return _start(WEBSERVER, *server, project=project, places=places, environ=environ, detail=chosen)

        ui = running or start_webserver(chosen)
        if _alive(places, DAEMON) is None:
            _start(DAEMON, "dagster._daemon", "run", *workspace, project=project, places=places, environ=environ)
    while not _lives(places, ui) and port is None and not _is_free(int(ui.detail)):
        with places.lock():  # another stack took the port while ours was starting
            ui = start_webserver(str(_free_port(None)))
    return _wait_for_ui(places, ui)


def stop_dagster(home: Path) -> tuple[str, ...]:
    """End daemon, webserver, code server and run workers; the names of those that ran."""
    places = Places(home=home.resolve())
    if not places.run.exists():
        return ()
    with places.lock():
        # the daemon first, so that nothing new leaves the queue
        recorded = [Recorded.read(places.run, name) for name in (DAEMON, WEBSERVER, CODE)]
        stopped = tuple(process.name for process in recorded if process and process.is_alive())
        _end_sessions(recorded)
    return stopped


def dagster_status(home: Path) -> tuple[ServiceStatus, ...]:
    """What runs of Dagster."""
    places = Places(home=home.resolve())
    found = []
    for name in (CODE, WEBSERVER, DAEMON):
        process = _alive(places, name)
        log = places.logs / f"{name}.log"
        found.append(
            ServiceStatus(
                name=name,
                running=process is not None,
                pid=process.pid if process else None,
                address=_url(process.detail) if process and process.detail else "",
                log=str(log) if log.exists() else "",
            )
        )
    return tuple(found)


def dagster_environ(places: Places, connections: Mapping[str, str]) -> dict[str, str]:
    """The environment of every process of Dagster on this machine."""
    return os.environ | {
        **connections,
        "DAGSTER_HOME": str(places.dagster),
        "FEATURE_PLATFORM_CODE_SOCKET": str(_code_socket(places)),
        "DAGSTER_PG_URL": connections[PREFIX + "DAGSTER_URL"],
        # events are written in batches, not with a commit each (1,488 events: 18 s or 0.8 s)
        "DAGSTER_EVENT_BATCH_SIZE": os.environ.get("DAGSTER_EVENT_BATCH_SIZE", "500"),
        # run workers are forks of a process that has done the imports: orchestration/warm_workers.py
        "FEATURE_PLATFORM_WARM_WORKERS": os.environ.get("FEATURE_PLATFORM_WARM_WORKERS", "1"),
        # the process below the code server ends itself when no heartbeat came for so long, and nothing starts it again:
        # after 30 s, the default, a machine that slept or was too busy is left without definitions
        "DAGSTER_GRPC_PROXY_HEARTBEAT_TTL_SECONDS": os.environ.get("DAGSTER_GRPC_PROXY_HEARTBEAT_TTL_SECONDS", "86400"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _alive(places: Places, name: str) -> Recorded | None:
    recorded = Recorded.read(places.run, name)
    return recorded if recorded and recorded.is_alive() else None


def _url(port: str) -> str:
    return f"http://localhost:{port}"


def _copy_instance_config(project: Path, places: Places) -> None:
    """Dagster writes beside its configuration, so the committed file is copied into the data directory."""
    source = project / "dagster_home" / "dagster.yaml"
    if not source.exists():
        raise ServiceStartError(
            "Dagster's configuration is missing", found=f"no {source}", hint="restore it (git checkout)"
        )
    places.dagster.mkdir(exist_ok=True)
    shutil.copyfile(source, places.dagster / "dagster.yaml")


def _code_socket(places: Places) -> Path:
    return places.sockets() / "code.sock"


def _start(
    name: str, *module: str, project: Path, places: Places, environ: Mapping[str, str], detail: str = ""
) -> Recorded:
    log = places.logs / f"{name}.log"
    process = spawn(name, [sys.executable, "-m", *module], log=log, cwd=project, environ=environ, detail=detail)
    process.write(places.run)
    return process


def _free_port(port: int | None) -> int:
    if port is not None:
        if _is_free(port):
            return port
        raise ServiceStartError(
            f"port {port} is in use",
            found=_port_user(port),
            hint=f"end it, or choose another: `feature-platform up --port {port + 1}`",
        )
    for candidate in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TO_TRY):
        if _is_free(candidate):
            return candidate
    raise ServiceStartError(
        f"ports {DEFAULT_PORT} to {DEFAULT_PORT + _PORTS_TO_TRY - 1} are all in use",
        hint="choose another: `feature-platform up --port …`",
    )


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _port_user(port: int) -> str:
    try:
        users = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid}
        return "; ".join(f"process {pid}: {' '.join(psutil.Process(pid).cmdline())[:120]}" for pid in sorted(users))
    except (psutil.Error, OSError):
        return "another program (which one, only the administrator may see)"


def _runs_in_progress(connections: Mapping[str, str]) -> tuple[str, ...]:
    return abandoned_runs.in_progress(connections[PREFIX + "DAGSTER_URL"].replace("+psycopg2", "", 1))


def _settle_abandoned_runs(project: Path, environ: Mapping[str, str], run_ids: Sequence[str]) -> None:
    if not run_ids:
        return  # the usual case, without the seconds that importing Dagster takes
    done = subprocess.run(
        [sys.executable, "-m", abandoned_runs.__name__, *run_ids],
        cwd=project,
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceStartError(
            "runs of an earlier start could not be closed", found=done.stderr.strip()[-2000:], hint="see the message"
        )


def _wait_for_code(places: Places) -> None:
    """The code server listens once the definitions have loaded, or have failed to (which the UI then shows)."""
    if not wait_until(lambda: _listens(_code_socket(places)) or not _alive(places, CODE), seconds=_CODE_SECONDS):
        raise _not_started(places, CODE)
    if _alive(places, CODE) is None:
        raise _not_started(places, CODE)


def _listens(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _lives(places: Places, process: Recorded) -> bool:
    """Whether the webserver lives, once it answers or there is nothing to wait for."""
    url = _url(process.detail)
    wait_until(
        lambda: _serves(process, url) or not process.is_alive() or _alive(places, DAEMON) is None, seconds=_UI_SECONDS
    )
    return process.is_alive()


def _wait_for_ui(places: Places, process: Recorded) -> str:
    url = _url(process.detail)
    answered = _lives(places, process) and _serves(process, url)
    # whichever ended says why in its log; the other one may not have said anything yet
    for name in (WEBSERVER, DAEMON):
        if _alive(places, name) is None:
            raise _not_started(places, name)
    if not answered:
        raise _not_started(places, WEBSERVER)
    # a webserver that outlived the code server has to find the new one first
    wait_until(lambda: not webserver.is_cut_off(url), seconds=_RECONNECT_SECONDS)
    if problem := webserver.load_problem(url):
        raise ServiceStartError(
            f"the UI runs at {url}, but the definitions do not load",
            found=problem,
            hint="`feature-platform validate` names what is wrong; then `feature-platform up --restart`",
        )
    return url


def _serves(process: Recorded, url: str) -> bool:
    """Whether this very process answers: another stack may have taken the port between our look and our start."""
    try:
        connections = psutil.Process(process.pid).net_connections("tcp")
    except psutil.Error:
        return False
    listening = {str(one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN}
    return process.detail in listening and webserver.answers(url)


def _not_started(places: Places, name: str) -> ServiceStartError:
    return ServiceStartError(
        f"Dagster's {name} process did not start",
        found=excerpt(places.logs / f"{name}.log"),
        hint="if the log does not explain it: `feature-platform down`, then `feature-platform up`",
    )


def _end_sessions(recorded: Sequence[Recorded | None]) -> None:
    """End processes and all they started, dead or alive themselves.

    Runs are killed, not asked: one that is asked fails in its own step, for good, while one that is cut off is started
    again by Dagster's own rule (`run_retries`) once the next start has told it so. And a code server waits for its runs
    before it ends.
    """
    leaders = [psutil.Process(process.pid) for process in recorded if process and process.is_alive()]
    members = [member for process in recorded if process for member in process.members()]
    send(members, signal.SIGKILL)
    end([*leaders, *members], seconds=_STOP_SECONDS)
    # what was started while the others ended
    end([member for process in recorded if process for member in process.members()], seconds=_STOP_SECONDS)
