"""Explaining one row of a kept set: what it could see in the set's mode, and what became of the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb

from feature_platform import lake
from feature_platform.domain.windows import aware_utc
from feature_platform.errors import RequestError, UnknownNameError, chosen_from
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import batches_table
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.ledger import Ledger
from feature_platform.offline.parquet import read_parquet
from feature_platform.offline.sets.candidates import Fate, Judged, find_candidates, judge
from feature_platform.offline.sets.kept import TrainingSet
from feature_platform.offline.sets.manifest import Manifest, SetFeature
from feature_platform.offline.sets.pushed_candidates import with_pushed
from feature_platform.offline.sets.sights import sight_of

if TYPE_CHECKING:
    from feature_platform.offline.store import FeatureStore

_ROW = "file_row_number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which row is to be explained: its number, or its key and time; and which features."""

    row: int | None = None
    """0, 1, 2 … in the order of the labels."""
    where: Mapping[str, str]
    """Column → value as text, e.g. `{"carrier": "AA"}`."""
    time: datetime | None = None
    features: tuple[str, ...] = ()
    """Columns of the set, or `view:feature`, or views; empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewExplanation:
    """Why a row has its values of one view."""

    view: str
    basis: str
    """What was visible, in words."""
    keys: Mapping[str, Any]
    ttl: timedelta | None
    availability_delay: timedelta
    values: Mapping[str, Any]
    """Column of the set → what it holds."""
    agrees: bool
    """Whether the chosen row holds the very same now."""
    rows: tuple[Judged, ...]
    """The chosen row and those that could have been, newest first."""

    @property
    def chosen(self) -> Judged | None:
        """The row the values came from; None if there was none."""
        return next((row for row in self.rows if row.fate is Fate.CHOSEN), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why one row of a set holds what it holds."""

    key: str
    row: int
    matching: int
    """How many rows of the set were asked for; the first is explained."""
    label: Mapping[str, Any]
    label_time: datetime
    views: tuple[ViewExplanation, ...]


def explain_training_set(store: FeatureStore, kept: TrainingSet, asked: Asked) -> Explanation:
    """See `FeatureStore.explain_training_set`."""
    manifest = kept.manifest
    chosen = _choose(manifest, asked.features)
    with (
        lake_errors(f"explaining {manifest.key}"),
        closing(lake.connect(store.settings, read_only=True)) as connection,
    ):
        with kept.local_data() as path:
            row, matching, found = _find_row(connection, read_parquet(path, numbered=True), manifest, asked)
        with Ledger.connect(store.settings.ledger_url) as ledger:
            views = tuple(
                _explain_view(connection, ledger, manifest, features, found, store=store.settings.store)
                for features in chosen.values()
            )
    return Explanation(
        key=kept.key,
        row=row,
        matching=matching,
        label={name: found[name] for name in manifest.label_columns},
        label_time=found[manifest.timestamp_column],
        views=views,
    )


def _choose(manifest: Manifest, wanted: Iterable[str]) -> dict[str, tuple[SetFeature, ...]]:
    """The features to explain, by view.

    Raises:
        UnknownNameError: the set has no such feature.
    """
    names = [*wanted]
    by_view: dict[str, tuple[SetFeature, ...]] = dict.fromkeys((view.key for view in manifest.views), ())
    used: set[str] = set()
    for feature in manifest.features:
        view = feature.view.partition("@")[0]
        forms = {feature.name, f"{feature.view}:{feature.feature}", f"{view}:{feature.feature}", feature.view, view}
        if not names or forms.intersection(names):
            used |= forms.intersection(names)
            by_view[feature.view] = (*by_view[feature.view], feature)
    if unknown := [name for name in names if name not in used]:
        raise UnknownNameError(
            f"{manifest.key} has no feature {unknown[0]!r}",
            allowed=chosen_from(feature.name for feature in manifest.features),
        )
    return {key: features for key, features in by_view.items() if features}


