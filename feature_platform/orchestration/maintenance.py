"""The asset of the tables' upkeep: each materialization deletes what nobody needs any more, and merges what is left.

Rule: unpartitioned, repeatable at any time, and never in the way: it waits for runs and gives them their turn. That it
has not succeeded for long is said by Dagster's own freshness policy, which is right for an asset without partitions.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.orchestration import keys, metadata
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from feature_platform.maintenance import MaintenanceReport

JOB = "maintain_lake"
GROUP = "platform"
_NIGHTLY = "40 3 * * *"
_OVERDUE = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=2), fail_window=timedelta(days=4))


def build_maintenance(settings: Settings, registry: FeatureRegistry) -> dg.AssetsDefinition:
    """The asset that keeps the lake in order."""

    @dg.asset(
        key=keys.maintenance_key(),
        description="Rows deleted that nobody needs any more, files merged and sorted, files out of use removed. The"
        " same as `feature-platform maintain`.",
        group_name=GROUP,
        kinds={"duckdb", "postgres"},
        freshness_policy=_OVERDUE,
        pool=keys.LAKE_POOL,
    )
    def maintenance(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        # imported here: it loads DuckDB, which definitions do not need
        from feature_platform.maintenance import maintain

        with dagster_failures():
            report = maintain(settings, registry, progress=context.log.info)
        return dg.MaterializeResult(metadata=_metadata(report))

    return maintenance


def build_maintenance_job() -> "UnresolvedAssetJobDefinition":
    """The job of the upkeep."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(keys.maintenance_key()),
        tags={keys.PRIORITY_TAG: keys.AUDIT_PRIORITY},
        description="Deletes what nobody needs any more and merges files.",
    )


def build_maintenance_schedule(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Once a night; on by default."""
    return dg.ScheduleDefinition(
        name=f"{JOB}_nightly",
        job=job,
        cron_schedule=_NIGHTLY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="At a quiet hour. Runs go first: a slice of a table is written anew when none is alive.",
    )


def _metadata(report: "MaintenanceReport") -> Mapping[str, Any]:
    removed = report.files
    return {
        "rows_deleted": report.rows_deleted,
        "bytes_freed": (removed.bytes if removed else 0) or 0,
        "files_before": sum(table.before.count for table in report.tables),
        "files_after": sum(table.after.count for table in report.tables),
        "files_removed": removed.unused + removed.orphans if removed else 0,
        "tables": metadata.table(
            ("table", "retired", "rows deleted", "merged", "files before", "files after"),
            (
                (
                    table.table,
                    ", ".join(f"{count} {why.value}" for why, count in table.retired.items()) or "-",
                    str(table.rows_deleted),
                    ", ".join(table.merged) or "-",
                    str(table.before.count),
                    str(table.after.count),
                )
                for table in report.tables
            ),
        ),
        "kept": metadata.table(
            ("view", "batches", "rows", "why", "details"),
            (
                (table.table, str(one.batches), str(one.rows), one.why.value, ", ".join(one.details))
                for table in report.tables
                for one in table.kept
            ),
        ),
        "seconds": report.seconds,
    }
