"""One asset per served view for its parity in all stores, with the check `in_parity`; hourly, another sample each time.

Rule: no sync waits for it and none is started by it. What is merely late is a warning, because freshness judges that;
any other difference is an error. It repairs only where a person asks for it in the run's configuration.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from collections.abc import Iterator, Sequence
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

    from feature_platform.sync.parity import ParityReport

JOB = "check_parity"
CHECK = "in_parity"
_HOURLY = "50 * * * *"


class ParityConfig(dg.Config):
    """What a run may be asked for."""

    repair: bool = False
    """Bring the store back to what the ledger derives, if a difference is found."""
    full: bool = False
    """Compare every entity, not a sample."""


def build_parity_asset(settings: Settings, registry: FeatureRegistry, view: FeatureView) -> dg.AssetsDefinition:
    """The asset that compares a sample of a view's rows in the store with what the ledger derives."""

    @dg.asset(
        key=keys.parity_key(view),
        description=f"Rows of {view.key} in the online store, compared with what the ledger derives for them.",
        deps=[keys.online_key(view)],
        group_name=group_name(view.group),
        owners=metadata.owners(view.owner),
        kinds={"valkey", "duckdb"},
        tags=metadata.tags(view),
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=keys.parity_key(view),
                description="The online store answers for the sample what the ledger says it must.",
            )
        ],
        pool=keys.LAKE_POOL,
        op_tags={keys.VIEW_TAG: view.key},
    )
    def parity(context: dg.AssetExecutionContext, config: ParityConfig) -> Iterator[dg.MaterializeResult[Any]]:
        # imported here: it loads DuckDB and pyarrow, which definitions do not need
        from feature_platform.errors import FeaturePlatformError
        from feature_platform.ledger import Ledger
        from feature_platform.sync.parity import ParityReport, check_parity, repair

        reports: list[ParityReport] = []
        failed: FeaturePlatformError | None = None
        with dagster_failures(), Ledger.connect(settings.ledger_url) as ledger:
            for place in map(settings.at_store, settings.all_stores):
                found = ledger.open_difference(view.key, place.store)
                # what differed is looked at again, all of it, until it is found equal; else another sample each time
                again: dict[str, Any] = {} if found is None else {"seed": found.seed, "at_least": found.fraction}
                if config.full:
                    again["sample"] = None
                try:
                    report = check_parity(place, registry, view, **again)
                    if config.repair and report.differing:
                        context.log.warning(f"{report.differing} of {report.compared} rows differed; repairing")
                        report = repair(place, registry, report, run_id=context.run.run_id)
                except FeaturePlatformError as error:  # the others are compared all the same
                    failed = error
                else:
                    reports.append(report)
            if failed is not None:
                raise failed
        yield dg.MaterializeResult(metadata=_metadata(_worst(reports)), check_results=[_check_result(view, reports)])

    return parity


def build_parity_job(registry: FeatureRegistry) -> "UnresolvedAssetJobDefinition":
    """The job of all comparisons."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*(keys.parity_key(view) for view in registry.served_views)),
        tags={keys.PRIORITY_TAG: keys.AUDIT_PRIORITY},
        description="Does the online store hold what the ledger says? The same as `feature-platform parity`.",
    )


def build_parity_schedule(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """All comparisons, once an hour."""
    return dg.ScheduleDefinition(
        name=f"{JOB}_hourly",
        job=job,
        cron_schedule=_HOURLY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A sample of every served view, each hour another one.",
    )


def _worst(reports: "Sequence[ParityReport]") -> "ParityReport":
    return max(reports, key=lambda report: (bool(report.differing) and not report.only_late, report.differing))


def _check_result(view: FeatureView, reports: "Sequence[ParityReport]") -> dg.AssetCheckResult:
    """The verdict on all stores: the worst counts."""
    report = _worst(reports)
    where = f"store {report.store}: " if len(reports) > 1 else ""
    causes = ", ".join(f"{cause.value} {count}" for cause, count in report.causes.items() if count)
    return dg.AssetCheckResult(
        asset_key=keys.parity_key(view),
        check_name=CHECK,
        passed=not report.differing,
        severity=dg.AssetCheckSeverity.WARN if report.only_late else dg.AssetCheckSeverity.ERROR,
        description=f"{where}{report.differing} of {report.compared} rows differ: {causes}"
        if report.differing
        else f"{sum(one.compared for one in reports)} rows compared, none differs",
        metadata=_metadata(report),
    )


def _metadata(report: "ParityReport") -> dict[str, Any]:
    """The counts, the first differences, and what it takes to see them again."""
    differences = metadata.table(
        ("entity", "is", "cause", "because", "stored as of", "expected as of"),
        (
            (one.row, one.outcome.value, one.cause.value, one.why, str(one.stored_event or "-"),
             str(one.expected_event or "-"))
            for one in report.examples
        ),
    )  # fmt: skip
    size = "--full" if report.fraction >= 1 else f"--sample {round(report.fraction * report.entities)}"
    again = f"feature-platform parity {report.view} {size} --seed {report.seed}"
    return {
        "store": report.store,
        **{kind.value: report.outcomes.get(kind, 0) for kind in _kinds()},
        **{f"cause: {cause.value}": count for cause, count in report.causes.items() if count},
        "compared": report.compared,
        "pushed rows compared": report.pushed,
        "entities": report.entities,
        "store_position": report.places.store,
        "ledger_position": report.places.head,
        "differences": differences,
        "again": again,
        "seconds": report.seconds,
    }


def _kinds() -> tuple[Any, ...]:
    from feature_platform.sync.parity import Outcome

    return tuple(Outcome)
