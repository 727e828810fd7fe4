"""Mode `served` as SQL: what an online store held at each label's time. Pure functions, no connection.

Rule: the store held `state(d)`, d the greatest position whose sync had ended. A batch is part of `state(k)` for the
positions from its own until that of the first publish that supersedes it (a half-open interval, empty if the
superseding one was published first), so it is seen from the end of the first sync that covers its own position until
the end of the first sync that covers the other. While a sync to j is in flight, the store held `state(d)` or
`state(j)`: a label is **ambiguous** iff they differ for its entity, and is answered with `state(d)`. Where the ledger
does not know the store (`domain.serving_history`), or rows it held were retired, the answer is unknown: no value.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pyarrow as pa

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import EVENT_TIMESTAMP
from feature_platform.domain.serving_history import ServedHistory, Window, WindowKind
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline.point_in_time import (
    LABEL_ID,
    Reach,
    Statement,
    ViewJoin,
    fetch_winners,
    hash_winners,
    is_alive,
    probes,
    read_label,
    same_keys,
    winners_table,
)

EVENT_COLUMN = "_event_timestamp"
"""Column of an answer table: the winning row's `event_timestamp`."""

FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
NO_POSITION = 2**63 - 1
_INSTANTS = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBatch:
    """A published batch, and where and when it is part of what the store holds."""

    batch: PublishedBatch
    until_position: int
    """Position of the first publish that supersedes it; `NO_POSITION` if none does."""
    seen_from: datetime
    seen_until: datetime
    """`FOREVER` if it is seen still, or not yet."""
    next_seq: int | None
    """The batch of its partition that took its place when it was seen no more."""


def seen_batches(published: Iterable[PublishedBatch], history: ServedHistory) -> tuple[SeenBatch, ...]:
    """When each batch was seen in a store; those that are part of no state, or were retired, are left out.

    Args:
        published: all published batches of a view.
        history: of the view in the store.
    """
    of_partition: defaultdict[datetime, list[PublishedBatch]] = defaultdict(list)
    for batch in published:
        of_partition[batch.partition.start].append(batch)
    found = []
    for batches in of_partition.values():
        mine = []
        for batch in batches:
            until = _superseded_at(batch, batches)
            if until > batch.position:
                mine.append(_seen(batch, until, history))
        # of one partition at most one is seen at any instant: each is followed by the next one to be seen
        mine = [one for one in mine if not is_gone(one.batch)]
        shown = sorted((one for one in mine if one.seen_from < one.seen_until), key=lambda one: one.seen_from)
        following = {a.batch.seq: b.batch.seq for a, b in pairwise(shown)}
        found += [replace(one, next_seq=following.get(one.batch.seq)) for one in mine]
    return tuple(found)


def is_gone(batch: PublishedBatch) -> bool:
    """Whether the batch had rows and was retired."""
    return batch.retired_seq is not None and batch.row_count > 0


def without_retired(
    history: ServedHistory, published: Iterable[PublishedBatch], ttl: timedelta | None
) -> ServedHistory:
    """The history in which the store is unknown for as long as it held, or may have held, living rows that are gone.

    Args:
        history: of the view in the store.
        published: all published batches of the view.
        ttl: of the view.
    """
    of_partition: defaultdict[datetime, list[PublishedBatch]] = defaultdict(list)
    for batch in published:
        of_partition[batch.partition.start].append(batch)
    spans = []
    for batches in of_partition.values():
        for batch in filter(is_gone, batches):
            position = _superseded_at(batch, batches)
            begun = [sync.began_at for sync in history.syncs if batch.position <= sync.to_position < position]
            seen = _seen(batch, position, history)
            since = min([seen.seen_from, *begun])
            until = seen.seen_until if ttl is None else min(seen.seen_until, batch.partition.end + ttl)
            if position > batch.position and since < until:
                spans.append((since, until))
    return replace(history, forgotten=tuple(spans)) if spans else history


