"""Late data: looking for rows that came too late, what they concern and cost, what a held batch would change.

Rule: only source rows that arrived since the last look are read, and never into memory. What the ledger can derive is
not kept here.
"""

from __future__ import annotations

from feature_platform.late_data.scanning import scan, scan_all, sources_behind

__all__ = ["scan", "scan_all", "sources_behind"]
