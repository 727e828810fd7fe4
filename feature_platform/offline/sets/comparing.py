"""Which rows and features of two kept sets differ, and why.

Rule: both files are streamed through one pass of DuckDB; in memory are counts and a few examples. Rows are matched by
their place if both sets have the very same labels, else by key and time (equal ones in their order). Why is read from
the manifests and the ledger: what was asked, what was declared, which batches came in each other's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from feature_platform import lake
from feature_platform.errors import RequestError
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.ledger import Ledger
from feature_platform.offline.parquet import read_parquet
from feature_platform.offline.sets.causes import Cause, ViewCauses, find_causes, find_view_causes
from feature_platform.offline.sets.kept import TrainingSet
from feature_platform.offline.sets.manifest import Manifest

if TYPE_CHECKING:
    from feature_platform.offline.store import FeatureStore

EXAMPLES = 3
_ROW = "_row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row whose value differs."""

    row_a: int
    row_b: int
    label: Mapping[str, Any]
    """The columns by which rows are matched, and the time."""
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDiff:
    """One column that both sets have."""

    name_a: str
    name_b: str
    view: str | None
    """`name@version` of a feature's view in B; None for a column of the labels."""
    changed: int
    """Matched rows with another value; those below are among them."""
    gained: int
    """A has no value, B has."""
    lost: int
    """A has a value, B has none."""
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetsDiff:
    """How two sets differ."""

    a: str
    b: str
    identical: bool
    """The very same bytes."""
    matched_by: tuple[str, ...]
    """Columns; empty: by the place of the row."""
    matched: int
    only_in_a: int
    only_in_b: int
    features_only_in_a: tuple[str, ...]
    features_only_in_b: tuple[str, ...]
    columns: tuple[ColumnDiff, ...]
    """All that both have, the labels' first."""
    causes: tuple[Cause, ...]
    """What was asked or declared otherwise."""
    views: tuple[ViewCauses, ...]
    """Per view that both used, which batches came in each other's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A column of both files."""

    name_a: str
    name_b: str
    view: str | None


def diff_training_sets(store: FeatureStore, a: TrainingSet, b: TrainingSet) -> SetsDiff:
    """See `FeatureStore.diff_training_sets`."""
    one, other = a.manifest, b.manifest
    features_a = {(feature.view.partition("@")[0], feature.feature): feature for feature in one.features}
    features_b = {(feature.view.partition("@")[0], feature.feature): feature for feature in other.features}
    keys = _matching_columns(one, other)
    pairs = [
        _Pair(name_a=name, name_b=name, view=None)
        for name in one.label_columns
        if name in other.label_columns and name not in keys
    ]
    pairs += [
        _Pair(name_a=feature.name, name_b=features_b[form].name, view=features_b[form].view)
        for form, feature in features_a.items()
        if form in features_b
    ]
    with (
        lake_errors(f"comparing {a.key} and {b.key}"),
        a.local_data() as path_a,
        b.local_data() as path_b,
        closing(lake.open_duckdb(store.settings)) as connection,
    ):
        _match(connection, path_a, path_b, keys)
        shown = keys or tuple(name for name in _identity(one, other) if name in other.label_columns)
        columns, (matched, only_a, only_b) = _compare(connection, pairs, shown)
    with Ledger.connect(store.settings.ledger_url) as ledger:
        views = find_view_causes(ledger, one, other)
    return SetsDiff(
        a=a.key,
        b=b.key,
        identical=one.data.sha256 == other.data.sha256,
        matched_by=keys,
        matched=matched,
        only_in_a=only_a,
        only_in_b=only_b,
        features_only_in_a=tuple(f.name for form, f in features_a.items() if form not in features_b),
        features_only_in_b=tuple(f.name for form, f in features_b.items() if form not in features_a),
        columns=columns,
        causes=find_causes(one, other),
        views=views,
    )


def _identity(one: Manifest, other: Manifest) -> tuple[str, ...]:
    """The entities of both sets, and the time: what says which label a row is."""
    entities = [name for manifest in (one, other) for view in manifest.views for name in view.entity_names]
    return (*dict.fromkeys(name for name in entities if name in one.label_columns), one.timestamp_column)


