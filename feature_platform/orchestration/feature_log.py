"""The asset of what was served: each materialization drains the log that clients wrote into the lake.

Rule: unpartitioned and repeatable at any time; how far the log was taken over is committed with its rows. A tick that
finds nothing logged starts no run.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.orchestration import keys
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.settings import Settings

JOB = "drain_feature_log"
GROUP = "serving"
_TIMEOUT_SECONDS = 5.0


def build_feature_log(settings: Settings, registry: FeatureRegistry) -> dg.AssetsDefinition:
    """The asset of what was served, in whichever store."""

    @dg.asset(
        key=keys.feature_log_key(),
        description="What clients logged as served, one row per request, view and entity: `serving.served_features`.",
        deps=[keys.online_key(view) for view in registry.served_views],
        group_name=GROUP,
        kinds={"valkey", "duckdb"},
        pool=keys.LAKE_POOL,
    )
    def served_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        # imported here: it loads DuckDB and pyarrow, which definitions do not need
        from feature_platform.served_log import drain_stores

        with dagster_failures():
            results = drain_stores(settings, progress=lambda done, of: context.log.info(f"{done} of {of} requests"))
        for result in results:
            if result.lost or result.dropped or result.unreadable:
                context.log.warning(
                    f"store {result.store}: not in the lake: {result.lost} requests removed by the stream's cap,"
                    f" {result.dropped} dropped by clients, {result.unreadable} unreadable"
                )
        return dg.MaterializeResult(
            metadata={
                "stores": ", ".join(result.store for result in results),
                "requests": sum(result.entries for result in results),
                "rows": sum(result.rows for result in results),
                "lost": sum(result.lost for result in results),
                "dropped": sum(result.dropped for result in results),
                "unreadable": sum(result.unreadable for result in results),
            }
        )

    return served_features


def build_feature_log_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Every quarter of an hour, if something was logged; on by default."""

    @dg.schedule(
        name=JOB,
        job=dg.define_asset_job(
            JOB,
            selection=dg.AssetSelection.assets(keys.feature_log_key()),
            description="Brings what clients logged from the online store into the lake.",
        ),
        # away from the full and half hours, when views become due
        cron_schedule="8,23,38,53 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every quarter of an hour, if something was logged.",
    )
    def due(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        # imported here: they load libvalkey
        from feature_platform.errors import StoreUnavailableError
        from feature_platform.online.feature_log import waiting_entries
        from feature_platform.online.writable import open_store

        waiting, down = 0, []
        for url in settings.all_stores.values():
            try:
                with closing(open_store(url, _TIMEOUT_SECONDS)) as store:
                    waiting += waiting_entries(store)
            except StoreUnavailableError as error:  # an answer about the store, and no failure of the schedule
                down.append(str(error))
        if not waiting:
            yield dg.SkipReason("; ".join(down) or "nothing was logged")
            return
        yield dg.RunRequest(run_key=f"{JOB}:{context.scheduled_execution_time.isoformat()}")

    return due
