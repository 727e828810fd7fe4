"""Requests for runs of chosen partitions of views, as sensors and schedules make them."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from feature_platform.domain.feature_view import FeatureView, LatePolicy
from feature_platform.domain.windows import Partition
from feature_platform.orchestration import keys

RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def assets_of(views: Iterable[FeatureView], *, served: bool = True) -> list[dg.AssetKey]:
    """The assets of views and, unless they are not to be served, of their rows in the online stores."""
    views = tuple(views)
    online = [keys.online_key(view) for view in views if view.is_served] if served else []
    return [*map(keys.view_key, views), *online]


def request_range(
    view: FeatureView, span: tuple[Partition, ...], *, run_key: str, late_rows: bool = False
) -> dg.RunRequest:
    """One run of adjacent partitions, behind what is due now.

    Args:
        view: whose partitions.
        span: adjacent, in order of time.
        run_key: the same request is made once.
        late_rows: because of late rows: by the view's policy what passes waits for approval, and is not served.
    """
    ends = {} if len(span) == 1 else dict(zip(RANGE_TAGS, (span[0].key, span[-1].key), strict=True))
    holds = late_rows and view.late_data.policy is LatePolicy.VERSION
    late = {keys.LATE_TAG: "true"} if late_rows else {}
    held = {keys.HOLD_TAG: "true"} if holds else {}
    return dg.RunRequest(
        run_key=f"{view.key} {span[0].key} {span[-1].key} {run_key}",
        asset_selection=assets_of([view], served=not holds),
        partition_key=span[0].key if len(span) == 1 else None,
        tags={keys.PRIORITY_TAG: keys.LATE_PRIORITY, **ends, **late, **held},
    )