def _matching_columns(one: Manifest, other: Manifest) -> tuple[str, ...]:
    """Columns to match rows by; none if both sets have every row of the very same labels, so that places match.

    Raises:
        RequestError: the labels have no columns in common that could match.
    """
    if not one.excluded and not other.excluded and one.labels.sha256 == other.labels.sha256:
        return ()
    columns = tuple(name for name in _identity(one, other) if name in other.label_columns)
    if one.timestamp_column != other.timestamp_column or columns == (one.timestamp_column,):
        raise RequestError(
            f"rows of {one.key} and {other.key} cannot be matched",
            found=f"{', '.join(_identity(one, one))} and {', '.join(_identity(other, other))}",
            allowed="sets with a common entity and the same time column",
        )
    return columns


def _match(connection: duckdb.DuckDBPyConnection, path_a: Path, path_b: Path, keys: Sequence[str]) -> None:
    """Views `a` and `b` with `_row`, and for matching by key `_nth` among equal keys."""
    for name, path in (("a", path_a), ("b", path_b)):
        nth = ""
        if keys:
            by = ", ".join(map(quote, keys))
            nth = f", row_number() over (partition by {by} order by file_row_number) as _nth"
        connection.execute(
            f"create view {name} as select * exclude (file_row_number), file_row_number as {_ROW}{nth}"
            f" from {read_parquet(path, numbered=True)}"
        )


def _compare(
    connection: duckdb.DuckDBPyConnection, pairs: Sequence[_Pair], shown: Sequence[str]
) -> tuple[tuple[ColumnDiff, ...], tuple[int, int, int]]:
    """Every common column, and how many rows are in both, only in A, only in B: one pass over the joined files."""
    columns = [row[0] for row in connection.execute("describe a").fetchall()]
    types = {name: {row[0]: row[1] for row in connection.execute(f"describe {name}").fetchall()} for name in ("a", "b")}
    if "_nth" in columns:
        on = " and ".join(f"a.{quote(name)} is not distinct from b.{quote(name)}" for name in (*shown, "_nth"))
    else:
        on = f"a.{_ROW} = b.{_ROW}"
    both = f"a.{_ROW} is not null and b.{_ROW} is not null"
    selected = [
        f"count(*) filter ({both})",
        f"count(*) filter (b.{_ROW} is null)",
        f"count(*) filter (a.{_ROW} is null)",
    ]
    label = ", ".join(f"a.{quote(name)}" for name in shown)
    for pair in pairs:
        left, right = f"a.{quote(pair.name_a)}", f"b.{quote(pair.name_b)}"
        if types["a"][pair.name_a] != types["b"][pair.name_b]:
            left, right = f"{left}::varchar", f"{right}::varchar"
        changed = f"{both} and {left} is distinct from {right}"
        # per column the first rows that differ, found in the same pass
        example = f"struct_pack(row_a := a.{_ROW}, row_b := b.{_ROW}, label := row({label}), a := {left}, b := {right})"
        selected += [
            f"count(*) filter ({changed})",
            f"count(*) filter ({changed} and {left} is null)",
            f"count(*) filter ({changed} and {right} is null)",
            f"arg_min({example}, a.{_ROW}, {EXAMPLES}) filter ({changed})",
        ]
    (row,) = connection.execute(f"select {', '.join(selected)} from a full join b on {on}").fetchall()
    return tuple(
        ColumnDiff(
            name_a=pair.name_a,
            name_b=pair.name_b,
            view=pair.view,
            changed=row[at],
            gained=row[at + 1],
            lost=row[at + 2],
            examples=tuple(_examples(row[at + 3] or (), shown)),
        )
        for pair, at in zip(pairs, range(3, len(row), 4), strict=True)
    ), row[:3]


def _examples(found: Iterable[Mapping[str, Any]], shown: Sequence[str]) -> Iterable[Example]:
    for one in found:
        yield Example(
            row_a=one["row_a"],
            row_b=one["row_b"],
            label=dict(
                zip(shown, one["label"].values() if isinstance(one["label"], dict) else one["label"], strict=True)
            ),
            a=one["a"],
            b=one["b"],
        )
