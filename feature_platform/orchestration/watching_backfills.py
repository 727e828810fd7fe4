"""Backfills that Dagster gave up, and what they left undone: as problems, for the watch.

Rule: runs that failed speak for themselves. A backfill that is given up asks for no more of them, and no run says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.orchestration import keys
from feature_platform.orchestration.reasons import reason
from feature_platform.orchestration.watching_runs import LOOKED_BACK, Settled

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger
    from feature_platform.observability import Problem

_GIVEN_UP = [BulkActionStatus.FAILING, BulkActionStatus.FAILED]


def find_failed_backfills(
    instance: dg.DagsterInstance, ledger: Ledger, registry: FeatureRegistry, *, now: datetime
) -> Iterator[Problem]:
    """Backfills that were given up and whose partitions were not all published since, one problem per view of each."""
    from feature_platform.observability import problem_of_view

    settled = Settled(ledger)
    views = keys.views_by_key(registry.views.values())
    for backfill in instance.get_backfills(
        filters=BulkActionsFilter(statuses=_GIVEN_UP, created_after=now - LOOKED_BACK)
    ):
        asked_at = datetime.fromtimestamp(backfill.backfill_timestamp, tz=now.tzinfo)
        for view, wanted in _wanted(backfill, views):
            left = wanted - settled.since(view, asked_at)
            if left:
                yield problem_of_view(
                    "run_failed",
                    view,
                    registry,
                    place=f"backfill {backfill.backfill_id}",
                    severity="error",
                    message=f"{view.key}: backfill {backfill.backfill_id} was given up, and {len(left)} of its"
                    f" {len(wanted)} partition(s) are not published since ({min(left)} to {max(left)}):"
                    f" {reason(backfill.error)}",
                )


def _wanted(
    backfill: PartitionBackfill, views: dict[dg.AssetKey, FeatureView]
) -> Iterator[tuple[FeatureView, set[str]]]:
    data = backfill.asset_backfill_data
    if data is not None:
        for key, subset in data.target_subset.partitions_subsets_by_asset_key.items():
            if key in views:
                yield views[key], set(subset.get_partition_keys())
