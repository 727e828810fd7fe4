"""The name that the ledger records for what a person did."""

from __future__ import annotations

import getpass
import os


def whoami() -> str:
    """The user of this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name; KeyError until Python 3.12
        return f"uid {os.getuid()}"
