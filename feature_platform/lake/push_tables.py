"""The tables of pushed rows in the lake: only deploy creates them.

Rule: append-only. `drains` says through which push each view's rows were taken over from the ledger; it is committed
together with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import duckdb

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.domain.types import in_lake
from feature_platform.errors import NotDeployedError
from feature_platform.lake.sql import PUSHED_SCHEMA as SCHEMA
from feature_platform.lake.sql import qualified
from feature_platform.lake.sql import quote_identifier as quote

DRAINS: Final = "_drains"
PUSH_NUMBER: Final = "_push_number"
PUSHED_AT: Final = "_pushed_at"


def pushed_table(view: FeatureView) -> str:
    """The rows pushed to a view: keys, `event_timestamp`, features, number of the push, and when it was logged."""
    return qualified(SCHEMA, view.table)


def drains_table() -> str:
    """One row per commit that took pushes over."""
    return qualified(SCHEMA, DRAINS)


def drained_through(lake: duckdb.DuckDBPyConnection, view: FeatureView) -> int:
    """Number of the last push of a view that is in the lake; 0 if none is.

    Raises:
        NotDeployedError: the lake lacks the table.
    """
    try:
        found = lake.execute(
            f'select max(through_number) from {drains_table()} where "view" = ?', [view.key]
        ).fetchone()
    except duckdb.CatalogException as error:
        raise NotDeployedError(
            f"the lake has no table for rows pushed to {view.key}",
            found=str(error).splitlines()[0],
            hint="run `feature-platform deploy`",
        ) from error
    return int(found[0] or 0) if found else 0


def plan_tables(
    views: Iterable[FeatureView], existing: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is missing: what is done, and the statements.

    Args:
        views: the declared views.
        existing: the columns of each table of the schema.
    """
    pushable = [view for view in views if view.push]
    if pushable and DRAINS not in existing:
        columns = '"view" varchar not null, through_number bigint not null, drained_at timestamptz not null'
        yield f"create table {SCHEMA}.{DRAINS}", (f"create table {drains_table()} ({columns})",)
    for view in pushable:
        columns_there = existing.get(view.table)
        if columns_there is None:
            yield f"create table {SCHEMA}.{view.table}", (_create(view),)
            continue
        added = tuple(
            f"alter table {pushed_table(view)} add column {quote(column.name)} {in_lake(column.type).value}"
            for column in view.features
            if column.name not in columns_there
        )
        if added:
            yield f"add features to {SCHEMA}.{view.table}", added


def _create(view: FeatureView) -> str:
    columns = [
        *(f"{quote(column.name)} {column.type.value} not null" for column in view.entities),
        f"{EVENT_TIMESTAMP} timestamptz not null",
        *(f"{quote(column.name)} {in_lake(column.type).value}" for column in view.features),
        f"{PUSH_NUMBER} bigint not null",
        f"{PUSHED_AT} timestamptz not null",
    ]
    return f"create table {pushed_table(view)} ({', '.join(columns)})"
