"""The drill's own stack: a home of its own, the shipped commands, and the processes by name.

Rule: whatever an operator would do is done with the command an operator has. Only what no operator would do (killing,
emptying, filling) goes past it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from drill.clock import StackClock
from drill.project import Project
from feature_platform.local import services, supervision
from feature_platform.settings import PREFIX, Settings

_COMMAND_SECONDS = 420


class CommandError(Exception):
    """A command of the platform did not end well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack that lives by the drill's clock."""

    home: Path
    project: Project
    clock: StackClock
    routes: dict[str, str]
    """Variables of the owners' routes."""
    said: list[str] = field(default_factory=list)
    """The commands that were given."""

    @property
    def settings(self) -> Settings:
        """Addresses of the running stack, whatever the caller's environment says."""
        return Settings.from_env(self._connections())

    @property
    def dagster_url(self) -> str:
        """Postgres of Dagster, for psycopg2."""
        return self._connections()[PREFIX + "DAGSTER_URL"].replace("+psycopg2", "", 1)

    @property
    def ui(self) -> str:
        """Address of Dagster's webserver."""
        return next(one.address for one in supervision.dagster_status(self.home) if one.address)

    def environ(self, *, worker_clock: bool = False) -> dict[str, str]:
        """For every process of the stack: nothing of another stack, the drill's clock, the owners' routes."""
        own = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "DAGSTER_"))}
        return own | {
            PREFIX + "PROJECT": str(self.project.directory),
            PREFIX + "HOME": str(self.home),
            **self.clock.environ(worker=worker_clock),
            **self.routes,
        }

    def command(self, *arguments: str, worker_clock: bool = False, check: bool = True) -> str:
        """What `feature-platform …` prints.

        Raises:
            CommandError: it failed, and that was to be checked.
        """
        said = " ".join(("feature-platform", *arguments))
        if arguments[0] != "status":  # to look is to do nothing
            self.said.append(said)
        done = subprocess.run(
            [sys.executable, "-m", "feature_platform.cli.main", *arguments],
            env=self.environ(worker_clock=worker_clock),
            cwd=self.project.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )
        if check and done.returncode:
            raise CommandError(f"{said} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-3000:]}")
        return done.stdout

    def up(self, *, worker_clock: bool = False) -> None:
        """Start what does not run."""
        self.command("up", worker_clock=worker_clock)

    def redeploy(self) -> None:
        """Deploy what the project says now and let Dagster load it."""
        self.command("deploy")
        self.command("up", "--restart")

    def status(self) -> dict[str, Any]:
        """`feature-platform status --json`."""
        answer: dict[str, Any] = json.loads(self.command("status", "--json", check=False) or "{}")
        return answer

    def process(self, name: str) -> psutil.Process:
        """A running process of the stack: postgres, valkey, code, webserver or daemon."""
        found = (*services.status(self.home), *supervision.dagster_status(self.home))
        pid = next(one.pid for one in found if one.name == name)
        if pid is None:
            raise CommandError(f"{name} does not run")
        return psutil.Process(pid)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one process, as an accident would."""
        process = self.process(name)
        process.send_signal(number)
        psutil.wait_procs([process], timeout=20)

    def run_workers(self) -> list[psutil.Process]:
        """Processes in which runs of Dagster execute: forks of the code server's fork server."""
        below = self.process("code").children(recursive=True)
        forks = {process.pid: process for process in below if "forkserver" in " ".join(process.cmdline())}
        return [process for process in forks.values() if process.ppid() in forks]

    def down(self) -> None:
        """Stop everything."""
        supervision.stop_dagster(self.home)
        services.stop(self.home)

    def delete(self) -> None:
        """Stop everything and delete the home."""
        self.down()
        if (self.home / "connections.json").exists():
            services.delete(self.home)
        shutil.rmtree(self.home, ignore_errors=True)

    def _connections(self) -> dict[str, str]:
        known: dict[str, str] = json.loads((self.home / "connections.json").read_text(encoding="utf-8"))
        return known
