"""Pushed rows in what a store served, as SQL: pure functions, like `point_in_time`.

Rule: a client is given the later of the batches' row and the pushed one, the batches' if both are as old. A pushed row
may have been in the store from when it was logged, and was from when the store had acknowledged it. So of the pushed
rows of an entity two count: the greatest (event time, number) of those acknowledged by the label's time, which makes
the answer, and of those logged by then; if they differ and the latter would be given, the answer is ambiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.lake.push_tables import PUSH_NUMBER, PUSHED_AT, pushed_table
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.ledger import Acknowledged
from feature_platform.offline.point_in_time import LABEL_ID, Statement, ViewJoin, is_alive, probes, same_keys
from feature_platform.offline.served import EVENT_COLUMN, ambiguous_table, moments_table

_ACKNOWLEDGED_AT = "_acknowledged_at"


def acknowledged_table(acknowledged: Sequence[Acknowledged]) -> pa.Table:
    """When a store had each push, as a relation for `pushed_rows`."""
    return pa.table(
        {
            PUSH_NUMBER: pa.array([one.number for one in acknowledged], pa.int64()),
            _ACKNOWLEDGED_AT: pa.array([one.at for one in acknowledged], pa.timestamp("us", "UTC")),
        }
    )


def pushed_rows(
    view: FeatureView, join: ViewJoin, *, acknowledged: str, at_sequence: int, oldest: datetime
) -> Statement:
    """The rows pushed to a view that any label may have been given, as a parenthesised select.

    Args:
        view: the view.
        join: its join.
        acknowledged: relation made of `acknowledged_table`, quoted.
        at_sequence: ledger sequence; later pushes had not happened.
        oldest: time of the oldest label.
    """
    columns = ", ".join(map(quote, (*join.keys, EVENT_TIMESTAMP, *join.features, PUSH_NUMBER, PUSHED_AT)))
    alive = "" if view.ttl is None else f" and {EVENT_TIMESTAMP} > $oldest_event"
    parameters = {} if view.ttl is None else {"oldest_event": oldest - view.ttl}
    return Statement(
        sql=f"(select {columns}, a.{_ACKNOWLEDGED_AT} from {pushed_table(view)}"
        f" left join {acknowledged} as a using ({PUSH_NUMBER}) where {PUSH_NUMBER} <= $at_sequence{alive})",
        parameters={"at_sequence": at_sequence, **parameters},
    )


def merge_pushed(join: ViewJoin, rows: Statement, *, live_since: datetime | None) -> tuple[Statement, ...]:
    """Put the pushed rows that were given into the answer, and note the labels that may have been given another one.

    The tables of moments and of ambiguous labels must exist.

    Args:
        join: the join that made the answer; it carries `EVENT_COLUMN`.
        rows: what `pushed_rows` returned.
        live_since: when the first sync had ended. Before, nothing says that the store kept what it acknowledged.
    """
    labels = probes(join)
    answer, seen, fresher = quote(join.answer), quote(f"{join.answer}_pushes"), quote(f"{join.answer}_fresher")
    both = {**labels.parameters, **rows.parameters}
    best = f"max(struct_pack(e := r.{EVENT_TIMESTAMP}, n := r.{PUSH_NUMBER}))"
    is_sure = f"r.{_ACKNOWLEDGED_AT} <= l._at and l._at >= $live_since" if live_since else "false"
    features = "".join(f", r.{quote(feature)}" for feature in join.features)
    return (
        Statement(
            sql=f"create table {seen} as select l.{LABEL_ID}, {best} filter (where {is_sure}) as sure,"
            f" {best} as possible from {rows.sql} as r join {labels.sql} as l on {same_keys(join)}"
            f" and r.{PUSHED_AT} <= l._at and {is_alive(join)} group by l.{LABEL_ID}",
            parameters=both | ({"live_since": live_since} if live_since else {}),
        ),
        Statement(
            sql=f"create table {fresher} as select p.{LABEL_ID}, p.sure from {seen} as p"
            f" left join {answer} as a using ({LABEL_ID})"
            f" where p.sure is not null and (a.{EVENT_COLUMN} is null or p.sure.e > a.{EVENT_COLUMN})"
        ),
        Statement(sql=f"delete from {answer} where {LABEL_ID} in (select {LABEL_ID} from {fresher})"),
        Statement(
            sql=f"insert into {answer} by name select l.{LABEL_ID}{features}, r.{EVENT_TIMESTAMP} as {EVENT_COLUMN}"
            f" from {rows.sql} as r join (select * from {labels.sql} join {fresher} using ({LABEL_ID})) as l"
            f" on {same_keys(join)} and r.{EVENT_TIMESTAMP} = l.sure.e and r.{PUSH_NUMBER} = l.sure.n",
            parameters=both,
        ),
        Statement(
            sql=f"insert into {ambiguous_table(join)} select p.{LABEL_ID}, true from {seen} as p"
            f" left join {answer} as a using ({LABEL_ID}) left join {fresher} as f using ({LABEL_ID})"
            " where p.possible is distinct from p.sure"
            f" and (f.{LABEL_ID} is not null or a.{EVENT_COLUMN} is null or p.possible.e > a.{EVENT_COLUMN})"
            f" and p.{LABEL_ID} not in (select {LABEL_ID} from {ambiguous_table(join)})"
        ),
        Statement(sql=f"drop table {seen}"),
        Statement(sql=f"drop table {fresher}"),
    )


def no_moments(join: ViewJoin) -> Statement:
    """Say that every label's instant has a plain answer, as far as batches go."""
    return Statement(
        sql=f"create table {moments_table(join)} ({LABEL_ID} bigint, is_unknown boolean, candidates bigint[])"
    )
