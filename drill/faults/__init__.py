"""All faults. Importing this fills `fault.FAULTS`, in this order."""

from __future__ import annotations

from drill.faults import data, disks, processes

__all__ = ["data", "disks", "processes"]
