"""Making a declared training set: the labels are what their view in the lake selects now.

Rule: labels are read in one order, by time and then by every other column, so that equal labels give equal files.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import duckdb

from feature_platform import lake
from feature_platform.domain.feature_view import EVENT_TIMESTAMP
from feature_platform.domain.training_set import DeclaredTrainingSet
from feature_platform.errors import NotDeployedError
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline.sets.creating import create_training_set
from feature_platform.offline.sets.kept import TrainingSet

if TYPE_CHECKING:
    from feature_platform.offline.store import FeatureStore


def create_declared_training_set(
    store: FeatureStore, declared: DeclaredTrainingSet, *, created_by: str, progress: Callable[[str], None]
) -> TrainingSet:
    """See `FeatureStore.create_declared_training_set`."""
    with closing(lake.connect(store.settings, read_only=True)) as connection:
        with lake_errors(f"looking for the labels of {declared.name}"):
            labels = _labels(connection, declared)
        return create_training_set(
            store,
            labels,
            declared.service,
            name=declared.name,
            created_by=created_by,
            progress=progress,
            options=declared.arguments,
        )


def _labels(connection: duckdb.DuckDBPyConnection, declared: DeclaredTrainingSet) -> duckdb.DuckDBPyRelation:
    schema, name = declared.labels
    relation = f"lake.{quote(schema)}.{quote(name)}"
    try:
        columns = [row[0] for row in connection.execute(f"describe {relation}").fetchall()]
    except duckdb.CatalogException as error:
        raise NotDeployedError(
            f"the labels of training set {declared.name} are not in the lake",
            found=f"no {schema}.{name}",
            hint="run `feature-platform deploy`, which creates their view",
        ) from error
    time = declared.arguments.get("timestamp_column", EVENT_TIMESTAMP)
    ordered = [*(name for name in columns if name == time), *(name for name in columns if name != time)]
    return connection.sql(f"select * from {relation} order by {', '.join(map(quote, ordered))}")
