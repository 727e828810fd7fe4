"""One asset per feature view for its leakage audit, with the check `no_leakage`; apart from the runs that compute it.

Rule: no run of a view waits for its audit. It is due when other code has published its first batch, and once a week,
because data that come in another way can make honest SQL leak. Its runs stand behind all others in the queue.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.orchestration import keys, metadata
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.orchestration.feature_views import group_name
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from feature_platform.audit import LeakageReport

JOB = "audit_leakage"
SENSOR = "audit_what_other_code_computed"
CHECK = "no_leakage"
_WEEKLY = "0 4 * * 0"
_SECONDS_BETWEEN_LOOKS = 300


def build_audit_asset(settings: Settings, view: FeatureView) -> dg.AssetsDefinition:
    """The asset that rebuilds a sample of a view's partitions with the future cut off."""

    @dg.asset(
        key=keys.audit_key(view),
        description=f"Leakage audit of {view.key}: rows rebuilt without the future, compared with full rebuilds.",
        deps=[keys.view_key(view)],
        group_name=group_name(view.group),
        owners=metadata.owners(view.owner),
        kinds={"dbt", "duckdb"},
        tags=metadata.tags(view),
        code_version=view.code_version,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=keys.audit_key(view),
                description="No feature of the sample uses a fact that was not knowable at its event_timestamp.",
            )
        ],
        pool=keys.LAKE_POOL,
        op_tags={keys.VIEW_TAG: view.key},
    )
    def audit(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        # imported here: it loads DuckDB and dbt, which definitions do not need
        from feature_platform.audit import audit_view

        with dagster_failures():
            report = audit_view(
                settings, view, on_progress=lambda now: context.log.info(f"{now.done}/{now.total} {now.doing}")
            )
        yield dg.MaterializeResult(metadata=_metadata(report), check_results=[_check_result(view, report)])

    return audit


def build_audit_job(registry: FeatureRegistry) -> "UnresolvedAssetJobDefinition":
    """The job of all audits."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*(keys.audit_key(view) for view in registry.views.values())),
        tags={keys.PRIORITY_TAG: keys.AUDIT_PRIORITY},
        description="Do features look into the future? The same as `feature-platform audit leakage`.",
    )


def build_audit_schedule(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """All audits, once a week."""
    return dg.ScheduleDefinition(
        name=f"{JOB}_weekly",
        job=job,
        cron_schedule=_WEEKLY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="All leakage audits, on Sunday mornings.",
    )


def build_audit_sensor(
    settings: Settings, registry: FeatureRegistry, job: "UnresolvedAssetJobDefinition"
) -> dg.SensorDefinition:
    """A sensor that asks for the audit of every view whose code has changed, once its batches are published."""

    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Audits a view when code that was not audited yet has published a batch.",
    )
    def due(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # imported here: it loads psycopg2
        from feature_platform.ledger import Ledger

        audited: dict[str, str] = json.loads(context.cursor or "{}")
        other = [view for view in registry.views.values() if audited.get(view.key) != view.code_version]
        with Ledger.connect(settings.ledger_url) as ledger:
            changed = [view for view in other if ledger.is_published_by(view.key, view.code_version)]
        if not changed:
            return dg.SkipReason("every view that other code computed is audited")
        audited |= {view.key: view.code_version for view in changed}
        request = dg.RunRequest(
            run_key=json.dumps({view.key: view.code_version for view in changed}, sort_keys=True),
            asset_selection=[keys.audit_key(view) for view in changed],
        )
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(audited))

    return due


def _check_result(view: FeatureView, report: "LeakageReport") -> dg.AssetCheckResult:
    from feature_platform.audit import Verdict

    words = {
        Verdict.CLEAN: "no feature of the sample leaks",
        Verdict.LEAKS: f"leaks: {', '.join(report.having(Verdict.LEAKS))}",
        Verdict.UNKNOWN: f"not known: {', '.join(report.having(Verdict.UNKNOWN))}",
    }
    return dg.AssetCheckResult(
        asset_key=keys.audit_key(view),
        check_name=CHECK,
        passed=report.verdict is Verdict.CLEAN,
        severity=dg.AssetCheckSeverity.ERROR if report.verdict is Verdict.LEAKS else dg.AssetCheckSeverity.WARN,
        description=words[report.verdict],
        metadata=_metadata(report),
    )


def _metadata(report: "LeakageReport") -> dict[str, Any]:
    """The verdicts as a table, and what it takes to see them again."""
    features = metadata.table(
        ("feature", "verdict", "arrival", "rows leaking", "rows late-informed", "through", "why unknown"),
        (
            (
                one.feature,
                one.verdict.value,
                one.arrival.value,
                one.rows_leaking,
                one.rows_late_informed,
                ", ".join(dict.fromkeys((*one.leaking_sources, *one.late_sources))),
                "; ".join(unknown.reason for unknown in one.unknown),
            )
            for one in report.features
        ),
    )
    instants = " ".join(f"--at {instant.isoformat()}" for instant in report.instants)
    return {
        "verdict": report.verdict.value,
        "arrival": report.arrival.value,
        "features": features,
        "rows": max((one.rows_compared for one in report.features), default=0),
        "instants": len(report.instants),
        "seconds": report.seconds,
        "again": f"feature-platform audit leakage {report.view} {instants}",
        "lake_snapshot": report.snapshot,
    }
