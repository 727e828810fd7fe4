"""One asset per served feature view: its rows in the online store, brought to the ledger's head.

Rule: unpartitioned, because the unit of a sync is (view version, store), never a partition. A run of the view's job
syncs in the same run; whatever else publishes (a backfill, a run by hand) is followed by the automation condition,
once, when the view is no longer in progress. What a sync may write is decided by the ledger alone.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.orchestration import keys, metadata
from feature_platform.orchestration.connections import keep_connections
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.orchestration.feature_views import group_name
from feature_platform.orchestration.freshness import freshness_result, freshness_spec, native_freshness
from feature_platform.settings import Settings

SYNC_SENSOR = "sync_what_was_published"
_SECONDS_BETWEEN_LOOKS = 30
_FAILED_AGAIN = "7,37 * * * *"


def after_publishing() -> dg.AutomationCondition[Any]:
    """When a sync of its own is due: batches were published by runs that did not sync, and nothing is under way.

    Missing partitions of the view do not matter (`eager()` would wait for them for ever); a backfill in progress
    does, so that it is followed by one sync and not by one per run. A sync that failed is asked for again for as long
    as it takes: a store that was away is not left behind until the next publish, which may be a day later.
    """
    condition = dg.AutomationCondition
    published = condition.any_deps_updated().since(condition.newly_requested() | condition.newly_updated())
    failed = condition.execution_failed() & condition.cron_tick_passed(_FAILED_AGAIN)
    return ((published | failed) & ~condition.in_progress() & ~condition.any_deps_in_progress()).with_label(
        "after_publishing"
    )


def build_online_asset(settings: Settings, registry: FeatureRegistry, view: FeatureView) -> dg.AssetsDefinition:
    """The asset of a view's rows in the online store."""

    @dg.asset(
        key=keys.online_key(view),
        description=f"Rows of {view.key} in the online store, at the ledger's head.",
        deps=[keys.view_key(view)],
        group_name=group_name(view.group),
        owners=metadata.owners(view.owner),
        kinds={"valkey"},
        tags=metadata.tags(view),
        metadata={"feature_view": view.key, "entities": ", ".join(view.entity_names)},
        freshness_policy=native_freshness(view.freshness),
        automation_condition=after_publishing(),
        check_specs=[freshness_spec(view)],
        pool=keys.ONLINE_POOL,
        op_tags={keys.VIEW_TAG: view.key},
    )
    def online(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        # imported here: it loads DuckDB and pyarrow, which definitions do not need
        from feature_platform.ledger import Ledger
        from feature_platform.materialization import dbt_run
        from feature_platform.sync import raise_failures, sync_stores

        keep_connections(context.instance)
        with dagster_failures(), Ledger.connect(settings.ledger_url) as ledger, ExitStack() as left:
            # a run that has computed has the lake open already, which takes a quarter of a second
            lake = dbt_run.opened_lake()
            if lake is not None:
                left.enter_context(lake)
            behind = True
            # what another run publishes meanwhile, Dagster would take for followed by this sync's materialization
            while behind:
                outcomes = sync_stores(settings, registry, [view], run_id=context.run.run_id, lake=lake)
                results = [outcome.result for outcome in outcomes if outcome.result is not None]
                for result in results:
                    reached = f"{result.from_position} → {result.to_position}"
                    context.log.info(f"{view.key} in store {result.store}: {reached}")
                # the stores that can be reached are at the head; the run is repeated for those that cannot
                raise_failures(outcomes)
                behind = ledger.head(view.key) > min(result.to_position for result in results)
            fresh = freshness_result(settings, view, ledger, now=ledger.now())
        yield dg.MaterializeResult(
            metadata=metadata.sync_metadata(results, ended_at=datetime.now(UTC)), check_results=[fresh]
        )

    return online


def build_sync_sensor(registry: FeatureRegistry) -> dg.AutomationConditionSensorDefinition:
    """The sensor that follows publishes with syncs."""
    return dg.AutomationConditionSensorDefinition(
        name=SYNC_SENSOR,
        target=dg.AssetSelection.assets(*(keys.online_key(view) for view in registry.served_views)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        run_tags={keys.PRIORITY_TAG: keys.SCHEDULED_PRIORITY},
        description="Brings the online store to the ledger's head after backfills and runs by hand.",
    )
