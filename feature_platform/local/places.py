"""Where the embedded services of one data directory keep their things.

Rule: everything lies in the data directory ("home") except Unix sockets, whose paths may not exceed about 100 bytes:
they lie in a short directory under /tmp, named after a digest of the home's path, that only we can write to. It may
vanish (reboot) and is made again at the next start. Two homes never share a place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feature_platform.errors import ServiceStartError

_SOCKETS_PARENT = Path("/tmp")  # noqa: S108 - short by tradition; TMPDIR may be long (macOS), XDG_RUNTIME_DIR ends at logout
_CANDIDATES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The directories of one home."""

    home: Path

    @property
    def run(self) -> Path:
        """Records of running processes."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """Logs of all processes."""
        return self.home / "logs"

    @property
    def valkey(self) -> Path:
        """Valkey's data."""
        return self.home / "valkey"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME of the local stack."""
        return self.home / "dagster"

    @property
    def lake(self) -> Path:
        """The lake's Parquet files."""
        return self.home / "lake"

    def create(self) -> None:
        """Make the directories; the user's own directories keep their modes."""
        try:
            for directory in (self.home, self.run, self.logs, self.lake):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceStartError(
                f"the data directory {self.home} cannot be made",
                found=str(error),
                hint="set FEATURE_PLATFORM_HOME to a directory you can write to",
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while services start or stop: of racing starters one starts them and the others attach."""
        self.create()
        with (self.run / "lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def sockets(self) -> Path:
        """The directory for this home's sockets, made if missing.

        Its name can be guessed, so another user may have made it first; what is not ours is passed over.

        Raises:
            ServiceStartError: all candidates belong to others.
        """
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        # root's Postgres runs as another user, who must pass through (but not list or write)
        mode = 0o711 if os.geteuid() == 0 else 0o700
        for number in range(_CANDIDATES):
            path = _SOCKETS_PARENT / f"fp-{os.geteuid()}-{digest}{f'-{number}' if number else ''}"
            if _is_our_directory(path, mode):
                return path
        raise ServiceStartError(
            "no directory for Unix sockets",
            found=f"{_SOCKETS_PARENT}/fp-{os.geteuid()}-{digest}* belong to other users",
            hint="remove them, or use another FEATURE_PLATFORM_HOME",
        )

    def remove_sockets(self) -> None:
        """Remove the socket directory, when nothing runs any more."""
        shutil.rmtree(self.sockets(), ignore_errors=True)


def _is_our_directory(path: Path, mode: int) -> bool:
    try:
        path.mkdir(mode=mode)
        path.chmod(mode)  # the umask may have taken bits
    except FileExistsError:
        pass
    except OSError as error:
        raise ServiceStartError(
            f"{path} cannot be made", found=str(error), hint="make its parent a directory that this user may write to"
        ) from error
    found = path.lstat()  # a link is not a directory of ours
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == mode
