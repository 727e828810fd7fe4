"""Late data: looking for rows that came too late, what they concern and cost, what a held batch would change.

Rule: only source rows that arrived since the last look are read, and never into memory. What the ledger can derive is
not kept here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_platform.late_data.chain import Interval, next_interval, readers, scannable, sources_behind
from feature_platform.late_data.preview import LateEntry, LateReport, SourceLateness, partitions_by_state, preview

if TYPE_CHECKING:
    from feature_platform.late_data.comparing import BatchDifference, compare_batches
    from feature_platform.late_data.scanning import scan, scan_all

__all__ = [
    "BatchDifference",
    "Interval",
    "LateEntry",
    "LateReport",
    "SourceLateness",
    "compare_batches",
    "next_interval",
    "partitions_by_state",
    "preview",
    "readers",
    "scan",
    "scan_all",
    "scannable",
    "sources_behind",
]


def __getattr__(name: str) -> Any:
    """Load DuckDB only for whoever reads the lake; sensors and `status` ask the ledger alone."""
    if name in ("scan", "scan_all"):
        from feature_platform.late_data import scanning

        return getattr(scanning, name)
    if name in ("BatchDifference", "compare_batches"):
        from feature_platform.late_data import comparing

        return getattr(comparing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
