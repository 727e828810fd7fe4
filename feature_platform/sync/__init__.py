"""Sync: lake → online store.

Rule: the online store is a pure function of the ledger. Rules R1 to R7 of docs/reference/online-format.md.
"""

from feature_platform.sync.publishing import publish_schemas
from feature_platform.sync.runner import SyncResult, sync

__all__ = ["SyncResult", "publish_schemas", "sync"]