def _find_row(
    connection: duckdb.DuckDBPyConnection, source: str, manifest: Manifest, asked: Asked
) -> tuple[int, int, dict[str, Any]]:
    """The number of the row, how many rows were meant, and its values.

    Raises:
        RequestError: there is no such row, none was asked for, or one in two ways.
    """
    if asked.row is not None and (asked.where or asked.time):
        raise RequestError(
            "a row is asked for both by its number and by its values", allowed="its number, or its values and time"
        )
    if asked.row is not None:
        condition, parameters = f"{_ROW} = $row", {"row": asked.row}
    else:
        condition, parameters = _condition(manifest, asked)
    (first, matching), *_ = connection.execute(
        f"select min({_ROW}), count(*) from {source} where {condition}", parameters
    ).fetchall()
    if not matching:
        raise RequestError(
            f"{manifest.key} has no such row",
            found=f"row {asked.row}" if asked.row is not None else ", ".join(_said(asked)),
            allowed=f"rows 0 to {manifest.row_count - 1}" if manifest.row_count else "(the set is empty)",
        )
    result = connection.execute(f"select * from {source} where {_ROW} = $row", {"row": first})
    names = [column[0] for column in result.description or ()]
    (values,) = result.fetchall()
    return first, matching, dict(zip(names, values, strict=True))


def _condition(manifest: Manifest, asked: Asked) -> tuple[str, dict[str, Any]]:
    parameters: dict[str, Any] = {}
    conditions: list[str] = []
    for name, text in asked.where.items():
        if name not in manifest.label_columns:
            raise UnknownNameError(
                f"the labels of {manifest.key} have no column {name!r}", allowed=chosen_from(manifest.label_columns)
            )
        parameters[f"value_{len(parameters)}"] = text
        conditions.append(f"{quote(name)}::varchar = $value_{len(parameters) - 1}")
    if asked.time is not None:
        parameters["time"] = aware_utc(asked.time, "the label's time")
        conditions.append(f"{quote(manifest.timestamp_column)} = $time")
    if not conditions:
        raise RequestError(
            "no row is asked for",
            allowed="a row number, or values of the labels' columns",
            hint=f"on the command line: --row 0, or --key {manifest.label_columns[0]}=… and --at with the label's time",
        )
    return " and ".join(conditions), parameters


def _said(asked: Asked) -> Iterator[str]:
    yield from (f"{column}={text}" for column, text in asked.where.items())
    if asked.time is not None:
        yield f"at {asked.time.isoformat()}"


def _explain_view(
    connection: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    manifest: Manifest,
    features: tuple[SetFeature, ...],
    found: Mapping[str, Any],
    *,
    store: str,
) -> ViewExplanation:
    """Explain features of one view. `store` is the online store whose `online_at` is shown."""
    view = manifest.view(features[0].view)
    keys = {name: found[name] for name in view.entity_names}
    sight = sight_of(ledger, manifest, view, keys=keys, label_time=found[manifest.timestamp_column])
    names = tuple(dict.fromkeys(feature.feature for feature in features))
    candidates = find_candidates(connection, batches_table(view), names, sight)
    ids = [one.batch_id for one in candidates]
    numbers = ledger.publish_numbers(ids)
    rows = judge(
        candidates,
        sight,
        ledger.histories(ids),
        published_in_time={batch_id: number <= manifest.at_sequence for batch_id, number in numbers.items()},
        online_at=ledger.online_at(view.key, store),
    )
    if view.push:
        rows = with_pushed(
            connection,
            view,
            names,
            sight,
            rows,
            acknowledged=ledger.acknowledged(
                view.key, manifest.arguments.get("store", store), at_sequence=manifest.at_sequence
            ),
            at_sequence=manifest.at_sequence,
        )
    chosen = next((row.values for row in rows if row.fate is Fate.CHOSEN), dict.fromkeys(names))
    return ViewExplanation(
        view=view.key,
        basis=sight.basis,
        keys=keys,
        ttl=view.ttl,
        availability_delay=view.availability_delay,
        values={feature.name: found[feature.name] for feature in features},
        agrees=all(_same(found[feature.name], chosen[feature.feature]) for feature in features),
        rows=rows,
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)
