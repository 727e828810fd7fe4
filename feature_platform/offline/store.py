"""The offline store: training sets and SQL over published features.

Rule: fix the list of active batches in the ledger first, as of one ledger sequence, then open the lake. No statement
joins the two: a batch is committed to the lake before it is published, so every listed batch is there to be read.
The lake is opened read-only, with a memory limit; every call has its own DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from feature_platform import lake
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.errors import NotDeployedError, RequestError
from feature_platform.lake.sql import batches_table
from feature_platform.ledger import Ledger
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.browse import check_deployed, create_feature_views
from feature_platform.offline.labels import Labels, load_labels
from feature_platform.offline.sets.doors import TrainingSetDoors
from feature_platform.offline.training_set import HistoricalFeatures, TrainingSetFacts
from feature_platform.settings import Settings

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# The point-in-time join writes the side to build on last: labels, or lists of batches. DuckDB would choose by estimate,
# takes the filtered view to be a fraction of what it is, and builds on that: twice the memory and a third more CPU at
# 10M rows x 1M labels (docs/reference/benchmarks.md).
_JOINS_AS_WRITTEN = "set disabled_optimizers = 'join_order,build_side_probe_side'"


class FeatureStore(TrainingSetDoors):
    """Features for training and for people: see docs/reference/training.md."""

    def __init__(self, settings: Settings, registry: FeatureRegistry) -> None:
        self.settings = settings
        self.registry = registry

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The store of the deployed project, with the addresses of the environment.

        Raises:
            ConfigurationError: a setting is missing.
            NotDeployedError: nothing was deployed yet.
        """
        settings = Settings.from_env(environ)
        if not Path(settings.manifest_path).is_file():
            raise NotDeployedError(
                "nothing is deployed here yet",
                found=f"no {settings.manifest_path}",
                hint="run `feature-platform deploy`",
            )
        return cls(settings, load_registry(settings.manifest_path))

    def get_historical_features(
        self,
        entity_df: Any,
        service_or_refs: str | FeatureService | Iterable[str],
        *,
        mode: str = pit.Mode.MODELLED,
        timestamp_column: str = EVENT_TIMESTAMP,
        full_feature_names: bool = False,
        at_sequence: int | None = None,
        plan: pit.Plan | None = None,
    ) -> HistoricalFeatures:
        """The labels with, for each, the features as of its time.

        Args:
            entity_df: the labels: key columns, a time, anything else. pandas, Arrow, a DuckDB relation, a Parquet path.
            service_or_refs: a feature service, or references `view`, `view:feature`, `view@2:feature`.
            mode: `modelled`: what would have been seen had the view been live, a row becoming available at its event
                time plus the declared `availability_delay`.
            timestamp_column: column of the labels that holds each label's time.
            full_feature_names: call columns `<view>__<feature>`. Without it that is done where names would clash.
            at_sequence: answer as of this ledger sequence (default: now). The same sequence gives the same values.
            plan: how to join (default: by size).

        Raises:
            RequestError: the mode, a name, the sequence or the labels are wrong; its subclasses say what.
            NotDeployedError: a view has no table in the lake.
        """
        chosen_mode = pit.parse_mode(mode)
        selections = self.registry.select(service_or_refs)
        views = [self.registry.views[selection.key] for selection in selections]
        sequence, active = self._active_batches(views, at_sequence)
        connection = _open_lake(self.settings)
        connection.execute(_JOINS_AS_WRITTEN)
        try:
            labels = load_labels(connection, entity_df, views=views, timestamp_column=timestamp_column)
            features = pit.name_output(selections, labels.columns, full_feature_names=full_feature_names)
            answers: dict[str, str] = {}
            plans: dict[str, pit.Plan] = {}
            used: dict[str, tuple[PublishedBatch, ...]] = {}
            for view in views:
                check_deployed(connection, view)
            # one view at a time, to a narrow table each: measured cheaper and leaner than one statement
            for selection, view in zip(selections, views, strict=True):
                reach = pit.within_reach(
                    active[view.key],
                    oldest=labels.oldest or _NEVER,
                    newest=labels.newest or _NEVER,
                    ttl=view.ttl,
                    availability_delay=view.availability_delay,
                )
                answers[view.key] = f"answer_{len(answers)}"
                used[view.key] = reach.batches
                plans[view.key] = plan or pit.choose_plan(
                    labels=labels.count, rows=reach.rows, rows_in_reach=reach.rows_of_one_entity(view.ttl)
                )
                _join_view(
                    connection,
                    view,
                    features=selection.features,
                    labels=labels,
                    reach=reach,
                    answer=answers[view.key],
                    plan=plans[view.key],
                    timestamp_column=timestamp_column,
                )
        except BaseException:
            connection.close()
            raise
        return HistoricalFeatures(
            connection,
            pit.training_set_sql(labels.columns, features, answers),
            TrainingSetFacts(
                mode=chosen_mode,
                ledger_sequence=sequence,
                row_count=labels.count,
                label_columns=labels.columns,
                features=features,
                plans=plans,
                batches={key: len(batches) for key, batches in used.items()},
                used=used,
            ),
            answers,
        )

    def connect(self, *, at_sequence: int | None = None) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection for people: `features.<view>` over the batches published now; the lake is read-only.

        `features.<view>` is the view's latest version, `features.<view>_v<version>` any version. What is published
        later is not seen: connect again. Close the connection when done.

        Raises:
            NotDeployedError: a view has no table in the lake.
        """
        views = [*self.registry.views.values()]
        _, active = self._active_batches(views, at_sequence)
        connection = _open_lake(self.settings)
        try:
            create_feature_views(connection, views, dict(self.registry.latest), active)
        except BaseException:
            connection.close()
            raise
        return connection

    def _active_batches(
        self, views: Sequence[FeatureView], at_sequence: int | None
    ) -> tuple[int, dict[str, tuple[PublishedBatch, ...]]]:
        """The active batches of all views as of one sequence, which nothing later can change."""
        with Ledger.connect(self.settings.ledger_url) as ledger:
            now = ledger.sequence()
            if at_sequence is not None and not 0 <= at_sequence <= now:
                raise RequestError(
                    f"the ledger has no sequence {at_sequence}",
                    allowed=f"0 to {now}",
                    hint="see `feature-platform ledger`",
                )
            sequence = now if at_sequence is None else at_sequence
            return sequence, {view.key: ledger.active_batches(view.key, at_sequence=sequence) for view in views}


def _open_lake(settings: Settings) -> duckdb.DuckDBPyConnection:
    """The lake, read-only, with the private in-memory database in use for what the call needs."""
    connection = lake.connect(settings, read_only=True)
    connection.execute("use memory")
    return connection


def _join_view(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureView,
    *,
    features: tuple[str, ...],
    labels: Labels,
    reach: pit.Reach,
    answer: str,
    plan: pit.Plan,
    timestamp_column: str,
) -> None:
    """Compute the answer table of one view."""
    listed = f"{answer}_batches"
    ids = pa.table({"_batch_id": pa.array([batch.batch_id for batch in reach.batches], pa.string())})
    connection.register("batch_ids", ids)
    connection.execute(f"create table {listed} as select * from batch_ids")
    connection.unregister("batch_ids")
    join = pit.ViewJoin(
        rows=pit.reachable_rows(
            batches_table(view),
            (*view.entity_names, EVENT_TIMESTAMP, *features),
            batches=listed,
            reach=reach,
        ),
        keys=view.entity_names,
        features=features,
        ttl=view.ttl,
        availability_delay=view.availability_delay,
        answer=answer,
        timestamp_column=timestamp_column,
        valueless=labels.valueless,
    )
    for statement in pit.join_statements(join, plan):
        connection.execute(statement.sql, dict(statement.parameters))
