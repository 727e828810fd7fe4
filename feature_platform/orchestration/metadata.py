"""What the UI shows of an asset: columns, code, owners; and per materialization the clocks and their gaps, as numbers.

Rule: a lag is a float of seconds under a stable name, because Dagster plots numbers over partitions and time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration.lineage import ColumnLineage
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView, Owner
from feature_platform.orchestration import keys

if TYPE_CHECKING:
    from feature_platform.ledger import BatchHistory
    from feature_platform.sync import SyncResult

_SYNC_COLUMNS = (
    "store", "from_position", "to_position", "entities", "written", "tombstones", "refused", "bytes", "seconds"
)  # fmt: skip


def owners(owner: Owner) -> list[str]:
    """Owners as Dagster takes them: an e-mail address."""
    return [owner.email] if "@" in owner.email else []


def tags(view: FeatureView) -> dict[str, str]:
    """Tags of a view's assets: dbt's own, and what people filter by."""
    own = dict.fromkeys(view.tags, "")
    return own | {"feature_platform/grain": view.grain.value, "feature_platform/access": view.access}


def table(titles: Sequence[str], rows: Iterable[Sequence[str | float]]) -> dg.TableMetadataValue:
    """A table with a column per title."""
    records = [dg.TableRecord(dict(zip(titles, row, strict=True))) for row in rows]
    # Dagster infers the columns and their types, where there are rows
    schema = None if records else dg.TableSchema(columns=[dg.TableColumn(title) for title in titles])
    return dg.MetadataValue.table(records, schema)


def view_metadata(view: FeatureView, project: Path, lineage: ColumnLineage | None = None) -> dict[str, Any]:
    """Static metadata of a view's asset."""
    traced = {"dagster/column_lineage": _column_lineage(lineage)} if lineage else {}
    return traced | {
        "dagster/column_schema": _columns(view, lineage),
        "dagster/relation_identifier": f"lake.batches.{view.table}",
        "dagster/code_references": _code(view, project),
        "feature_view": view.key,
        "entities": ", ".join(view.entity_names),
        "availability_delay": format_duration(view.availability_delay),
        "ttl": format_duration(view.ttl) if view.ttl else "none",
        "late_data": f"{view.late_data.policy.value} within {format_duration(view.late_data.window)}",
        "stale_after": _freshness(view),
    }


def service_metadata(service: FeatureService) -> dict[str, Any]:
    """Static metadata of a consumer."""
    latency = service.latency_budget
    return {
        "features": dg.MetadataValue.json({one.key: list(one.features) for one in service.selections}),
        "latency_budget_ms": latency.total_seconds() * 1000 if latency else "none",
        "batch_size": service.batch_size or "none",
        "freshness_needed": format_duration(service.freshness) if service.freshness else "none",
    }


def _freshness(view: FeatureView) -> str:
    bounds = {"warn": view.freshness.warn_after, "error": view.freshness.error_after}
    return ", ".join(f"{name} {format_duration(bound)}" for name, bound in bounds.items() if bound) or "never"


def _columns(view: FeatureView, lineage: ColumnLineage | None) -> dg.TableSchema:
    key = dg.TableColumnConstraints(nullable=False, other=["entity key"])
    stamp = dg.TableColumnConstraints(nullable=False)

    def described(column: Column) -> str:
        return "\n\n".join(filter(None, (column.description, _origin(view, column.name, lineage))))

    return dg.TableSchema(
        columns=[
            *(
                dg.TableColumn(column.name, column.type.value.lower(), described(column), key)
                for column in view.entities
            ),
            dg.TableColumn(EVENT_TIMESTAMP, "timestamp with time zone", "the instant as of which a row is true", stamp),
            *(dg.TableColumn(column.name, column.type.value.lower(), described(column)) for column in view.features),
        ]
    )


