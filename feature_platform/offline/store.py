"""The offline store: training sets and SQL over published features.

Rule: fix the list of active batches in the ledger first, as of one ledger sequence, then open the lake. No statement
joins the two: a batch is committed to the lake before it is published, so every listed batch is there to be read. And
a batch is retired in the ledger before its rows are deleted: what is read first, and not retired when asked afterwards,
was there as a whole. As of one sequence an answer is therefore always the same, or refused.
The lake is opened read-only, with a memory limit; every call has its own DuckDB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import duckdb

from feature_platform import lake
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import FeatureService, OutagePolicy
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.domain.training_set import Mode
from feature_platform.errors import (
    RequestError,
    RowsRetiredError,
    SourceNotReadyError,
    UnknownNameError,
    chosen_from,
)
from feature_platform.lake.catalog import newest_snapshot
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.push_tables import drained_through
from feature_platform.ledger import Ledger
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.answering import Answer, answer_view
from feature_platform.offline.browse import check_deployed, create_feature_views
from feature_platform.offline.labels import load_labels
from feature_platform.offline.modes import parse_mode, parse_outages
from feature_platform.offline.outages import excluded_labels
from feature_platform.offline.output import name_origins, name_output, training_set_sql
from feature_platform.offline.parquet import writer_for
from feature_platform.offline.question import Evidence, Question
from feature_platform.offline.sets.doors import TrainingSetDoors
from feature_platform.offline.training_set import HistoricalFeatures, TrainingSetFacts
from feature_platform.settings import Settings

_SHOWN = 3


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
        return cls(settings, load_registry(settings.manifest_path))

    @lake_errors("joining features to labels")
    def get_historical_features(
        self,
        entity_df: Any,
        service_or_refs: str | FeatureService | Iterable[str],
        *,
        mode: str = Mode.AUTO,
        store: str | None = None,
        timestamp_column: str = EVENT_TIMESTAMP,
        full_feature_names: bool = False,
        provenance: bool = False,
        outages: str | None = None,
        at_sequence: int | None = None,
        plan: str | None = None,
    ) -> HistoricalFeatures:
        """The labels with, for each, the features as of its time.

        Args:
            entity_df: the labels: key columns, a time, anything else. pandas, Arrow, a DuckDB relation, a Parquet path.
            service_or_refs: a feature service, or references `view`, `view:feature`, `view@2:feature`.
            mode: `auto`: `served` where the view was live at the label's time, `modelled` before. `served`: what the
                online store held. `modelled`: what would have been seen had the view been live, a row becoming
                available at its event time plus the declared `availability_delay`.
            store: the online store that `served` and `auto` speak of (default: that of the settings).
            timestamp_column: column of the labels that holds each label's time.
            full_feature_names: call columns `<view>__<feature>`. Without it that is done where names would clash.
            provenance: add per view where its values come from: columns `<view>__provenance`, `__event_timestamp`,
                `__batch`, `__late_informed`.
            outages: what is made of the times in which the store was lost. None: in `auto` and `served` the answer is
                unknown, in `modelled` they do not matter. `as_recorded` (`auto`, `modelled`): they happened, and
                labels in them are answered by the service's declared `outage` policy. `never_happened` (`auto`):
                labels in them are modelled.
            at_sequence: answer as of this ledger sequence (default: now). The same sequence gives the same values.
            plan: how to join: `hash`, `one_scan` or `asof` (default: by size); the answer is the same.

        Raises:
            RequestError: the mode, the plan, a name, the sequence or the labels are wrong; its subclasses say what.
            RowsRetiredError: rows that were visible as of `at_sequence` were deleted since.
            NotDeployedError: a view has no table in the lake.
            MemoryLimitError: DuckDB needs more memory than it is given. Writing the answer may raise it as well.
        """
        chosen_mode, chosen_outages = parse_mode(mode), parse_outages(outages, mode)
        chosen_plan = pit.parse_plan(plan)
        policy = self._outage_policy(service_or_refs)
        selections = self.registry.select(service_or_refs)
        views = [self.registry.views[selection.key] for selection in selections]
        sequence, evidence = self._evidence(views, chosen_mode, store, at_sequence, replays=bool(chosen_outages))
        connection = _open_lake(self.settings)
        try:
            labels = load_labels(connection, entity_df, views=views, timestamp_column=timestamp_column)
            features = name_output(selections, labels.columns, full_feature_names=full_feature_names)
            for view in views:
                check_deployed(connection, view)
                if evidence[view.key].acknowledged is not None and labels.newest is not None:
                    self._refuse_undrained(connection, view, sequence, labels.newest)
            answers = {
                view.key: answer_view(
                    connection,
                    Question(
                        view=view,
                        features=selection.features,
                        labels=labels,
                        timestamp_column=timestamp_column,
                        mode=chosen_mode,
                        plan=chosen_plan,
                        answer=f"answer_{number}",
                        has_origins=provenance,
                        outages=chosen_outages,
                        outage_policy=policy,
                    ),
                    evidence[view.key],
                )
                for number, (selection, view) in enumerate(zip(selections, views, strict=True))
            }
            _refuse_retired(self.settings, sequence, {key: answer.used for key, answer in answers.items()})
            excluded = _exclude(connection, answers.values())
            connection.execute(pit.JOINS_AS_WRITTEN)
            origins = [origin for answer in answers.values() for origin in answer.origins]
            named = name_origins(selections, origins, [*labels.columns, *(column.name for column in features)])
        except BaseException:  # an interrupt as well: nobody else has the connection; raised again
            connection.close()
            raise
        tables = {key: answer.table for key, answer in answers.items()}
        return HistoricalFeatures(
            connection,
            training_set_sql(labels.columns, features, tables, origins=[*zip(named, origins, strict=True)]),
            TrainingSetFacts(
                mode=chosen_mode,
                store=store or self.settings.store if chosen_mode is not Mode.MODELLED or chosen_outages else None,
                ledger_sequence=sequence,
                row_count=labels.count - excluded,
                outages=chosen_outages,
                excluded=excluded,
                label_columns=labels.columns,
                features=features,
                writer=writer_for(
                    column.type
                    for selection, view in zip(selections, views, strict=True)
                    for column in view.features
                    if column.name in selection.features
                ),
                plans={key: answer.plans for key, answer in answers.items()},
                used={key: answer.used for key, answer in answers.items()},
                provenance={key: answer.counts for key, answer in answers.items()},
                known_until={
                    key: one.history.confirmed_until for key, one in evidence.items() if one.history is not None
                },
            ),
            tables,
        )

    @lake_errors("opening the published features")
    def connect(self, *, at_sequence: int | None = None) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection for people: `features.<view>` over the batches published now; the lake is read-only.

        `features.<view>` is the view's latest version, `features.<view>_v<version>` any version. What is published
        later is not seen: connect again. Close the connection when done.

        Raises:
            NotDeployedError: a view has no table in the lake.
            RowsRetiredError: rows that were visible as of `at_sequence` were deleted since.
        """
        views = [*self.registry.views.values()]
        with Ledger.connect(self.settings.ledger_url) as ledger:
            sequence = _sequence(ledger, at_sequence)
            active = {view.key: ledger.active_batches(view.key, at_sequence=sequence) for view in views}
        # batches of an older state may be retired at any time: the snapshot keeps their rows, or says that it is gone
        connection = _open_lake(self.settings, pinned=at_sequence is not None)
        try:
            _refuse_retired(self.settings, sequence, active)
            create_feature_views(connection, views, dict(self.registry.latest), active)
        except BaseException:  # an interrupt as well: nobody else has the connection; raised again
            connection.close()
            raise
        return connection

    def _evidence(
        self,
        views: Sequence[FeatureView],
        mode: Mode,
        store: str | None,
        at_sequence: int | None,
        *,
        replays: bool,
    ) -> tuple[int, dict[str, Evidence]]:
        """What the ledger says of all views as of one sequence, which nothing later can change."""
        _check_served(views, mode)
        with Ledger.connect(self.settings.ledger_url) as ledger:
            sequence = _sequence(ledger, at_sequence)
            stores = {*ledger.stores(), self.settings.store}
            if store is not None and store not in stores:
                raise UnknownNameError(
                    f"the ledger knows no online store {store!r}",
                    allowed=chosen_from(stores),
                    hint="`feature-platform ledger stores` lists them; leave `store` out for that of the settings",
                )
            found = {}
            for view in views:
                evidence = Evidence(active=ledger.active_batches(view.key, at_sequence=sequence))
                if (mode is not Mode.MODELLED or replays) and view.is_served:
                    evidence = Evidence(
                        active=evidence.active,
                        published=ledger.published_batches(view.key, at_sequence=sequence),
                        history=ledger.served_history(view.key, store or self.settings.store, at_sequence=sequence),
                        acknowledged=ledger.acknowledged(view.key, store or self.settings.store, at_sequence=sequence)
                        if view.push
                        else None,
                        sequence=sequence,
                    )
                found[view.key] = evidence
            return sequence, found

    def _refuse_undrained(
        self, connection: duckdb.DuckDBPyConnection, view: FeatureView, sequence: int, newest: datetime
    ) -> None:
        """Without a push that a label may have been given, what was served is not known.

        Raises:
            SourceNotReadyError: pushes before the newest label are not in the lake yet.
        """
        through = drained_through(connection, view)
        with Ledger.connect(self.settings.ledger_url) as ledger:
            waiting = ledger.pushes_between(view.key, through, sequence, newest)
        if waiting:
            raise SourceNotReadyError(
                f"{waiting} push(es) to {view.key} from before the newest label are not in the lake yet",
                found=f"the lake has the pushes up to number {through}",
                hint=f"run `feature-platform push {view.key} --drain`, or wait for the asset pushed/{view.name}",
            )

    def _outage_policy(self, asked: str | FeatureService | Iterable[str]) -> OutagePolicy:
        """What the service declares; by reference nothing is declared."""
        if isinstance(asked, str):
            asked = self.registry.services.get(asked, ())
        return asked.outage if isinstance(asked, FeatureService) else OutagePolicy.NULL


