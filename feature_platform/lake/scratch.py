"""Where DuckDB spills: one directory per connection, inside one per process, which its death gives free.

A process holds a lock on its directory; a directory whose lock is free belongs to a dead process and is removed by the
next process that comes along. (Two in-memory databases must not share a temp directory: their files have equal names.)
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from pathlib import Path

_LOCK_FILE = "lock"
_guard = threading.Lock()
_ours: dict[Path, tuple[int, Path, int]] = {}
_numbers = itertools.count(1)


def scratch_directory(root: Path) -> Path:
    """A new directory below `root` for one DuckDB instance of this process. It is removed when the process ends."""
    with _guard:
        pid, process_directory, _ = _ours.get(root, (0, root, 0))
        if pid != os.getpid() or not process_directory.is_dir():  # none yet, or a fork of the process that had it
            process_directory = _claim(root)
        directory = process_directory / str(next(_numbers))
        directory.mkdir()
    return directory


def remove_stale(root: Path) -> int:
    """Remove what dead processes left below `root`; how many directories those were."""
    removed = 0
    for directory in root.glob("p*"):
        try:
            handle = os.open(directory / _LOCK_FILE, os.O_RDWR)
        except OSError:
            continue  # being created, or removed by another process just now
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
            removed += 1
        except BlockingIOError:
            pass  # alive
        finally:
            os.close(handle)
    return removed


def _claim(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    remove_stale(root)
    # the lock is taken before the directory gets the name that `remove_stale` looks for
    unnamed = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=root))
    handle = os.open(unnamed / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    directory = unnamed.rename(root / f"p{unnamed.name[1:]}")
    _ours[root] = (os.getpid(), directory, handle)
    atexit.register(_release, os.getpid(), directory)
    return directory


def _release(pid: int, directory: Path) -> None:
    if pid == os.getpid():
        shutil.rmtree(directory, ignore_errors=True)
