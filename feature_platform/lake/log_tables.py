"""The log's tables in the lake, as SQL values: only deploy creates them.

Rule: append-only. `drains` says how far the stream of each store was taken over; it is committed together with the
rows, so what a drain that died has written is either there with its mark or not there at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from feature_platform.lake.sql import SERVING_SCHEMA as SCHEMA
from feature_platform.lake.sql import qualified, quote_identifier

SERVED: Final = "served_features"
DRAINS: Final = "drains"

_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    SERVED: {
        "store": "varchar not null",
        "entry_id": "varchar not null",
        "request_id": "varchar not null",
        "requested_at": "timestamptz not null",
        "asked": "varchar not null",
        "view": "varchar not null",
        "entity_number": "integer not null",
        "entity_key": "varchar not null",
        "status": "varchar not null",
        "position": "bigint",
        "event_timestamp": "timestamptz",
        "values": "varchar",
    },
    DRAINS: {
        "store": "varchar not null",
        "through_ms": "bigint not null",
        "through_number": "bigint not null",
        "entries_added": "bigint not null",
        "entries": "bigint not null",
        "unreadable": "bigint not null",
        "lost": "bigint not null",
        "dropped": "bigint not null",
        "drained_at": "timestamptz not null",
    },
}
# a drain of some minutes is one file; DuckLake's `day` is the day of the month
_PARTITIONING: Final = {SERVED: "year(requested_at), month(requested_at), day(requested_at)"}


def served_table() -> str:
    """One row per request, view and entity."""
    return qualified(SCHEMA, SERVED)


def drains_table() -> str:
    """One row per commit of a drain."""
    return qualified(SCHEMA, DRAINS)


def columns_of(table: str) -> tuple[str, ...]:
    """The columns of a table, in order."""
    return tuple(_COLUMNS[table])


def plan_tables(existing: Mapping[str, object]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is missing: what is done, and the statements.

    Args:
        existing: the tables of the schema, by name.
    """
    for table, columns in _COLUMNS.items():
        if table not in existing:
            name = qualified(SCHEMA, table)
            listed = ", ".join(f"{quote_identifier(column)} {kind}" for column, kind in columns.items())
            statements = [f"create table {name} ({listed})"]
            if table in _PARTITIONING:
                statements.append(f"alter table {name} set partitioned by ({_PARTITIONING[table]})")
            yield f"create table {SCHEMA}.{table}", tuple(statements)
