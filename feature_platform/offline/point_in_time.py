"""The point-in-time join as SQL: pure functions from names and numbers to statements, no connection.

Rule: a feature row is **alive** to a label iff `label time - event_timestamp < ttl` (strict: dead on reaching ttl), and
**visible** to it

- modelled: iff `event_timestamp + availability_delay <= label time`, of the active batches;
- served: iff its batch was in the store, `_seen_from <= label time < _seen_until` (`offline.served`).

The answer is the visible row with the greatest `event_timestamp`, if it is alive; a NULL in it stays NULL. (No older
row can be alive when that one is dead, so both conditions may be applied before the maximum.) Of one partition at most
one batch is visible, so no two rows tie. Keys are compared column by column, in their own types.

Three plans give the same answer:

- `hash`: the winner's `event_timestamp` per label by a hash join that builds on the labels and streams the view, then
  the winner's row. Memory follows the labels. Never `arg_max(feature, event_timestamp)`: it skips NULL features.
- `one_scan`: such a join keeps every row that a label could see, and the winners are chosen among them. The view is
  read once and not twice, which is most of the cost where labels are few.
- `asof`: DuckDB's ASOF JOIN. It sorts the view, but does not care how many rows each label could see.

The builders take the rows of a view as any SQL relation, so they are proven on plain tables
(tests/property/test_point_in_time_oracle.py) and run on the lake unchanged.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import EVENT_TIMESTAMP
from feature_platform.errors import RequestError, chosen_from
from feature_platform.lake.sql import quote_identifier as quote

LABELS = "labels"
"""The table of labels: `LABEL_ID`, then the caller's columns."""
LABEL_ID = "_label_id"
"""0, 1, 2 … in the order of the caller's rows."""


class Plan(enum.StrEnum):
    """How DuckDB computes the join."""

    HASH = "hash"
    ONE_SCAN = "one_scan"
    ASOF = "asof"


def parse_plan(name: str | None) -> Plan | None:
    """The plan of this name; None: by size.

    Raises:
        RequestError: there is none.
    """
    try:
        return None if name is None else Plan(name)
    except ValueError as error:
        hint = "leave `plan` out: it is chosen by size"
        raise RequestError(f"no plan {str(name)!r} for the join", allowed=chosen_from(Plan), hint=hint) from error


_MOST_KEPT = 128 * 2**20
"""Bytes that `one_scan` may keep. It is an estimate: more are spilled, which costs what was to be saved."""


