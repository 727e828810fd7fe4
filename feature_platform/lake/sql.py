"""SQL of the lake as values: quoting, the physical table of a feature view, what a deploy has to change.

Rule: nothing here runs SQL. Identifiers go through `quote_identifier`; values are parameters wherever DuckDB takes
them and `quote_literal` where it does not (ATTACH, options).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.domain.types import ColumnType, FeatureType, in_lake, parse_column_type
from feature_platform.domain.windows import Grain
from feature_platform.errors import Finding

SOURCES_SCHEMA = "sources"
STAGING_SCHEMA = "staging"
BATCHES_SCHEMA = "batches"
SERVING_SCHEMA = "serving"
PUSHED_SCHEMA = "pushed"
SCHEMAS = (SOURCES_SCHEMA, STAGING_SCHEMA, BATCHES_SCHEMA, SERVING_SCHEMA, PUSHED_SCHEMA)

ROW_GROUP_OPTION = "parquet_row_group_size"

BATCH_ID = "_batch_id"
PARTITION_START = "_partition_start"

# DuckLake writes one file per distinct partition value and insert: `identity(_partition_start)` would make a backfill
# of 90 days 90 files (measured: docs/reference/lake.md). DuckLake's `day` is the day of the month, hence the rows.
_PARTITIONING = {
    Grain.HOUR: ("year", "month", "day"),
    Grain.DAY: ("year", "month"),
    Grain.MONTH: ("year",),
}


# whoever reads a row group holds its columns, a thread each: 122,880 embeddings would be hundreds of megabytes
_GROUP_BYTES = 32 << 20
_GROUP_ROWS = 122_880
_VECTOR_ROWS = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """A column of a physical table."""

    name: str
    type: FeatureType
    nullable: bool


def quote_identifier(name: str) -> str:
    """The name as an SQL identifier.

    >>> print(quote_identifier('odd "name" here'))
    "odd ""name"" here"
    """
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """The text as an SQL string, for the places that take no parameters.

    >>> quote_literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def quote_instant(instant: datetime) -> str:
    """The instant as an SQL literal: DuckLake skips files by literals only, not by parameters.

    >>> quote_instant(datetime(2026, 3, 5, 7, tzinfo=UTC))
    "timestamptz '2026-03-05T07:00:00+00:00'"
    """
    return f"timestamptz {quote_literal(instant.astimezone(UTC).isoformat())}"


def qualified(schema: str, table: str) -> str:
    """A table of the lake, fully qualified.

    >>> qualified("batches", "carrier_delays_v1")
    '"lake"."batches"."carrier_delays_v1"'
    """
    return ".".join(quote_identifier(part) for part in ("lake", schema, table))


def batches_table(view: FeatureView) -> str:
    """The view's physical table, quoted and qualified."""
    return qualified(BATCHES_SCHEMA, view.table)


def batches_rows(view: FeatureView, batches: Sequence[Batch]) -> str:
    """The rows of these batches as a subquery.

    Literals, not parameters: DuckLake skips files by literals only, and the first parameter that a process binds makes
    DuckDB import pandas and pyarrow (two seconds).
    """
    starts = [batch.partition.start for batch in batches]
    ids = ", ".join(quote_literal(batch.batch_id) for batch in batches)
    return (
        f"(select * from {batches_table(view)} where {PARTITION_START} between {quote_instant(min(starts))}"
        f" and {quote_instant(max(starts))} and {BATCH_ID} in ({ids}))"
    )


def table_columns(view: FeatureView) -> tuple[TableColumn, ...]:
    """All columns of the view's physical table: keys, event time, features, batch id, partition start."""
    return (
        *(TableColumn(name=column.name, type=column.type, nullable=False) for column in view.entities),
        TableColumn(name=EVENT_TIMESTAMP, type=ColumnType.TIMESTAMPTZ, nullable=False),
        *(TableColumn(name=column.name, type=in_lake(column.type), nullable=True) for column in view.features),
        TableColumn(name=BATCH_ID, type=ColumnType.VARCHAR, nullable=False),
        TableColumn(name=PARTITION_START, type=ColumnType.TIMESTAMPTZ, nullable=False),
    )