def _superseded_at(batch: PublishedBatch, of_partition: Iterable[PublishedBatch]) -> int:
    """Position of the first publish that supersedes the batch; `NO_POSITION` if none does."""
    return min((other.position for other in of_partition if other.seq > batch.seq), default=NO_POSITION)


def _seen(batch: PublishedBatch, until: int, history: ServedHistory) -> SeenBatch:
    return SeenBatch(
        batch=batch,
        until_position=until,
        seen_from=history.settled_from(batch.position) or FOREVER,
        seen_until=(history.settled_from(until) if until < NO_POSITION else None) or FOREVER,
        next_seq=None,
    )


def settled_batches(
    batches: Iterable[SeenBatch], *, oldest: datetime, newest: datetime, ttl: timedelta | None
) -> tuple[SeenBatch, ...]:
    """The batches that were settled in the store at some instant of [oldest, newest], with rows alive then."""
    return tuple(
        one
        for one in batches
        if one.seen_from < one.seen_until
        and one.seen_from <= newest
        and one.seen_until > oldest
        and (ttl is None or one.batch.partition.end > oldest - ttl)
    )


def repeat_partitions(batches: Sequence[SeenBatch]) -> bool:
    """Whether two of these are of one partition: only then an entity may have two rows of an event time."""
    return len({one.batch.partition.start for one in batches}) < len(batches)


def possible_batches(
    batches: Iterable[SeenBatch], positions: Sequence[int], *, oldest: datetime, ttl: timedelta | None
) -> tuple[SeenBatch, ...]:
    """The batches that are part of `state(j)` for some of these positions, with rows alive from `oldest` on."""
    ordered = sorted(positions)

    def is_possible(one: SeenBatch) -> bool:
        index = bisect_left(ordered, one.batch.position)
        return index < len(ordered) and ordered[index] < one.until_position

    return tuple(one for one in batches if (ttl is None or one.batch.partition.end > oldest - ttl) and is_possible(one))


def reach_of(batches: Sequence[SeenBatch], *, oldest: datetime, ttl: timedelta | None) -> Reach:
    """What to read of these batches. What was in the store counts, even if it was as of later than the label."""
    starts = [one.batch.partition.start for one in batches]
    first, last = min(starts, default=oldest), max(starts, default=oldest)
    return Reach(
        batches=tuple(one.batch for one in batches),
        after=first if ttl is None else oldest - ttl,
        until=max((one.batch.partition.end for one in batches), default=oldest),
        first_partition=first,
        last_partition=last,
    )


def batch_table(batches: Sequence[SeenBatch]) -> pa.Table:
    """The batches as a relation for `reachable_rows`."""
    listed = {one.batch.seq for one in batches}
    return pa.table(
        {
            "_batch_id": pa.array([one.batch.batch_id for one in batches], pa.string()),
            "_seq": pa.array([one.batch.seq for one in batches], pa.int64()),
            "_next_seq": pa.array([one.next_seq if one.next_seq in listed else None for one in batches], pa.int64()),
            "_from_position": pa.array([one.batch.position for one in batches], pa.int64()),
            "_until_position": pa.array([one.until_position for one in batches], pa.int64()),
            "_seen_from": pa.array([one.seen_from for one in batches], _INSTANTS),
            "_seen_until": pa.array([one.seen_until for one in batches], _INSTANTS),
        }
    )


def window_table(windows: Sequence[Window]) -> pa.Table:
    """Windows as a relation for `moments`."""
    return pa.table(
        {
            "since": pa.array([window.since for window in windows], _INSTANTS),
            "until": pa.array([window.until for window in windows], _INSTANTS),
            "is_unknown": pa.array([window.kind is WindowKind.UNKNOWN for window in windows], pa.bool_()),
            "candidates": pa.array([list(window.candidates) for window in windows], pa.list_(pa.int64())),
        }
    )


def moments_table(join: ViewJoin) -> str:
    """The table of the labels whose instant has no plain answer, quoted."""
    return quote(f"{join.answer}_moments")


def ambiguous_table(join: ViewJoin) -> str:
    """The table of the labels that are ambiguous, quoted."""
    return quote(f"{join.answer}_ambiguous")