def choose_plan(*, labels: int, rows: int, rows_in_reach: int, row_bytes: int) -> Plan:
    """The cheapest plan: hash forms touch `labels x rows_in_reach` pairs, ASOF sorts `rows`.

    Measured at 10M and 100M rows, fan-out 7: a hash form wins at labels = 1% and 10% of the rows, ASOF at 100%. Ten
    features are read in one scan for 0.6 (100M rows x 100k labels) and 0.7 (10M x 100k) of the CPU of two scans, and
    for as much where the pairs are a tenth of the rows.

    Args:
        labels: rows of the labels.
        rows: rows of the view that any label could see.
        rows_in_reach: rows of one entity that one label could see, about one per partition within ttl.
        row_bytes: about the size of one row's features.
    """
    pairs = labels * rows_in_reach
    if pairs > rows:
        return Plan.ASOF
    return Plan.ONE_SCAN if pairs * 10 <= rows and pairs * row_bytes <= _MOST_KEPT else Plan.HASH


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One SQL statement and the values of its `$name` parameters."""

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_asof: bool = False
    """It holds an ASOF JOIN; see `JOINS_AS_WRITTEN`."""


JOINS_AS_WRITTEN = "set disabled_optimizers = 'join_order,build_side_probe_side'"
"""Joins write the side to build on last: labels, or lists of batches. DuckDB would choose by estimate, takes the
filtered view to be a fraction of what it is, and builds on that: twice the memory and a third more CPU at 10M rows x 1M
labels (measured with benchmarks/point_in_time.py)."""
JOINS_AS_ESTIMATED = "set disabled_optimizers = ''"
"""For statements with an ASOF JOIN: without estimates, DuckDB 1.5.5 crashes in some of them."""


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


def reachable_rows(
    table: str, columns: Sequence[str], *, batches: str, reach: Reach, of_batch: Sequence[str] = ()
) -> Statement:
    """The rows of the batches that relation `batches` lists, as a parenthesised select.

    The bounds repeat what the list and the join imply: they are constants, so whole files are skipped by their
    statistics before the list (thousands of ids) is looked at.

    Args:
        table: the physical table, quoted.
        columns: columns to read.
        batches: relation with a column `_batch_id`, quoted.
        reach: what any label can see.
        of_batch: columns of `batches` that each row gets.
    """
    selected = ", ".join((*map(quote, columns), *(f"b.{column}" for column in of_batch)))
    source = f"{table} join {batches} as b using (_batch_id)" if of_batch else table
    listed = "" if of_batch else f"_batch_id in (select _batch_id from {batches}) and "
    return Statement(
        sql=f"(select {selected} from {source}"
        f" where {listed}{EVENT_TIMESTAMP} > $after and {EVENT_TIMESTAMP} <= $until"
        " and _partition_start between $first_partition and $last_partition)",
        parameters={
            "after": reach.after,
            "until": reach.until,
            "first_partition": reach.first_partition,
            "last_partition": reach.last_partition,
        },
    )


class Visibility(enum.StrEnum):
    """Which rows a label can see."""

    MODELLED = "modelled"
    """Those that are available: `event_timestamp + availability_delay <= label time`."""
    SERVED = "served"
    """Those whose batch the store held: `_seen_from <= label time < _seen_until`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewJoin:
    """What the join of one feature view needs to know."""

    rows: Statement
    """A SQL relation with the keys, `event_timestamp` and the features: a quoted name or a parenthesised select.

    For `SERVED` it also has `_seen_from`, `_seen_until`, and for the plan `asof` `_seq` and `_next_seq`.
    """
    keys: tuple[str, ...]
    features: tuple[str, ...]
    ttl: timedelta | None
    availability_delay: timedelta
    answer: str
    """Name of the table to make: `LABEL_ID`, the features, what is carried; only labels that have an answer."""
    timestamp_column: str = EVENT_TIMESTAMP
    """Column of the labels that holds their time."""
    valueless: Mapping[str, str] = field(default_factory=dict)
    """Columns of the labels without any value, and the type to read them as: theirs says nothing."""
    visibility: Visibility = Visibility.MODELLED
    labels: Statement = field(default_factory=lambda: Statement(sql=LABELS))
    """The labels to answer: all, or a parenthesised select of some."""
    as_of: str = ""
    """Column of the labels with the instant that decides what is visible, if that is not their time."""
    carried: Mapping[str, str] = field(default_factory=dict)
    """Further columns of the answer: name and SQL over the winning row `r`."""
    extends: bool = False
    """The answer table is there already, and gets these rows as well."""
    has_candidates: bool = False
    """For `SERVED`: some labels ask for `state(_position)` instead of what was seen at their time. Rows then also have
    `_from_position` and `_until_position`."""
    bare_rows: Statement | None = None
    """The rows without what `rows` has of their batches, cheaper to read a second time: where each partition has one
    batch, so that an entity has one row of an event time at most, whatever was visible."""


def microseconds(duration: timedelta) -> int:
    """The duration in whole microseconds, DuckDB's resolution."""
    return duration // timedelta(microseconds=1)


def read_label(join: ViewJoin, column: str) -> str:
    """A key or time column of the labels, in a type that can be compared."""
    return f"cast(null as {join.valueless[column]})" if column in join.valueless else quote(column)


def probes(join: ViewJoin, *, in_key_order: bool = False) -> Statement:
    """The labels as the join sees them: keys, the instant that decides what is visible, the newest one already dead.

    Built on in the order of their keys, labels lie in memory as the lake's files ask for them, which are sorted by key:
    a fifth less CPU for the winners, the sorting included (100M rows x 1M labels: 16.7 s to 13.6 s).
    """
    time = read_label(join, join.timestamp_column)
    seen = quote(join.as_of) if join.as_of else time
    columns = [LABEL_ID, *(f"{read_label(join, key)} as {quote(key)}" for key in join.keys)]
    parameters: dict[str, Any] = dict(join.labels.parameters)
    if join.visibility is Visibility.SERVED:
        columns.append(f"{seen} as _at")
        columns += ["_position"] if join.has_candidates else []
    else:
        columns.append(f"{seen} - to_microseconds($delay) as _visible_until")
        parameters["delay"] = microseconds(join.availability_delay)
    if join.ttl is not None:
        columns.append(f"{time} - to_microseconds($ttl) as _dead_until")
        parameters["ttl"] = microseconds(join.ttl)
    order = f" order by {', '.join(map(quote, join.keys))}" if in_key_order else ""
    return Statement(sql=f"(select {', '.join(columns)} from {join.labels.sql}{order})", parameters=parameters)


def same_keys(join: ViewJoin) -> str:
    """Whether a label and a row are of one entity: key by key, never concatenated."""
    return " and ".join(f"l.{quote(key)} = r.{quote(key)}" for key in join.keys)


def is_alive(join: ViewJoin) -> str:
    """Whether a row has not reached its ttl at the label's time."""
    return "true" if join.ttl is None else f"r.{EVENT_TIMESTAMP} > l._dead_until"


