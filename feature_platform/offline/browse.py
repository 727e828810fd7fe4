"""`features.<view>`: published features as plain relations, for people with SQL.

Rule: only what users declared is shown (keys, `event_timestamp`, features) and only rows of the listed batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import duckdb
import pyarrow as pa

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.errors import NotDeployedError
from feature_platform.lake.sql import batches_table, quote_literal
from feature_platform.lake.sql import quote_identifier as quote

FEATURES_SCHEMA = "features"
_LISTED = "memory.main.published_batches"


def browse_view_sql(view: FeatureView) -> str:
    """The select behind `features.<view>_v<version>`."""
    columns = ", ".join(map(quote, (*view.entity_names, EVENT_TIMESTAMP, *view.feature_names)))
    return (
        f"select {columns} from {batches_table(view)}"
        f" where _batch_id in (select _batch_id from {_LISTED} where view = {quote_literal(view.key)})"
    )


def check_deployed(connection: duckdb.DuckDBPyConnection, view: FeatureView) -> None:
    """Make sure that the lake has the view's table with all declared columns.

    Raises:
        NotDeployedError: it has not.
    """
    columns = ", ".join(map(quote, (*view.entity_names, EVENT_TIMESTAMP, *view.feature_names)))
    try:
        connection.execute(f"select {columns} from {batches_table(view)} limit 0")
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise NotDeployedError(
            f"the lake does not hold {view.key} as declared",
            found=str(error),
            hint="run `feature-platform deploy`",
        ) from error


def create_feature_views(
    connection: duckdb.DuckDBPyConnection,
    views: Iterable[FeatureView],
    latest: Mapping[str, int],
    active: Mapping[str, Sequence[PublishedBatch]],
) -> None:
    """Define schema `features` in the connection's own in-memory database, over these batches.

    Args:
        connection: has the lake attached and its in-memory database in use.
        views: the declared views.
        latest: latest version per view name.
        active: the batches to show, per view key.

    Raises:
        NotDeployedError: a view has no table in the lake.
    """
    pairs = [(key, batch.batch_id) for key, batches in active.items() for batch in batches]
    ids = pa.table(
        {
            "view": pa.array([key for key, _ in pairs], pa.string()),
            "_batch_id": pa.array([batch_id for _, batch_id in pairs], pa.string()),
        }
    )
    connection.register("batch_ids", ids)
    connection.execute(f"create table {_LISTED} as select * from batch_ids")
    connection.unregister("batch_ids")
    connection.execute(f"create schema {FEATURES_SCHEMA}")
    for view in views:
        versioned = f"{FEATURES_SCHEMA}.{quote(f'{view.name}_v{view.version}')}"
        check_deployed(connection, view)
        connection.execute(f"create view {versioned} as {browse_view_sql(view)}")
        if latest[view.name] == view.version:
            connection.execute(f"create view {FEATURES_SCHEMA}.{quote(view.name)} as from {versioned}")
