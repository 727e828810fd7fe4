"""Sync: lake → online store.

Rule: the online store is a pure function of the ledger. Rules R1 to R7 of docs/reference/online-format.md.
"""

from feature_platform.sync.dropping import DropResult, drop
from feature_platform.sync.outcome import SyncResult
from feature_platform.sync.publishing import publish_schemas
from feature_platform.sync.runner import sync
from feature_platform.sync.stores import StoreOutcome, raise_failures, sync_stores

__all__ = [
    "DropResult",
    "StoreOutcome",
    "SyncResult",
    "drop",
    "publish_schemas",
    "raise_failures",
    "sync",
    "sync_stores",
]