def build_create_table(view: FeatureView) -> tuple[str, ...]:
    """The statements that create the view's empty physical table and set its file layout."""
    columns = ", ".join(
        f"{quote_identifier(column.name)} {column.type.value}{'' if column.nullable else ' not null'}"
        for column in table_columns(view)
    )
    return (
        f"create table {batches_table(view)} ({columns})",
        f"alter table {batches_table(view)} set partitioned by ({partitioning(view.grain)})",
    )


def rows_per_group(row_bytes: int) -> int:
    """How many rows a row group of a file has: DuckDB's own number, or fewer where rows take many bytes.

    A multiple of DuckDB's vectors.
    """
    rows = min(_GROUP_ROWS, _GROUP_BYTES // row_bytes)
    return max(_VECTOR_ROWS, rows - rows % _VECTOR_ROWS)


def build_row_group_option(view: FeatureView, existing: Mapping[str, str]) -> tuple[str, ...]:
    """The statement that sets how many rows a row group of the view's table has; none if that is so already.

    Args:
        view: the view. Its table was committed before: DuckLake takes no options of tables of the same transaction.
        existing: the option as it is, for each table that has it.
    """
    rows = rows_per_group(view.row_bytes)
    if int(existing.get(view.table, _GROUP_ROWS)) == rows:
        return ()
    named = f"schema => {quote_literal(BATCHES_SCHEMA)}, table_name => {quote_literal(view.table)}"
    return (f"call lake.set_option('{ROW_GROUP_OPTION}', {rows}, {named})",)


def partition_keys(grain: Grain) -> int:
    """How many of year, month and day the partition keys of a table of this grain are."""
    return len(_PARTITIONING[grain])


def partitioning(grain: Grain) -> str:
    """The partition keys of a table of this grain.

    >>> partitioning(Grain.DAY)
    'year("_partition_start"), month("_partition_start")'
    """
    return ", ".join(f"{transform}({quote_identifier(PARTITION_START)})" for transform in _PARTITIONING[grain])


def build_add_columns(view: FeatureView, existing: Mapping[str, str]) -> tuple[str, ...]:
    """The statements that append the features the table does not have yet; older rows read as NULL."""
    return tuple(
        f"alter table {batches_table(view)} add column {quote_identifier(column.name)} {in_lake(column.type).value}"
        for column in view.features
        if column.name not in existing
    )


def find_breaking_changes(view: FeatureView, existing: Mapping[str, str]) -> tuple[Finding, ...]:
    """Why the declared view does not fit the table it has: batches are never rewritten, so only features may be added.

    Args:
        view: the view as declared.
        existing: columns of the physical table, name to DuckDB type.
    """
    declared = {column.name: column for column in table_columns(view)}
    findings = [
        _breaking(view, f"column {name} was removed", found=f"deployed with {name} {kind}")
        for name, kind in existing.items()
        if name not in declared
    ]
    for name, column in declared.items():
        if name not in existing:
            if not column.nullable:
                findings.append(_breaking(view, f"entity {name} was added", found=f"keys of the table lack {name}"))
        elif parse_column_type(existing[name]) != column.type:
            findings.append(
                _breaking(
                    view, f"column {name} changed its type", found=f"{existing[name]} deployed, {column.type} declared"
                )
            )
    # keys stand before event_timestamp: the order of the table tells what was a key
    deployed = tuple(existing)[: list(existing).index(EVENT_TIMESTAMP)] if EVENT_TIMESTAMP in existing else ()
    if deployed != view.entity_names and not findings:
        found = f"({', '.join(deployed)}) deployed, ({', '.join(view.entity_names)}) declared"
        findings.append(_breaking(view, "the entities changed", found=found))
    return tuple(findings)


def _breaking(view: FeatureView, problem: str, *, found: str) -> Finding:
    return Finding(
        file=view.yaml_path,
        node=view.key,
        problem=problem,
        found=found,
        allowed="within a version, features may be added; nothing else changes",
        hint=f"keep version {view.version} as it is and declare version {view.version + 1} of {view.name}",
    )
