"""Skew: what was served, compared with what the lake says should have been.

Rule: the log is compared with two accounts of the same instant. `served` is what the ledger says the store held: where
the log differs from it, a write was lost or something else wrote. `modelled` is what training sees: where the log
differs from that, a model was trained on values that it is not given, and each such row has a cause that is found by
looking, never guessed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb

from feature_platform import lake
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.training_set import Mode
from feature_platform.errors import NotDeployedError, RequestError
from feature_platform.lake.log_tables import served_table
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline import FeatureStore
from feature_platform.offline.parquet import copy_to_parquet, read_parquet
from feature_platform.served_log import sql

EXAMPLES: Final = 3
ACCOUNTS: Final = (Mode.SERVED, Mode.MODELLED)


class Cause(enum.StrEnum):
    """Why a served row is not the one that `modelled` gives for the instant of the request."""

    NOT_ONLINE = "the store had no row yet"
    BEHIND = "the store held an older row"
    AHEAD = "served sooner than availability_delay says"
    RECOMPUTED = "the row was computed again since"
    GONE = "the lake has no such row any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One value that differs."""

    request_id: str
    requested_at: datetime
    entity: str
    """Its key, as in the store."""
    logged: Any
    recomputed: Any
    served_event_timestamp: datetime | None
    position: int | None
    """Ledger position of the sync that wrote the served row."""
    cause: Cause | None
    """None where the account is `served`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSkew:
    """One feature."""

    feature: str
    differing: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The log of one view compared with one account of it."""

    mode: str
    judged: int
    """Rows for which there is an answer to compare with. Where a sync was in flight, or the ledger cannot say what the
    store held, there is none of mode `served`."""
    differing: int
    """Rows of which at least one feature differs."""
    causes: Mapping[str, int]
    """Of `modelled`: rows per cause."""
    features: tuple[FeatureSkew, ...]
    """Those that differ."""
    basis: str
    """How far the account can be vouched for, in words; or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSkew:
    """One view."""

    view: str
    rows: int
    compared: int
    """Rows whose values were logged, or that had none to serve."""
    statuses: Mapping[str, int]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewReport:
    """What was logged in the store, and where it parts from the lake."""

    store: str
    requests: int
    views: tuple[ViewSkew, ...]
    undeclared: tuple[str, ...]
    """Views in the log that are not declared any more; they are not compared."""

    @property
    def has_skew(self) -> bool:
        """Whether anything differs."""
        return any(account.differing for view in self.views for account in view.accounts)


def measure_skew(
    store: FeatureStore,
    *,
    request_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> SkewReport:
    """Compare what was logged with what the lake says. Memory is bounded whatever the window.

    Args:
        store: the offline store; its settings name the online store.
        request_id: this request alone.
        since: requests from this instant on.
        until: requests before this instant.

    Raises:
        NotDeployedError: the lake lacks the log's tables.
        RequestError: nothing was logged there.
    """
    name = store.settings.store
    with (
        closing(store.connect()) as connection,
        TemporaryDirectory(prefix="skew-", dir=lake.scratch_directory(store.settings.scratch)) as directory,
    ):
        try:
            chosen = sql.choose_logged(served_table(), store=name, request_id=request_id, since=since, until=until)
            connection.execute(chosen.sql, dict(chosen.parameters))
        except duckdb.CatalogException as error:
            raise NotDeployedError(
                "the lake has no tables for the feature log", found=str(error), hint="run `feature-platform deploy`"
            ) from error
        ((requests,),) = connection.execute(f"select count(distinct request_id) from {sql.LOGGED}").fetchall()
        if not requests:
            raise RequestError(
                "nothing was logged there",
                found=f"store {name}" + (f", request {request_id}" if request_id else ""),
                allowed="requests of clients that log, once they are in the lake",
                hint="bring them there with `feature-platform drain`",
            )
        logged = [row[0] for row in connection.execute(f"select distinct view from {sql.LOGGED} order by 1").fetchall()]
        known = [store.registry.views[key] for key in logged if key in store.registry.views]
        return SkewReport(
            store=name,
            requests=requests,
            views=tuple(_measure(store, connection, view, Path(directory)) for view in known),
            undeclared=tuple(key for key in logged if key not in store.registry.views),
        )


def _measure(
    store: FeatureStore, connection: duckdb.DuckDBPyConnection, view: FeatureView, directory: Path
) -> ViewSkew:
    statuses = dict(
        connection.execute(
            f"select status, count(*) from {sql.LOGGED} where view = ? group by 1 order by 1", [view.key]
        ).fetchall()
    )
    labels = directory / f"{view.table}.parquet"
    copy_to_parquet(connection, sql.labels_sql(view), labels, {"view": view.key})
    ((compared,),) = connection.execute(f"select count(*) from {read_parquet(labels)}").fetchall()
    return ViewSkew(
        view=view.key,
        rows=sum(statuses.values()),
        compared=compared,
        statuses=statuses,
        accounts=tuple(_account(store, connection, view, labels, mode) for mode in ACCOUNTS),
    )


def _account(
    store: FeatureStore, connection: duckdb.DuckDBPyConnection, view: FeatureView, labels: Path, mode: Mode
) -> Account:
    references = [f"{view.key}:{feature}" for feature in view.feature_names]
    path = labels.with_suffix(f".{mode.value}")
    try:
        with store.get_historical_features(labels, references, mode=mode, provenance=True) as features:
            facts = features.facts
            features.to_parquet(path)
    except RequestError as error:
        return Account(mode=mode.value, judged=0, differing=0, causes={}, features=(), basis=str(error))
    names = [column.name for column in facts.features]
    described = connection.execute(f"describe select * from {read_parquet(path)}").fetchall()
    origins = {row[0].rpartition("__")[2]: row[0] for row in described if row[0] not in {*facts.label_columns, *names}}
    recomputed = sql.Recomputed(
        relation=read_parquet(path),
        features=names,
        provenance=origins["provenance"],
        event_timestamp=origins["event_timestamp"],
    )
    ((judged,),) = connection.execute(f"select count(*) from ({sql.judged_sql(recomputed)})").fetchall()
    connection.execute(sql.differing_sql(view, recomputed))
    ((differing,),) = connection.execute(f"select count(*) from {sql.DIFFERING}").fetchall()
    causes = dict(
        connection.execute(
            f"select cause, count(*) from {sql.DIFFERING} where cause is not null group by 1 order by 2 desc, 1"
        ).fetchall()
    )
    return Account(
        mode=mode.value,
        judged=judged,
        differing=differing,
        causes={Cause[name].value: count for name, count in causes.items()},
        features=tuple(_features(connection, view, names)) if differing else (),
        basis=str(facts.provenance[view.key]),
    )


def _features(connection: duckdb.DuckDBPyConnection, view: FeatureView, names: Sequence[str]) -> Iterator[FeatureSkew]:
    for place, (feature, name) in enumerate(zip(view.feature_names, names, strict=True)):
        logged, recomputed = quote(sql.logged_column(place)), quote(name)
        differs = f"{logged} is distinct from {recomputed}"
        ((count,),) = connection.execute(f"select count(*) from {sql.DIFFERING} where {differs}").fetchall()
        if not count:
            continue
        rows = connection.execute(
            f"select _request_id, event_timestamp, _entity_key, {logged}, {recomputed}, _served_event, _position, cause"
            f" from {sql.DIFFERING} where {differs} order by event_timestamp, _request_id, _entity_key limit {EXAMPLES}"
        ).fetchall()
        yield FeatureSkew(
            feature=feature,
            differing=count,
            examples=tuple(
                Example(
                    request_id=row[0],
                    requested_at=row[1],
                    entity=row[2],
                    logged=row[3],
                    recomputed=row[4],
                    served_event_timestamp=row[5],
                    position=row[6],
                    cause=Cause[row[7]] if row[7] else None,
                )
                for row in rows
            ),
        )
