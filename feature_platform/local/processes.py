"""Long-living processes: started in a session of their own, remembered on disk, stopped with everything they started.

Rule: a process is signalled only after its identity (start time as well as pid) was compared with the recorded one,
so a pid that the system gave to somebody else is never killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

_EXCERPT_LINES = 15
_POLL_SECONDS = 0.05
_OF_A_PRELOADED_LIBRARY = ("LD_PRELOAD", "FAKETIME")

# a Popen that is collected while its process lives warns; these processes are meant to outlive us
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The OS user a process runs as, where it is not ours."""

    name: str
    uid: int
    gid: int

    def as_popen_arguments(self) -> dict[str, Any]:
        """For `subprocess`: become this user, with no supplementary groups of ours left."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def identity(pid: int) -> str | None:
    """What distinguishes this process from a later one with the same pid; None if there is none (or a zombie)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if (stat := Path(f"/proc/{pid}/stat")).exists():
            # exact, and unmoved by a change of the clock: ticks since boot, and which boot
            ticks = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()}:{ticks}"
        return f"{process.create_time():.0f}"
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A process and what it is known by; the leader of its own session."""

    name: str
    pid: int
    identity: str
    detail: str = ""
    """Something its next caller wants to know, e.g. a port."""

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        reap()
        return identity(self.pid) == self.identity

    def write(self, directory: Path) -> None:
        """Remember it as `<directory>/<name>.json`."""
        write_text(directory / f"{self.name}.json", json.dumps(asdict(self)))

    @classmethod
    def read(cls, directory: Path, name: str) -> Self | None:
        """The remembered process, alive or not; None if nothing (readable) is remembered."""
        try:
            return cls(**json.loads((directory / f"{name}.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def members(self) -> list[psutil.Process]:
        """Everything that lives in its session or descends from it, itself excluded, children before parents.

        Descendants alone miss processes whose parent died. A session's id is not given to a new process while the
        session has members, so if the leader is gone, whoever has its id as session belongs to it.
        """
        now = identity(self.pid)
        if now not in (None, self.identity):
            return []
        found: dict[int, psutil.Process] = {}
        if now is not None:
            with suppress(psutil.NoSuchProcess):
                found |= {child.pid: child for child in psutil.Process(self.pid).children(recursive=True)}
        for process in psutil.process_iter():
            with suppress(OSError, psutil.NoSuchProcess):
                if process.pid != self.pid and os.getsid(process.pid) == self.pid:
                    found[process.pid] = process
        return sorted(found.values(), key=lambda process: -process.pid)


def spawn(
    name: str,
    command: Sequence[object],
    *,
    log: Path,
    cwd: Path,
    environ: Mapping[str, str],
    account: Account | None = None,
    detail: str = "",
) -> Recorded:
    """Start a process that outlives this one and its terminal; output is appended to `log`.

    Raises:
        OSError: it could not be started at all.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environ),
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            **(account.as_popen_arguments() if account else {}),
        )
    _started.append(process)
    # a process that has ended already has no identity; the empty one equals no live process's
    return Recorded(name=name, pid=process.pid, identity=identity(process.pid) or "", detail=detail)


def bare_environ() -> dict[str, str]:
    """The environment of Postgres and Valkey: nothing of ours, as PGDATA or a locale would change what they do.

    A library that is preloaded into all our processes goes along, with its settings: so a drill moves the clock of a
    whole stack (drill/clock.py).
    """
    preloaded = {name: value for name, value in os.environ.items() if name.startswith(_OF_A_PRELOADED_LIBRARY)}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **preloaded}


def reap() -> None:
    """Collect children of ours that have ended, so that they do not stay as zombies."""
    _started[:] = [process for process in _started if process.poll() is None]


def wait_until(holds: Callable[[], bool], *, seconds: float) -> bool:
    """Poll until the condition holds; False after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal processes; those that are gone are skipped (psutil compares the start time first)."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def end(processes: Sequence[psutil.Process], *, seconds: float) -> None:
    """Ask processes to end, wait, then kill those that did not."""
    send(processes, signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=seconds)
    send(left, signal.SIGKILL)
    psutil.wait_procs(left, timeout=seconds)
    reap()


def excerpt(log: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"no log: {error}"
    return "\n           ".join([f"the end of {log}:", *lines[-_EXCERPT_LINES:]])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; readers never see a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
