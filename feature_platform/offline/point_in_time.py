"""The point-in-time join as SQL: pure functions from names and numbers to statements, no connection.

Rule: a feature row is **visible** to a label iff `event_timestamp + availability_delay <= label time`, and **alive**
iff `label time - event_timestamp < ttl` (strict: dead on reaching ttl). The answer is the visible row with the greatest
`event_timestamp`, if it is alive; a NULL in it stays NULL. (No older row can be alive when that one is dead, so both
conditions may be applied before the maximum.) Keys are compared column by column, in their own types.

Two plans give the same answer:

- `hash`: the winner's `event_timestamp` per label by a hash join that builds on the labels and streams the view, then
  the winner's row. Memory follows the labels. Never `arg_max(feature, event_timestamp)`: it skips NULL features.
- `asof`: DuckDB's ASOF JOIN. It sorts the view, but does not care how many rows each label could see.

The builders take the rows of a view as any SQL relation, so they are proven on plain tables
(tests/property/test_point_in_time_oracle.py) and run on the lake unchanged.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import ViewSelection
from feature_platform.domain.feature_view import EVENT_TIMESTAMP
from feature_platform.errors import RequestError, chosen_from
from feature_platform.lake.sql import quote_identifier as quote

LABELS = "labels"
"""The table of labels: `LABEL_ID`, then the caller's columns."""
LABEL_ID = "_label_id"
"""0, 1, 2 … in the order of the caller's rows."""


class Mode(enum.StrEnum):
    """How "what would have been seen at the label's time" is decided; DESIGN section 2."""

    MODELLED = "modelled"


def parse_mode(name: str) -> Mode:
    """The mode of this name.

    Raises:
        RequestError: there is none.
    """
    try:
        return Mode(name)
    except ValueError as error:
        raise RequestError(
            f"no point-in-time mode {str(name)!r}", allowed=chosen_from(Mode), hint='pass mode="modelled"'
        ) from error


class Plan(enum.StrEnum):
    """How DuckDB computes the join."""

    HASH = "hash"
    ASOF = "asof"


