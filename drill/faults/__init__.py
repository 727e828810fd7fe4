"""All faults. Importing this fills `fault.FAULTS`, in this order."""

from __future__ import annotations

import importlib

for name in ("processes", "disks", "data"):
    importlib.import_module(f"{__name__}.{name}")
