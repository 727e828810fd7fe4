"""Maintenance: what nobody needs any more is deleted, what is left is merged and sorted, and files out of use go.

Rule: the ledger decides (`domain.retention`), the record comes before the deletion, and every step may be repeated: a
run that died anywhere is finished by the next one.
"""

from __future__ import annotations

from feature_platform.maintenance.report import KeptBatches, MaintenanceReport, TableReport
from feature_platform.maintenance.running import LOCK_WAIT, maintain

__all__ = ["LOCK_WAIT", "KeptBatches", "MaintenanceReport", "TableReport", "maintain"]
