"""Disks that are full."""

from __future__ import annotations

from collections.abc import Iterator

from drill.fault import FLIGHTS, fault
from drill.running import Drill


@fault("the disk of the lake is full", seen_by=("incident failing", "incident"), tells=(FLIGHTS,))
def lake_disk_full(drill: Drill) -> Iterator[None]:
    """The lake lies on a small file system of its own; something else fills it."""
    ballast = drill.lake_disk.fill()
    partition = drill.materialize("aircraft_state")
    yield
    ballast.unlink()
    drill.materialize("aircraft_state", partition)
