"""One asset per feature view: compute the batches of a run's partitions, audit them, publish them. Green = published.

Rule: one op and no step between. Whatever the platform refuses fails the step, and nothing of the run's chunk is
published; the ledger, not Dagster, is what serving and training go by.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

import re
import time
from collections.abc import Iterator, Mapping
from logging import WARNING
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.declaration.lineage import ColumnLineage
from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.feature_view import FeatureView, LatePolicy
from feature_platform.domain.windows import Partition, parse_partition_key
from feature_platform.errors import without_passwords
from feature_platform.orchestration import keys, metadata, timetable
from feature_platform.orchestration.checks import check_results, check_specs
from feature_platform.orchestration.connections import keep_connections
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.orchestration.freshness import freshness_result, freshness_spec, native_freshness
from feature_platform.orchestration.keys import HOLD_TAG, LATE_TAG
from feature_platform.orchestration.profiles import profile_metadata
from feature_platform.quality import history_of
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.ledger import BatchHistory, Ledger
    from feature_platform.materialization import OnEvent, RunEvent

_QUIET_SECONDS = 5.0
ViewResult = dg.AssetCheckResult | dg.MaterializeResult[Any]


def group_name(name: str) -> str:
    """The dbt group as Dagster allows a group's name."""
    return re.sub(r"\W", "_", name)


def build_feature_view(
    settings: Settings,
    registry: FeatureRegistry,
    view: FeatureView,
    manifest: Mapping[str, Any],
    *,
    lineage: ColumnLineage | None = None,
) -> dg.AssetsDefinition:
    """The asset of one version of a feature view."""
    specs = check_specs(manifest, view)
    # what is served is judged where it is served
    is_judged_here = not view.is_served

    @dg.asset(
        key=keys.view_key(view),
        description=view.description,
        deps=[keys.source_key(source) for source in view.sources],
        partitions_def=timetable.partitions_definition(view.grain, view.begin),
        backfill_policy=timetable.backfill_policy(view.grain),
        group_name=group_name(view.group),
        owners=metadata.owners(view.owner),
        kinds={"dbt", "duckdb"},
        tags=metadata.tags(view),
        metadata=metadata.view_metadata(view, settings.project, lineage),
        code_version=view.code_version,
        freshness_policy=native_freshness(view.freshness) if is_judged_here else None,
        check_specs=[*specs, *([freshness_spec(view)] if is_judged_here else [])],
        pool=keys.LAKE_POOL,
        op_tags={keys.VIEW_TAG: view.key},
    )
    def feature_view(context: dg.AssetExecutionContext) -> Iterator[ViewResult]:
        keep_connections(context.instance)
        partitions = tuple(parse_partition_key(key, view.grain) for key in context.partition_keys)
        failure = _materialize(context, settings, registry, view, partitions)
        # imported here: the ledger loads psycopg2, which definitions do not need
        from feature_platform.ledger import Ledger

        with dagster_failures(), Ledger.connect(settings.ledger_url) as ledger:
            written = _written(ledger, view, context.run.run_id, partitions)
            outcomes = _outcomes(ledger, written) if specs else ()
            profiles = {} if failure is not None else _profiles(ledger, view, written, outcomes)
            fresh = freshness_result(settings, view, ledger, now=ledger.now()) if is_judged_here else None
        yield from check_results(outcomes, key=keys.view_key(view), specs=specs, batches=(one.batch for one in written))
        if fresh is not None:
            yield fresh
        if failure is not None:
            raise failure
        for history in written:
            context.add_asset_metadata(
                metadata.batch_metadata(history) | profiles.get(history.batch.batch_id, {}),
                keys.view_key(view),
                partition_key=history.batch.partition.key,
            )
        yield dg.MaterializeResult(asset_key=keys.view_key(view))

    return feature_view


def _materialize(
    context: dg.AssetExecutionContext,
    settings: Settings,
    registry: FeatureRegistry,
    view: FeatureView,
    partitions: tuple[Partition, ...],
) -> dg.Failure | None:
    """Compute, audit and publish; the failure, if it is a final one, so that checks can be said first."""
    # imported here: it loads dbt and DuckDB, which definitions do not need
    from feature_platform.materialization import materialize

    holds = _holds(context.run.tags, view)
    try:
        with dagster_failures():
            result = materialize(
                settings,
                registry,
                view,
                partitions,
                run_id=context.run.run_id,
                hold=holds,
                on_event=_log_events(context.log),
            )
        phases = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in result.seconds.items())
        done = "held for approval" if holds else "published"
        context.log.info(f"{view.key}: {result.row_count} rows {done} ({phases})")
    except dg.Failure as failure:
        return failure
    return None


def _holds(tags: Mapping[str, str], view: FeatureView) -> bool:
    """Whether the batches wait for approval: that was asked for, or is the policy by now that late rows ask under.

    A code location that was not restarted since a deploy asks under the policy of before.
    """
    return HOLD_TAG in tags or (LATE_TAG in tags and view.late_data.policy is LatePolicy.VERSION)


def _log_events(log: dg.DagsterLogManager) -> "OnEvent":
    """Says what dbt warns of, and the steps of a run that takes its time: every line is a commit to Postgres.

    The line at the end has the seconds of all of them.
    """
    said = -_QUIET_SECONDS  # the first step is said

    def on_event(event: "RunEvent") -> None:
        nonlocal said
        if event.dbt is not None:
            if event.dbt.info.level in ("warn", "error"):
                log.log(WARNING, without_passwords(event.dbt.info.msg))
        elif event.batches and time.monotonic() - said >= _QUIET_SECONDS:
            said = time.monotonic()
            log.info(f"{event.view}: {event.step}, {len(event.batches)} batch(es)")

    return on_event


def _written(
    ledger: "Ledger", view: FeatureView, run_id: str, partitions: tuple[Partition, ...]
) -> "tuple[BatchHistory, ...]":
    """The batch this run wrote for each partition; of several attempts the last."""
    newest: dict[Partition, BatchHistory] = {}
    for history in ledger.batches(view.key, run_id=run_id):  # newest first
        newest.setdefault(history.batch.partition, history)
    return tuple(newest[partition] for partition in partitions if partition in newest)


def _outcomes(ledger: "Ledger", written: "tuple[BatchHistory, ...]") -> tuple[CheckOutcome, ...]:
    return ledger.checks(*(history.batch.batch_id for history in written))


def _profiles(
    ledger: "Ledger", view: FeatureView, written: "tuple[BatchHistory, ...]", outcomes: tuple[CheckOutcome, ...]
) -> dict[str, dict[str, Any]]:
    """What is shown of the values of each batch, by its id."""
    profiles = ledger.profiles(record.batch.batch_id for record in written)
    history = history_of(view, written, profiles, outcomes, tested={})
    return {one.record.batch.batch_id: profile_metadata(view, one) for one in history}