def moments(join: ViewJoin, windows: str) -> Statement:
    """Find the labels whose instant has no plain answer, and why it has none. Windows do not overlap."""
    time = quote(join.as_of) if join.as_of else read_label(join, join.timestamp_column)
    return Statement(
        sql=f"create table {moments_table(join)} as select l.{LABEL_ID}, w.is_unknown, w.candidates"
        f" from (select {LABEL_ID}, {time} as _at from {join.labels.sql}) as l"
        f" join {windows} as w on l._at >= w.since and l._at < w.until",
        parameters=join.labels.parameters,
    )


def ask_candidates(join: ViewJoin) -> Statement:
    """The labels once more, and behind them one for each state that a sync in flight may have reached at their time.

    The latter have numbers of their own, below zero; the label's is `_of`.
    """
    needed = dict.fromkeys((*join.keys, join.timestamp_column, *((join.as_of,) if join.as_of else ())))
    columns = ", ".join(map(quote, needed))
    of = "cast(null as bigint) as _position, cast(null as bigint) as _of"
    return Statement(
        sql=f"create table {asked_table(join)} as select {LABEL_ID}, {columns}, {of} from {join.labels.sql}"
        f" union all select -row_number() over () as {LABEL_ID}, * from (select {columns},"
        f" unnest(m.candidates) as _position, {LABEL_ID} as _of from {join.labels.sql} as l"
        f" join {moments_table(join)} as m using ({LABEL_ID}) where not m.is_unknown)",
        parameters=join.labels.parameters,
    )


def asked_table(join: ViewJoin) -> str:
    """The table that `ask_candidates` makes, quoted."""
    return quote(f"{join.answer}_asked")


def judge_candidates(join: ViewJoin) -> tuple[Statement, ...]:
    """Find the labels for which `state(d)` and a candidate differ, and take the candidates out of the answer."""
    answer, asked = quote(join.answer), asked_table(join)
    return (
        Statement(
            sql=f"create table {ambiguous_table(join)} as select distinct a._of as {LABEL_ID}, true as is_ambiguous"
            f" from (from {asked} where _of is not null) as a left join {answer} as possible using ({LABEL_ID})"
            f" left join {answer} as settled on settled.{LABEL_ID} = a._of where {_differ(join)}"
        ),
        Statement(sql=f"delete from {answer} where {LABEL_ID} < 0"),
        Statement(sql=f"drop table {asked}"),
    )


def _differ(join: ViewJoin) -> str:
    """Whether what is possible and what is settled are not the same."""
    compared = [*map(quote, join.features), EVENT_COLUMN]
    return " or ".join(f"possible.{column} is distinct from settled.{column}" for column in compared)


def none_ambiguous(join: ViewJoin) -> Statement:
    """Say that no label is ambiguous."""
    return Statement(sql=f"create table {ambiguous_table(join)} ({LABEL_ID} bigint, is_ambiguous boolean)")


