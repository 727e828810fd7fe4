"""Asset keys, pools and tags: the names of `names` as Dagster takes them."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.training_set import DeclaredTrainingSet
from feature_platform.orchestration.names import (
    audit_path,
    exposure_path,
    feature_log_path,
    maintenance_path,
    online_path,
    parity_path,
    pushed_path,
    service_path,
    source_path,
    source_path_of,
    training_set_path,
    view_path,
)

LAKE_POOL = "lake"
"""Ops that compute in DuckDB: each may take the memory limit."""
ONLINE_POOL = "online_store"

VIEW_TAG = "feature_platform/view"
PRIORITY_TAG = "dagster/priority"
HOLD_TAG = "feature_platform/hold"
"""On a run: its audited batches are kept for approval instead of being published (`late_data.policy: version`)."""
LATE_TAG = "feature_platform/late"
"""On a run: it is asked for because of late rows, so the view's `late_data.policy` says what becomes of its batches."""
SCHEDULED_PRIORITY = "10"
"""Runs of schedules overtake queued backfills; `tag_concurrency_limits` of `dagster/backfill` leaves them room."""
LATE_PRIORITY = "-5"
"""Recomputations for late rows wait for what is due, and for what people ask for."""
AUDIT_PRIORITY = "-10"
"""An audit can wait for everything else."""


def views_by_key(views: Iterable[FeatureView]) -> dict[dg.AssetKey, FeatureView]:
    """Views by the keys of their assets."""
    return {view_key(view): view for view in views}


def view_key(view: FeatureView) -> dg.AssetKey:
    """The asset of the view's published batches."""
    return dg.AssetKey(view_path(view))


def online_key(view: FeatureView) -> dg.AssetKey:
    """The asset of the view's rows in the online store."""
    return dg.AssetKey(online_path(view))


def audit_key(view: FeatureView) -> dg.AssetKey:
    """The asset of the view's last leakage audit."""
    return dg.AssetKey(audit_path(view))


def parity_key(view: FeatureView) -> dg.AssetKey:
    """The asset of the last comparison of the view's served rows with the ledger."""
    return dg.AssetKey(parity_path(view))


def pushed_key(view: FeatureView) -> dg.AssetKey:
    """The asset of the rows pushed to the view, in the lake."""
    return dg.AssetKey(pushed_path(view))


def source_key(source: Source) -> dg.AssetKey:
    """The asset of a source table, under dbt's two names for it: `nycflights13/flights`."""
    return dg.AssetKey(source_path(source))


def source_key_of(unique_id: str) -> dg.AssetKey:
    """The same, by dbt's unique id of the source."""
    return dg.AssetKey(source_path_of(unique_id))


def service_key(service: FeatureService) -> dg.AssetKey:
    """The asset that stands for a consumer."""
    return dg.AssetKey(service_path(service))


def exposure_key(name: str) -> dg.AssetKey:
    """The asset that stands for a consumer that is no feature service."""
    return dg.AssetKey(exposure_path(name))


def feature_log_key() -> dg.AssetKey:
    """The asset of what was served, as clients logged it."""
    return dg.AssetKey(feature_log_path())


def maintenance_key() -> dg.AssetKey:
    """The asset of the tables' upkeep."""
    return dg.AssetKey(maintenance_path())


def training_set_key(declared: DeclaredTrainingSet) -> dg.AssetKey:
    """The asset of a declared training set."""
    return dg.AssetKey(training_set_path(declared))
