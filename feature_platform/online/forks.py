"""Whether this process was forked since something was made.

Rule: what belongs to one process (sockets, locks, threads) remembers the count at which it was made. Python counts;
`os.getpid` would be a system call in every request.
"""

from __future__ import annotations

import os
from typing import ClassVar


class Forks:
    """How many forks lie between the process that imported this module and this one."""

    count: ClassVar[int] = 0


def _count() -> None:
    Forks.count += 1


os.register_at_fork(after_in_child=_count)