def _exclude(connection: duckdb.DuckDBPyConnection, answers: Collection[Answer]) -> int:
    """Take out the labels that fall into an outage, if the policy says so; how many."""
    marked = [answer.excluding for answer in answers if answer.excluding]
    if not marked:
        return 0
    connection.execute(excluded_labels("excluded", marked).sql)
    ((count,),) = connection.execute("select count(*) from excluded").fetchall()
    for table in (pit.LABELS, *(answer.table for answer in answers)):
        connection.execute(f"delete from {table} where {pit.LABEL_ID} in (select {pit.LABEL_ID} from excluded)")
    return int(count)


def _sequence(ledger: Ledger, asked: int | None) -> int:
    """The ledger sequence to answer as of.

    Raises:
        RequestError: there is none of this number.
    """
    now = ledger.sequence()
    if asked is not None and not 0 <= asked <= now:
        raise RequestError(
            f"the ledger has no sequence {asked}", allowed=f"0 to {now}", hint="see `feature-platform ledger`"
        )
    return now if asked is None else asked


def _check_served(views: Iterable[FeatureView], mode: Mode) -> None:
    """Only what is served online can be asked for as it was served.

    Raises:
        RequestError: a view is not.
    """
    offline = [view.key for view in views if not view.is_served]
    if mode is Mode.SERVED and offline:
        raise RequestError(
            f"mode `{mode}` asks what an online store held, and some views are not served online",
            found=", ".join(offline),
            allowed="views with `online: valkey`",
            hint=f'pass mode="{Mode.AUTO}": it models what is not served',
        )


