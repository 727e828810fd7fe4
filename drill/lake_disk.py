"""A small disk of its own for the lake: a file system in memory, which can be filled without harm to anything else.

Rule: mounting needs root, or a name space in which an ordinary user may mount (`unshare`, which `__main__` asks for).
Where neither is there, the fault says so and is left out.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_SIZE = "48m"
_CHUNK = bytes(1 << 16)


class CannotInjectError(Exception):
    """This machine does not allow the fault."""


@dataclass(slots=True, kw_only=True)
class LakeDisk:
    """The file system below the lake's directory."""

    directory: Path
    why_not: str = ""

    def mount(self) -> None:
        """Mount it, if that is allowed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        options = ["-o", f"size={_SIZE},mode=0755"]
        done = subprocess.run(
            ["mount", "-t", "tmpfs", *options, "drill", str(self.directory)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            self.why_not = f"no file system can be mounted here: {done.stderr.strip()}"

    def fill(self) -> Path:
        """Fill it to the last byte; the file to delete.

        Raises:
            CannotInjectError: it is not a disk of its own.
        """
        if self.why_not:
            raise CannotInjectError(self.why_not)
        ballast = self.directory / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(_CHUNK) == len(_CHUNK):
                    pass
                while file.write(b"\0"):
                    pass
            except OSError:  # full
                return ballast
        return ballast

    def unmount(self) -> None:
        """Give the memory back."""
        if not self.why_not:
            subprocess.run(["umount", "-l", str(self.directory)], capture_output=True, check=False)