def choose_plan(*, labels: int, rows: int, rows_in_reach: int) -> Plan:
    """The cheaper plan: the hash form touches `labels x rows_in_reach` pairs, ASOF sorts `rows`.

    Measured at 10M and 100M rows, fan-out 7: the hash form wins at labels = 1% and 10% of the rows, ASOF at 100%.

    Args:
        labels: rows of the labels.
        rows: rows of the view that any label could see.
        rows_in_reach: rows of one entity that one label could see, about one per partition within ttl.
    """
    return Plan.ASOF if labels * rows_in_reach > rows else Plan.HASH


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One SQL statement and the values of its `$name` parameters."""

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What the labels can see of one view: its batches, event times in (after, until], and their partitions' starts."""

    batches: tuple[PublishedBatch, ...]
    after: datetime
    until: datetime
    first_partition: datetime
    last_partition: datetime

    @property
    def rows(self) -> int:
        """Rows of these batches, as the ledger counted them."""
        return sum(batch.row_count for batch in self.batches)

    def rows_of_one_entity(self, ttl: timedelta | None) -> int:
        """About how many rows of an entity one label can see: one per partition within ttl."""
        if ttl is None or not self.batches:
            return len(self.batches)
        length = max(batch.partition.end - batch.partition.start for batch in self.batches)
        return min(len(self.batches), -(-ttl // length))


def within_reach(
    batches: Iterable[PublishedBatch],
    *,
    oldest: datetime,
    newest: datetime,
    ttl: timedelta | None,
    availability_delay: timedelta,
) -> Reach:
    """The part of these active batches that labels between `oldest` and `newest` can see."""
    until = newest - availability_delay
    after = None if ttl is None else oldest - ttl
    # a partition is (start, end]
    seen = tuple(b for b in batches if b.partition.start < until and (after is None or b.partition.end > after))
    starts = [batch.partition.start for batch in seen]
    first, last = min(starts, default=until), max(starts, default=until)
    return Reach(
        batches=seen, after=first if after is None else after, until=until, first_partition=first, last_partition=last
    )


def reachable_rows(table: str, columns: Sequence[str], *, batches: str, reach: Reach) -> Statement:
    """The rows of the batches that relation `batches` lists, as a parenthesised select.

    The bounds repeat what the list and the join imply: they are constants, so whole files are skipped by their
    statistics before the list (thousands of ids) is looked at.

    Args:
        table: the physical table, quoted.
        columns: columns to read.
        batches: relation with a column `_batch_id`, quoted.
        reach: what any label can see.
    """
    return Statement(
        sql=f"(select {', '.join(map(quote, columns))} from {table}"
        f" where _batch_id in (select _batch_id from {batches})"
        f" and {EVENT_TIMESTAMP} > $after and {EVENT_TIMESTAMP} <= $until"
        " and _partition_start between $first_partition and $last_partition)",
        parameters={
            "after": reach.after,
            "until": reach.until,
            "first_partition": reach.first_partition,
            "last_partition": reach.last_partition,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewJoin:
    """What the join of one feature view needs to know."""

    rows: Statement
    """A SQL relation with the keys, `event_timestamp` and the features: a quoted name or a parenthesised select."""
    keys: tuple[str, ...]
    features: tuple[str, ...]
    ttl: timedelta | None
    availability_delay: timedelta
    answer: str
    """Name of the table to make: `LABEL_ID` and the features, only labels that have an answer."""
    timestamp_column: str = EVENT_TIMESTAMP
    """Column of the labels that holds their time."""
    valueless: Mapping[str, str] = field(default_factory=dict)
    """Columns of the labels without any value, and the type to read them as: theirs says nothing."""


def microseconds(duration: timedelta) -> int:
    """The duration in whole microseconds, DuckDB's resolution."""
    return duration // timedelta(microseconds=1)


def _probes(join: ViewJoin) -> tuple[str, dict[str, Any]]:
    """The labels as the join sees them: keys, the newest event time visible, the newest one already dead."""

    def read(column: str) -> str:
        return f"cast(null as {join.valueless[column]})" if column in join.valueless else quote(column)

    time = read(join.timestamp_column)
    keys = [f"{read(key)} as {quote(key)}" for key in join.keys]
    columns = [LABEL_ID, *keys, f"{time} - to_microseconds($delay) as _visible_until"]
    parameters: dict[str, Any] = {"delay": microseconds(join.availability_delay)}
    if join.ttl is not None:
        columns.append(f"{time} - to_microseconds($ttl) as _dead_until")
        parameters["ttl"] = microseconds(join.ttl)
    return f"(select {', '.join(columns)} from {LABELS})", parameters


def _same_keys(join: ViewJoin) -> str:
    return " and ".join(f"l.{quote(key)} = r.{quote(key)}" for key in join.keys)


def _features(join: ViewJoin) -> str:
    return "".join(f", r.{quote(feature)}" for feature in join.features)


def _alive(join: ViewJoin) -> str:
    return "true" if join.ttl is None else f"r.{EVENT_TIMESTAMP} > l._dead_until"


def hash_join(join: ViewJoin) -> tuple[Statement, ...]:
    """Winner first, then its row. Both joins build on labels and stream the view."""
    probes, parameters = _probes(join)
    winners = quote(f"{join.answer}_winners")
    return (
        Statement(
            sql=f"create table {winners} as select l.{LABEL_ID}, max(r.{EVENT_TIMESTAMP}) as {EVENT_TIMESTAMP}"
            f" from {join.rows.sql} as r join {probes} as l on {_same_keys(join)}"
            f" and r.{EVENT_TIMESTAMP} <= l._visible_until and {_alive(join)}"
            f" group by l.{LABEL_ID}",
            parameters={**parameters, **join.rows.parameters},
        ),
        Statement(
            sql=f"create table {quote(join.answer)} as select l.{LABEL_ID}{_features(join)}"
            f" from {join.rows.sql} as r join (select * from {probes} join {winners} using ({LABEL_ID})) as l"
            f" on {_same_keys(join)} and r.{EVENT_TIMESTAMP} = l.{EVENT_TIMESTAMP}",
            parameters={**parameters, **join.rows.parameters},
        ),
        Statement(sql=f"drop table {winners}"),
    )


def asof_join(join: ViewJoin) -> tuple[Statement, ...]:
    """One ASOF JOIN; whether the winner is alive is asked afterwards."""
    probes, parameters = _probes(join)
    return (
        Statement(
            sql=f"create table {quote(join.answer)} as select l.{LABEL_ID}{_features(join)}"
            f" from {probes} as l asof join {join.rows.sql} as r on {_same_keys(join)}"
            f" and l._visible_until >= r.{EVENT_TIMESTAMP} where {_alive(join)}",
            parameters={**parameters, **join.rows.parameters},
        ),
    )


def join_statements(join: ViewJoin, plan: Plan) -> tuple[Statement, ...]:
    """The statements that make the answer table of one view; all run on one connection, in order."""
    return asof_join(join) if plan is Plan.ASOF else hash_join(join)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn:
    """One feature of a training set: where it comes from and what it is called there."""

    view: str
    """`name@version`."""
    feature: str
    name: str


def name_output(
    selections: Sequence[ViewSelection], taken: Collection[str], *, full_feature_names: bool = False
) -> tuple[OutputColumn, ...]:
    """Names of the feature columns: the first form that is unique without regard to case, as DuckDB compares.

    `feature`; if two views or a label column claim that, `view__feature` (Feast's form); if two versions of one view
    claim that, `view_v2__feature`.

    Args:
        selections: what was asked for.
        taken: columns of the labels.
        full_feature_names: begin with the second form.

    Raises:
        RequestError: a label column has the longest form too.
    """
    wanted = [(selection, feature) for selection in selections for feature in selection.features]
    forms = [
        [
            *([] if full_feature_names else [feature]),
            f"{selection.view}__{feature}",
            f"{selection.view}_v{selection.version}__{feature}",
        ]
        for selection, feature in wanted
    ]
    # each form may be claimed by several; whoever shares a name moves on to its next form
    chosen = [0] * len(forms)
    labels = {column.lower() for column in taken}
    while True:
        names = [form[index] for form, index in zip(forms, chosen, strict=True)]
        count = Counter(name.lower() for name in names)
        clashing = [i for i, name in enumerate(names) if count[name.lower()] > 1 or name.lower() in labels]
        if not clashing:
            break
        stuck = [i for i in clashing if chosen[i] + 1 == len(forms[i])]
        if len(stuck) == len(clashing):
            raise RequestError(
                "two columns of the training set would have the same name",
                found=chosen_from({names[i] for i in stuck}),
                hint="rename that column of the labels, or ask for the feature once",
            )
        for i in clashing:
            chosen[i] = min(chosen[i] + 1, len(forms[i]) - 1)
    return tuple(
        OutputColumn(view=selection.key, feature=feature, name=name)
        for (selection, feature), name in zip(wanted, names, strict=True)
    )


def training_set_sql(label_columns: Sequence[str], columns: Sequence[OutputColumn], answers: Mapping[str, str]) -> str:
    """The training set: the labels as they came, each feature beside them, in the caller's order.

    Args:
        label_columns: columns of the labels.
        columns: the feature columns.
        answers: per view key, the name of its answer table.
    """
    selected = [f"l.{quote(column)}" for column in label_columns]
    selected += [f"{quote(answers[c.view])}.{quote(c.feature)} as {quote(c.name)}" for c in columns]
    joins = "".join(f" left join {quote(answer)} using ({LABEL_ID})" for answer in answers.values())
    return f"select {', '.join(selected)} from {LABELS} as l{joins} order by l.{LABEL_ID}"