def ambiguous(join: ViewJoin, possible_rows: Statement) -> tuple[Statement, ...]:
    """Find the labels for which `state(d)`, the answer made so far, and `state(j)` of a sync in flight differ.

    Args:
        join: the join that made the answer; it carries `EVENT_COLUMN`.
        possible_rows: like the join's rows, of the batches that such states are made of, with `_from_position` and
            `_until_position`.
    """
    labels = probes(join)
    asked, best = quote(f"{join.answer}_asked"), quote(f"{join.answer}_best")
    rows = possible_rows.sql
    in_state = "r._from_position <= l._position and l._position < r._until_position"
    features = "".join(f", r.{quote(feature)}" for feature in join.features)
    return (
        Statement(
            sql=f"create table {asked} as select l.*, unnest(m.candidates) as _position"
            f" from {labels.sql} as l join {moments_table(join)} as m using ({LABEL_ID})",
            parameters=labels.parameters,
        ),
        Statement(
            sql=f"create table {best} as select l.{LABEL_ID}, l._position, max(r.{EVENT_TIMESTAMP}) as _newest"
            f" from {rows} as r join {asked} as l on {same_keys(join)} and {in_state} and {is_alive(join)}"
            f" group by l.{LABEL_ID}, l._position",
            parameters=possible_rows.parameters,
        ),
        Statement(
            sql=f"create table {ambiguous_table(join)} as select distinct a.{LABEL_ID}, true as is_ambiguous"
            f" from {asked} as a"
            f" left join (select l.{LABEL_ID}, l._position, r.{EVENT_TIMESTAMP} as {EVENT_COLUMN}{features}"
            f" from {rows} as r join (select * from {asked} join {best} using ({LABEL_ID}, _position)) as l"
            f" on {same_keys(join)} and r.{EVENT_TIMESTAMP} = l._newest and {in_state})"
            f" as possible using ({LABEL_ID}, _position)"
            f" left join {quote(join.answer)} as settled using ({LABEL_ID}) where {_differ(join)}",
            parameters=possible_rows.parameters,
        ),
        Statement(sql=f"drop table {asked}"),
        Statement(sql=f"drop table {best}"),
    )


def asof_served(join: ViewJoin) -> tuple[Statement, ...]:
    """The plan `asof` of mode `served`: sorts the view once instead of pairing each label with all it could see.

    A row that is superseded by one of the same entity that is at least as new is never missed: for an entity of which
    that is always so, the winner's `event_timestamp` is the greatest of all rows seen so far, a running maximum that an
    ASOF JOIN looks up. The others (a row vanished, or moved back in time) go the way of the hash plan; where no
    partition has two batches (`bare_rows`) there are none.
    """
    labels = probes(join)
    if join.bare_rows is not None:
        return (*_looked_up(join, labels, into=f"create table {winners_table(join)} as"), *fetch_winners(join))
    keys, hard = ", ".join(map(quote, join.keys)), quote(f"{join.answer}_hard")
    only_hard = Statement(
        sql=f"(select * from {join.labels.sql} semi join"
        f" (select {LABEL_ID} from {labels.sql} semi join {hard} using ({keys})) using ({LABEL_ID}))",
        parameters=labels.parameters,
    )
    others = replace(labels, sql=f"(select * from {labels.sql} anti join {hard} using ({keys}))")
    return (
        Statement(
            sql=f"create table {hard} as with newest as (select {keys}, _seq, any_value(_next_seq) as _next_seq,"
            f" max({EVENT_TIMESTAMP}) as newest from {join.rows.sql} group by {keys}, _seq)"
            f" select distinct {keys} from newest as a left join (select {keys}, _seq as _next_seq, newest from newest)"
            f" as b using ({keys}, _next_seq)"
            " where a._next_seq is not null and (b.newest is null or b.newest < a.newest)",
            parameters=join.rows.parameters,
        ),
        hash_winners(replace(join, labels=only_hard)),
        *_looked_up(join, others, into=f"insert into {winners_table(join)}"),
        Statement(sql=f"drop table {hard}"),
        *fetch_winners(join),
    )


def _looked_up(join: ViewJoin, labels: Statement, *, into: str) -> tuple[Statement, ...]:
    """The winners of these labels, by the running maximum."""
    keys, log = ", ".join(map(quote, join.keys)), quote(f"{join.answer}_log")
    return (
        Statement(
            sql=f"create table {log} as select {keys}, _seen_from, max({EVENT_TIMESTAMP})"
            f" over (partition by {keys} order by _seen_from) as {EVENT_TIMESTAMP} from {join.rows.sql}",
            parameters=join.rows.parameters,
        ),
        Statement(
            sql=f"{into} select l.{LABEL_ID}, r.{EVENT_TIMESTAMP} from {labels.sql} as l"
            f" asof join {log} as r on {same_keys(join)} and l._at >= r._seen_from where {is_alive(join)}",
            parameters=labels.parameters,
            is_asof=True,
        ),
        Statement(sql=f"drop table {log}"),
    )