def _refuse_retired(settings: Settings, sequence: int, used: Mapping[str, Sequence[PublishedBatch]]) -> None:
    """Make sure that all rows of these batches were there until now.

    Raises:
        RowsRetiredError: they may not have been.
    """
    holding = {batch.batch_id: batch for batches in used.values() for batch in batches if batch.row_count}
    with Ledger.connect(settings.ledger_url) as ledger:
        retired = [holding[batch_id] for batch_id in sorted(ledger.retired_among(holding))]
    if retired:
        partitions = sorted({f"{batch.view} {batch.partition.key}" for batch in retired})
        raise RowsRetiredError(
            f"as of ledger sequence {sequence} rows were visible that retention has deleted since",
            found=f"{len(retired)} of {len(holding)} batches were retired: {', '.join(partitions[:_SHOWN])}"
            + (" …" if len(partitions) > _SHOWN else ""),
            allowed="sequences as of which none of the batches was superseded, and what kept training sets need",
            hint="leave `at_sequence` out; `feature-platform ledger events` tells when batches were retired",
        )


def _open_lake(settings: Settings, *, pinned: bool = False) -> duckdb.DuckDBPyConnection:
    """The lake, read-only, with the private in-memory database in use for what the call needs."""
    snapshot = newest_snapshot(settings.lake_catalog) if pinned else None
    connection = lake.connect(settings, read_only=True, snapshot=snapshot)
    connection.execute("use memory")
    return connection
