"""One asset per view that takes pushes: its pushed rows in the lake, where training finds them, and in every store.

Rule: unpartitioned and repeatable at any time; how far the pushes were taken over is committed with their rows. A tick
that finds nothing new starts no run.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from collections.abc import Iterator
from typing import Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.orchestration import keys, metadata
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.orchestration.feature_views import group_name
from feature_platform.settings import Settings

JOB = "drain_pushes"
_THROUGH = "through_push"


def pushable_views(registry: FeatureRegistry) -> tuple[FeatureView, ...]:
    """The views that take pushes."""
    return tuple(view for view in registry.views.values() if view.push)


def build_pushed_asset(settings: Settings, registry: FeatureRegistry, view: FeatureView) -> dg.AssetsDefinition:
    """The asset of the rows pushed to a view."""

    @dg.asset(
        key=keys.pushed_key(view),
        description=f"Rows pushed to {view.key}, taken over from the ledger: `pushed.{view.table}` in the lake.",
        group_name=group_name(view.group),
        owners=metadata.owners(view.owner),
        kinds={"postgres", "duckdb"},
        tags=metadata.tags(view),
        pool=keys.LAKE_POOL,
        op_tags={keys.VIEW_TAG: view.key},
    )
    def pushed(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        # imported here: it loads DuckDB and pyarrow, which definitions do not need
        from feature_platform.sync.push import drain_pushes, reach_stores

        with dagster_failures():
            result = drain_pushes(settings, view, progress=lambda rows: context.log.info(f"{rows} rows"))
            # as long as a store has not got them nothing is materialized, and the next tick asks again
            reach_stores(settings, registry, view)
        return dg.MaterializeResult(
            metadata={
                "pushes": result.pushes,
                "rows": result.rows,
                _THROUGH: result.through,
                "forgotten_by_the_ledger": result.forgotten,
            }
        )

    return pushed


def build_pushes_schedule(settings: Settings, registry: FeatureRegistry) -> dg.ScheduleDefinition:
    """Every quarter of an hour, for the views that something was pushed to; on by default."""
    views = pushable_views(registry)

    @dg.schedule(
        name=JOB,
        job=dg.define_asset_job(
            JOB,
            selection=dg.AssetSelection.assets(*map(keys.pushed_key, views)),
            description="Takes pushed rows over from the ledger into the lake.",
        ),
        # away from the full and half hours, when views become due
        cron_schedule="11,26,41,56 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every quarter of an hour, for the views that something was pushed to since.",
    )
    def due(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        # imported here: it loads psycopg2
        from feature_platform.ledger import Ledger

        with Ledger.connect(settings.ledger_url) as ledger:
            waiting = [view for view in views if ledger.last_push(view.key) > _through(context.instance, view)]
        if not waiting:
            yield dg.SkipReason("nothing was pushed")
            return
        yield dg.RunRequest(
            run_key=f"{JOB}:{context.scheduled_execution_time.isoformat()}",
            asset_selection=[keys.pushed_key(view) for view in waiting],
        )

    return due


def _through(instance: dg.DagsterInstance, view: FeatureView) -> int:
    """Number of the last push that a materialization found; 0 before the first."""
    event = instance.get_latest_materialization_event(keys.pushed_key(view))
    found = event.asset_materialization.metadata.get(_THROUGH) if event and event.asset_materialization else None
    return found.value if isinstance(found, dg.IntMetadataValue) and found.value else 0
