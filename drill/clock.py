"""The stack's clock: the real one, moved forward at will, for every process of the stack at once.

Rule: hours pass when the drill says so, and then they have passed for Postgres, Valkey, Dagster, run workers and the
reader alike. libfaketime reads the offset from a file; sleeps and monotonic clocks stay real, so a
jump is what a machine sees that was suspended. A second file moves the clocks of run workers alone.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import util
from pathlib import Path

_CACHED_SECONDS = 1
"""For how long a process believes what it read."""
_SHARED = Path("/dev/shm")  # noqa: S108 - where libfaketime itself puts it
_SHARED_NAMES = ("sem.faketime_sem_", "faketime_shm_")


class NoClockError(Exception):
    """libfaketime is not installed, or does not work here."""


def library() -> Path:
    """Where libfaketime lies.

    Raises:
        NoClockError: it is not installed.
    """
    spec = util.find_spec("libfaketime")
    for directory in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(directory).rglob("libfaketime.so.1"):
            return path
    raise NoClockError("the drill moves clocks with libfaketime: pip install -r drill/requirements.txt (Linux only)")


def remove_leftovers() -> None:
    """Remove what libfaketime left of processes that were killed: another user's process of that pid dies of it."""
    for prefix in _SHARED_NAMES:
        for path in _SHARED.glob(f"{prefix}*"):
            pid = path.name.removeprefix(prefix)
            if pid.isdecimal() and not Path("/proc", pid).exists():
                with suppress(OSError):  # another user's
                    path.unlink()


@dataclass(slots=True, kw_only=True)
class StackClock:
    """The clock of one stack."""

    directory: Path
    offset: timedelta = timedelta(0)
    skew: timedelta = timedelta(0)
    """How far the clocks of run workers are off."""

    def start_at(self, minute: int) -> None:
        """Move to the next full hour and so many minutes."""
        real = datetime.now(UTC)
        hour = real.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        self.offset = hour + timedelta(minutes=minute) - real
        self._write()

    def now(self) -> datetime:
        """What the stack's clocks show."""
        return datetime.now(UTC) + self.offset

    def advance(self, by: timedelta) -> None:
        """Let time pass, and wait until every process has seen it."""
        self.offset += by
        self._write()
        time.sleep(_CACHED_SECONDS + 0.2)

    def skew_workers(self, by: timedelta) -> None:
        """Set the clocks of run workers (and of the code server that starts them) off by so much."""
        self.skew = by
        self._write()
        time.sleep(_CACHED_SECONDS + 0.2)

    def environ(self, *, worker: bool = False) -> dict[str, str]:
        """What makes a process live by this clock; its children inherit it."""
        return {
            "LD_PRELOAD": str(self._library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(worker=worker)),
            "FAKETIME_CACHE_DURATION": str(_CACHED_SECONDS),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # times of files stay real
        }

    def _library(self) -> Path:
        """A copy that the user who runs Postgres can read."""
        copy = self.directory / "libfaketime.so.1"
        if not copy.exists():
            shutil.copyfile(library(), copy)
            copy.chmod(0o755)
        return copy

    def _file(self, *, worker: bool) -> Path:
        return self.directory / ("worker_clock" if worker else "clock")

    def _write(self) -> None:
        for worker, offset in ((False, self.offset), (True, self.offset + self.skew)):
            path = self._file(worker=worker)
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(f"{offset.total_seconds():+.3f}\n", encoding="utf-8")
            draft.chmod(0o644)
            draft.replace(path)
