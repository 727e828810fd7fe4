"""The columns of a training set, and the one statement that puts it together.

Rule: rows and columns of the labels come first, in the caller's order; then one column per feature, each with the
shortest name that nothing else claims; then, on request, per view where its values come from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from feature_platform.domain.feature_service import ViewSelection
from feature_platform.domain.naming import first_free, name_features
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline.point_in_time import LABEL_ID, LABELS


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """One feature of a training set: where it comes from and what it is called there."""

    view: str
    """`name@version`."""
    feature: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One column that says where a view's values come from."""

    view: str
    """`name@version`."""
    suffix: str
    """What it says; the column is called `<view>__<suffix>`."""
    sql: str
    """Its value, over the labels as `l` and the view's tables."""
    joins: tuple[str, ...] = ()
    """Tables by label that the value is read from, besides the view's answer."""


def name_output(
    selections: Sequence[ViewSelection], taken: Collection[str], *, full_feature_names: bool = False
) -> tuple[OutputColumn, ...]:
    """The feature columns with their names (`domain.naming`).

    Args:
        selections: what was asked for.
        taken: columns of the labels.
        full_feature_names: begin with the second form.

    Raises:
        RequestError: a label column has the longest form too.
    """
    wanted = [(selection, feature) for selection in selections for feature in selection.features]
    names = name_features(selections, taken, full_feature_names=full_feature_names)
    return tuple(
        OutputColumn(view=selection.key, feature=feature, name=name)
        for (selection, feature), name in zip(wanted, names, strict=True)
    )


def name_origins(
    selections: Sequence[ViewSelection], origins: Sequence[Origin], taken: Collection[str]
) -> tuple[str, ...]:
    """Names of the columns that say where values come from: `view__provenance`, else `view_v2__provenance`.

    Raises:
        RequestError: another column has the longer form too.
    """
    of_view = {selection.key: selection for selection in selections}
    forms = []
    for origin in origins:
        selection = of_view[origin.view]
        forms.append([f"{selection.view}__{origin.suffix}", f"{selection.view}_v{selection.version}__{origin.suffix}"])
    return first_free(forms, taken)


def training_set_sql(
    label_columns: Sequence[str],
    columns: Sequence[OutputColumn],
    answers: dict[str, str],
    *,
    origins: Sequence[tuple[str, Origin]] = (),
) -> str:
    """The training set: the labels as they came, each feature beside them, in the caller's order.

    Args:
        label_columns: columns of the labels.
        columns: the feature columns.
        answers: per view key, the name of its answer table.
        origins: columns about provenance, with their names.
    """
    selected = [f"l.{quote(column)}" for column in label_columns]
    selected += [f"{quote(answers[c.view])}.{quote(c.feature)} as {quote(c.name)}" for c in columns]
    selected += [f"{origin.sql} as {quote(name)}" for name, origin in origins]
    tables = dict.fromkeys([*answers.values(), *(table for _, origin in origins for table in origin.joins)])
    joins = "".join(f" left join {quote(table)} using ({LABEL_ID})" for table in tables)
    return f"select {', '.join(selected)} from {LABELS} as l{joins} order by l.{LABEL_ID}"