def _origin(view: FeatureView, column: str, lineage: ColumnLineage | None) -> str:
    """Which source columns a column is computed from, as Markdown; empty if it was not traced.

    Dagster's open UI shows no column lineage, so the description says it.
    """
    if lineage is None or column not in lineage.columns:
        return ""
    names = {source.unique_id: source.name for source in view.sources}
    read = [
        f"`{names.get(source, source)}`: {', '.join(f'`{name}`' for name in columns)}"
        for source, columns in lineage.columns[column].items()
    ]
    return f"From {'; '.join(read)}" if read else "From rows alone, no column"


def _column_lineage(lineage: ColumnLineage) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [
                dg.TableColumnDep(asset_key=keys.source_key_of(source), column_name=name)
                for source, names in read.items()
                for name in names
            ]
            for column, read in lineage.columns.items()
        }
    )


def _code(view: FeatureView, project: Path) -> dg.CodeReferencesMetadataValue:
    return dg.CodeReferencesMetadataValue(
        code_references=[
            dg.LocalFileCodeReference(file_path=str(project / "dbt_project" / path), label=label)
            for path, label in ((view.sql_path, "SQL"), (view.yaml_path, "declaration"))
        ]
    )


def batch_metadata(history: BatchHistory) -> dict[str, Any]:
    """Metadata of one published batch: its clocks, and the gaps between them."""
    ended = history.batch.partition.end
    entries: dict[str, Any] = {
        "dagster/partition_row_count": history.row_count or 0,
        "rows": history.row_count or 0,
        "bytes": history.byte_count or 0,
        "compute_seconds": history.compute_seconds or 0.0,
        "cpu_seconds": history.cpu_seconds or 0.0,
        "peak_memory_mb": (history.peak_memory_bytes or 0) / 2**20,
        "batch_id": history.batch.batch_id,
        "batch_seq": history.batch.seq,
        "position": history.position or 0,
        "event_timestamp": dg.MetadataValue.timestamp(ended),
    }
    clocks = {
        "source_watermark": history.source_watermark,
        "computed_at": history.computed_at,
        "published_at": history.published_at,
    }
    entries |= {name: dg.MetadataValue.timestamp(at) for name, at in clocks.items() if at is not None}
    entries |= _gaps(
        {
            "lag_event_to_published_seconds": (ended, history.published_at),
            "lag_source_to_published_seconds": (history.source_watermark, history.published_at),
            "lag_opened_to_computed_seconds": (history.opened_at, history.computed_at),
            "lag_computed_to_published_seconds": (history.computed_at, history.published_at),
        }
    )
    return entries


def sync_metadata(results: Sequence[SyncResult], *, ended_at: datetime) -> dict[str, Any]:
    """Metadata of syncs of one view: what the first store's asserted, how old its newest row is; a table of several."""
    result = results[0]
    entries: dict[str, Any] = {
        "store": result.store,
        "from_position": result.from_position,
        "to_position": result.to_position,
        "entities": result.entities,
        "written": result.written,
        "tombstones": result.tombstones,
        "refused": result.refused,
        "sync_seconds": result.seconds,
        "bytes_sent": result.bytes,
        "rows_per_second": round(result.entities / result.seconds) if result.seconds else 0,
    }
    if len(results) > 1:
        columns = (
            "store",
            "from_position",
            "to_position",
            "entities",
            "written",
            "tombstones",
            "refused",
            "bytes",
            "seconds",
        )
        entries["stores"] = table(columns, (attrgetter(*columns)(one) for one in results))
    if result.newest_event_timestamp is not None:
        entries["newest_event_timestamp"] = dg.MetadataValue.timestamp(result.newest_event_timestamp)
    return entries | _gaps({"lag_event_to_online_seconds": (result.newest_event_timestamp, ended_at)})


def _gaps(between: Mapping[str, tuple[datetime | None, datetime | None]]) -> dict[str, float]:
    return {
        name: (later - earlier) / timedelta(seconds=1)
        for name, (earlier, later) in between.items()
        if earlier is not None and later is not None
    }
