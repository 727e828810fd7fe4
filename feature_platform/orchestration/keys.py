"""Names in Dagster: asset keys, jobs, groups, pools, tags. In one place, because runs and history hang on them.

Rule: a name never depends on what else is declared, so a second version of a view changes nothing of the first one's.
Version 1 has the bare name; later versions end in `_v<n>`.
"""

from __future__ import annotations

import dagster as dg

from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView, Source

LAKE_POOL = "lake"
"""Ops that compute in DuckDB: each may take the memory limit."""
ONLINE_POOL = "online_store"

VIEW_TAG = "feature_platform/view"
PRIORITY_TAG = "dagster/priority"
SCHEDULED_PRIORITY = "10"
"""Runs of schedules overtake queued backfills; `tag_concurrency_limits` of `dagster/backfill` leaves them room."""


def asset_name(view: FeatureView) -> str:
    """The view's name in Dagster.

    `carrier_delays` for version 1, `carrier_delays_v2` for version 2.
    """
    return view.name if view.version == 1 else f"{view.name}_v{view.version}"


def view_key(view: FeatureView) -> dg.AssetKey:
    """The asset of the view's published batches."""
    return dg.AssetKey([asset_name(view)])


def online_key(view: FeatureView) -> dg.AssetKey:
    """The asset of the view's rows in the online store."""
    return dg.AssetKey(["online", asset_name(view)])


def source_key(source: Source) -> dg.AssetKey:
    """The asset of a source table, under dbt's two names for it: `nycflights13/flights`."""
    return dg.AssetKey(source.unique_id.split(".")[-2:])


def service_key(service: FeatureService) -> dg.AssetKey:
    """The asset that stands for a consumer."""
    return dg.AssetKey(["service", service.name])
