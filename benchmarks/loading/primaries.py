"""A cluster under load whose primaries die: what `benchmarks/load.py --cluster` runs against.

Rule: the cluster is the one of the tests, failovers are its own votes; a node that died comes back as a replica.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feature_platform.errors import StoreUnavailableError

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))


class Primaries:
    """Three primaries and three replicas, one primary after another killed."""

    def __init__(self) -> None:
        self._cluster: Any = None
        self._crashes = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self._cluster.url)

    @contextmanager
    def running(self) -> Iterator[Primaries]:
        """Run it for the block."""
        from cluster_support import running_cluster

        with running_cluster() as self._cluster:
            yield self

    def crash(self, away_seconds: float) -> None:
        """Kill a primary, wait until its replica was voted into its place, and bring it back behind it."""
        from cluster_support import wait_until

        number = self._crashes % len(self._cluster.primaries)
        self._crashes += 1
        victim, replica = self._cluster.primaries[number], self._cluster.replicas[number]
        print(f"  primary {victim.name} is killed", flush=True)
        victim.kill()
        wait_until(lambda: b"role:master" in replica.call("INFO", "replication"))
        time.sleep(away_seconds)
        self._cluster.revive(victim)
        print(f"  {replica.name} is primary, {victim.name} is back behind it", flush=True)

    def connections(self) -> int:
        """How many clients are connected to all nodes, those that ask not counted."""
        found = 0
        for node in self._cluster.running():
            try:
                info = node.call("INFO", "clients").decode()
            except StoreUnavailableError:
                continue  # it was killed just now
            found += int(info.split("connected_clients:")[1].split()[0]) - 1
        return found