def _is_visible(join: ViewJoin) -> str:
    if join.visibility is Visibility.SERVED:
        seen = "r._seen_from <= l._at and l._at < r._seen_until"
        in_state = "r._from_position <= l._position and l._position < r._until_position"
        return f"case when l._position is null then {seen} else {in_state} end" if join.has_candidates else seen
    return f"r.{EVENT_TIMESTAMP} <= l._visible_until"


def _columns(join: ViewJoin) -> str:
    features = "".join(f", r.{quote(feature)}" for feature in join.features)
    return features + "".join(f", {sql} as {quote(name)}" for name, sql in join.carried.items())


def _into_answer(join: ViewJoin) -> str:
    return f"insert into {quote(join.answer)}" if join.extends else f"create table {quote(join.answer)} as"


def winners_table(join: ViewJoin) -> str:
    """The table of the winning `event_timestamp` per label, quoted."""
    return quote(f"{join.answer}_winners")


def hash_winners(join: ViewJoin) -> Statement:
    """The winner's `event_timestamp` per label; builds on labels and streams the view."""
    labels = probes(join, in_key_order=True)
    return Statement(
        sql=f"create table {winners_table(join)} as select l.{LABEL_ID}, max(r.{EVENT_TIMESTAMP}) as {EVENT_TIMESTAMP}"
        f" from {join.rows.sql} as r join {labels.sql} as l on {same_keys(join)}"
        f" and {_is_visible(join)} and {is_alive(join)}"
        f" group by l.{LABEL_ID}",
        parameters={**labels.parameters, **join.rows.parameters},
    )


def fetch_winners(join: ViewJoin) -> tuple[Statement, ...]:
    """The winners' rows, by a hash join that builds on labels as well."""
    labels = probes(join)
    # of two batches of a partition that hold the same row, only one is visible
    may_repeat = join.visibility is Visibility.SERVED and join.bare_rows is None
    visible = f" and {_is_visible(join)}" if may_repeat else ""
    rows = join.bare_rows or join.rows
    return (
        Statement(
            sql=f"{_into_answer(join)} select l.{LABEL_ID}{_columns(join)}"
            f" from {rows.sql} as r"
            f" join (select * from {labels.sql} join {winners_table(join)} using ({LABEL_ID})) as l"
            f" on {same_keys(join)} and r.{EVENT_TIMESTAMP} = l.{EVENT_TIMESTAMP}{visible}",
            parameters={**labels.parameters, **rows.parameters},
        ),
        Statement(sql=f"drop table {winners_table(join)}"),
    )


def one_scan_join(join: ViewJoin) -> tuple[Statement, ...]:
    """All rows that a label could see, then the winners among them."""
    labels = probes(join, in_key_order=True)
    seen = quote(f"{join.answer}_seen")
    return (
        Statement(
            sql=f"create table {seen} as select l.{LABEL_ID}, r.{EVENT_TIMESTAMP} as _at_event{_columns(join)}"
            f" from {join.rows.sql} as r join {labels.sql} as l on {same_keys(join)}"
            f" and {_is_visible(join)} and {is_alive(join)}",
            parameters={**labels.parameters, **join.rows.parameters},
        ),
        Statement(
            sql=f"{_into_answer(join)} select * exclude (_at_event) from {seen} join (select {LABEL_ID},"
            f" max(_at_event) as _at_event from {seen} group by {LABEL_ID}) using ({LABEL_ID}, _at_event)"
        ),
        Statement(sql=f"drop table {seen}"),
    )


def scan_join(join: ViewJoin, plan: Plan) -> tuple[Statement, ...]:
    """The join by one of the plans that stream the view."""
    return one_scan_join(join) if plan is Plan.ONE_SCAN else (hash_winners(join), *fetch_winners(join))


def asof_join(join: ViewJoin) -> tuple[Statement, ...]:
    """One ASOF JOIN; whether the winner is alive is asked afterwards."""
    labels = probes(join)
    return (
        Statement(
            sql=f"{_into_answer(join)} select l.{LABEL_ID}{_columns(join)}"
            f" from {labels.sql} as l asof join {join.rows.sql} as r on {same_keys(join)}"
            f" and l._visible_until >= r.{EVENT_TIMESTAMP} where {is_alive(join)}",
            parameters={**labels.parameters, **join.rows.parameters},
            is_asof=True,
        ),
    )


def join_statements(join: ViewJoin, plan: Plan) -> tuple[Statement, ...]:
    """The statements that make the answer of one view, `MODELLED`; all run on one connection, in order."""
    return asof_join(join) if plan is Plan.ASOF else scan_join(join, plan)
