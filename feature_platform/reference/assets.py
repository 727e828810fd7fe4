"""Dagster's assets of the reference project's sources: a run makes visible what has arrived by now.

Rule: partitions are days of arrival (`ingested_at`), the running day included. A load closes every gap before it, so
it does not matter which partitions ran and in which order; `loaded_through` in the ledger says how far the data goes.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.windows import Grain, Partition, floor, parse_partition_key, partition_starting
from feature_platform.orchestration import keys
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.reference.transform import DBT_SOURCE, SOURCES, ReferenceSource
from feature_platform.settings import Settings

GROUP = "sources"
JOB = "load_sources"
_MINUTE = timedelta(minutes=1)


def build_reference_sources(settings: Settings, registry: FeatureRegistry) -> dg.Definitions | None:
    """The assets and the hourly schedule of the reference sources; None in a project that does not read them."""
    if not any(keys.source_key(source).path[0] == DBT_SOURCE for source in registry.sources.values()):
        return None
    begin = min(view.begin for view in registry.views.values())
    days = dg.DailyPartitionsDefinition(start_date=floor(begin, Grain.DAY).strftime("%Y-%m-%d"), end_offset=1)
    assets = [_build_source(settings, source, days) for source in SOURCES.values()]
    return dg.Definitions(assets=assets, schedules=[_build_schedule([asset.key for asset in assets])])


def _build_source(
    settings: Settings, source: ReferenceSource, days: dg.DailyPartitionsDefinition
) -> dg.AssetsDefinition:
    @dg.asset(
        key=[DBT_SOURCE, source.name],
        description=f"{', '.join(source.files)} of {DBT_SOURCE}: rows appear as their arrival instant passes.",
        group_name=GROUP,
        kinds={"csv", "duckdb"},
        partitions_def=days,
        # whatever the range, a load is one statement
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"reporting_lag_minutes": source.reporting_lag / _MINUTE, "key": ", ".join(source.key)},
        pool=keys.LAKE_POOL,
    )
    def load(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        # imported here: they load DuckDB and psycopg2, which definitions do not need
        from feature_platform.lake import connect
        from feature_platform.ledger import Ledger
        from feature_platform.reference.load import load_source

        partitions = [parse_partition_key(key, Grain.DAY) for key in context.partition_keys]
        with dagster_failures(), Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
            ledger.check_clock()  # ahead, it would promise rows that have not arrived, and no load would look for them
            after, through = arrival_bounds(partitions, now=datetime.now(UTC))
            loaded = load_source(
                lake, ledger, source.name, home=settings.home, through=through, after=after, run_id=context.run.run_id
            )
        context.log.info(f"{source.name}: {loaded.row_count} rows, complete through {through.isoformat()}")
        metadata: dict[str, Any] = {
            "rows": loaded.row_count,
            "loaded_through": dg.MetadataValue.timestamp(loaded.through),
            "lag_loaded_through_seconds": (datetime.now(UTC) - loaded.through).total_seconds(),
        }
        if loaded.watermark is not None:
            metadata["watermark"] = dg.MetadataValue.timestamp(loaded.watermark)
        return dg.MaterializeResult(metadata=metadata)

    return load


def arrival_bounds(partitions: list[Partition], *, now: datetime) -> tuple[datetime, datetime]:
    """The arrival instants (after, through] that partitions stand for; the future has not arrived.

    >>> today = partition_starting(datetime(2026, 3, 5, tzinfo=UTC), Grain.DAY)
    >>> [str(at) for at in arrival_bounds([today], now=datetime(2026, 3, 5, 7, tzinfo=UTC))]
    ['2026-03-05 00:00:00+00:00', '2026-03-05 07:00:00+00:00']
    """
    return min(one.start for one in partitions), min(now, max(one.end for one in partitions))


def _build_schedule(assets: list[dg.AssetKey]) -> dg.ScheduleDefinition:
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*assets),
        tags={keys.PRIORITY_TAG: keys.SCHEDULED_PRIORITY},
        description="Makes visible what has arrived by now.",
    )
    # rows known at the full hour have arrived when the longest reporting lag has passed
    minute = -(-max(source.reporting_lag for source in SOURCES.values()) // _MINUTE) % 60

    @dg.schedule(
        name=JOB,
        job=job,
        cron_schedule=f"{minute} * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Hourly, when what was known at the full hour has arrived.",
    )
    def arrived(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        at = context.scheduled_execution_time.astimezone(UTC)
        today = partition_starting(floor(at, Grain.DAY), Grain.DAY)
        yield dg.RunRequest(run_key=f"{JOB}:{at.isoformat()}", partition_key=today.key)

    return arrived
