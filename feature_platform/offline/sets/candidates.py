"""Why one row of a training set holds the values it holds: the rows that could have won, and what became of each.

Rule: the winner is found anew, from the rows of the key in the lake and the batches that were visible, with no part of
the join. If the set holds something else, the explanation says so.

A row that could have won is visible (its batch is), available (early enough for the label) and alive (within ttl); the
newest such row wins. What is judged here is the same for every mode: a mode only decides which batches were visible
to a label and until which event time rows were available to it (`Sight`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import EVENT_TIMESTAMP
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.ledger import BatchHistory

_LISTED = "visible_batches"
_OLDER, _HIDDEN, _NEWER = 3, 10, 3
"""How many rows are looked at on each side: the winner and those it beat, invisible ones, ones that came too late."""


class Fate(enum.StrEnum):
    """What became of a row that could have been the answer."""

    CHOSEN = "chosen"
    OLDER = "older than the chosen one"
    EXPIRED = "dead: as old as ttl"
    NOT_YET = "not yet available at the label's time"
    SUPERSEDED = "its batch was superseded"
    NOT_PUBLISHED_YET = "published after the set's ledger sequence"
    NOT_ONLINE_YET = "not yet in the online store at the label's time"
    NEVER_PUBLISHED = "its batch was never published"
    NOT_ACKNOWLEDGED = "pushed, but not acknowledged by the store at the label's time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one label could see of one view."""

    label_time: datetime
    keys: Mapping[str, Any]
    """Entity → the label's value."""
    batches: tuple[PublishedBatch, ...]
    """The visible ones; at most one per partition."""
    until: datetime
    """Rows with a later event time were not available."""
    ttl: timedelta | None
    basis: str
    """Why these, in words."""
    asked_at: datetime | None = None
    """When the store was asked, if what it held then is what counts, and is known."""

    @property
    def dead_until(self) -> datetime | None:
        """Rows of this event time or earlier are dead."""
        return None if self.ttl is None else self.label_time - self.ttl

    def is_alive(self, event_timestamp: datetime) -> bool:
        """Whether a row of this event time had not reached ttl."""
        return self.dead_until is None or event_timestamp > self.dead_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One row of the key in the lake."""

    event_timestamp: datetime
    batch_id: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A candidate with its fate and its clocks."""

    fate: Fate
    why: str
    event_timestamp: datetime
    values: Mapping[str, Any]
    batch_id: str
    """Empty: the row was pushed."""
    batch_seq: int
    """Number of the batch; of a pushed row, of the push."""
    partition: str
    """Its key, or `pushed`."""
    code_version: str
    source_watermark: datetime | None
    """Newest `ingested_at` that the batch could read."""
    computed_at: datetime | None
    published_at: datetime | None
    """When its batch was published, or it was pushed."""
    online_at: datetime | None


def find_candidates(
    connection: duckdb.DuckDBPyConnection, table: str, features: Sequence[str], sight: Sight
) -> tuple[Candidate, ...]:
    """The rows around the answer: what was visible and early enough, what hides above it, what came too late.

    Args:
        connection: a private one; gets a temporary list of batches.
        table: the physical table, quoted, or any relation with its columns.
        features: the features to read.
        sight: what the label could see.
    """
    if any(value is None for value in sight.keys.values()):
        return ()
    ids = pa.table({"_batch_id": pa.array([batch.batch_id for batch in sight.batches], pa.string())})
    connection.register(_LISTED, ids)
    try:
        seen = f"_batch_id in (select _batch_id from {_LISTED})"
        winners = _rows(
            connection,
            table,
            features,
            sight,
            where=f"{seen} and {EVENT_TIMESTAMP} <= $until",
            order="desc",
            limit=_OLDER,
        )
        above = _newest_alive(winners, sight)
        hidden = _rows(
            connection,
            table,
            features,
            sight,
            where=f"not {seen} and {EVENT_TIMESTAMP} <= $until and ($above is null or {EVENT_TIMESTAMP} >= $above)",
            order="desc",
            limit=_HIDDEN,
            above=above.event_timestamp if above else sight.dead_until,
        )
        newer = _rows(
            connection, table, features, sight, where=f"{EVENT_TIMESTAMP} > $until", order="asc", limit=_NEWER
        )
    finally:
        connection.unregister(_LISTED)
    return (*winners, *hidden, *newer)


def _rows(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    features: Sequence[str],
    sight: Sight,
    *,
    where: str,
    order: str,
    limit: int,
    **bounds: datetime | None,
) -> list[Candidate]:
    keys = " and ".join(
        f"{_compared(name, value)} = $key_{index}" for index, (name, value) in enumerate(sight.keys.items())
    )
    columns = ", ".join((EVENT_TIMESTAMP, "_batch_id", *map(quote, features)))
    parameters: dict[str, Any] = {f"key_{index}": value for index, value in enumerate(sight.keys.values())}
    parameters |= {"until": sight.until, **bounds}
    rows = connection.execute(
        f"select {columns} from {table} as r where {keys} and {where}"
        f" order by {EVENT_TIMESTAMP} {order}, _batch_id limit {limit}",
        parameters,
    ).fetchall()
    return [
        Candidate(event_timestamp=row[0], batch_id=row[1], values=dict(zip(features, row[2:], strict=True)))
        for row in rows
    ]


def _compared(name: str, value: Any) -> str:
    """The key column. DuckLake asks its catalog for files by a literal, which for Postgres ends at a NUL."""
    return f"concat({quote(name)})" if isinstance(value, str) and "\0" in value else quote(name)


def _newest_alive(winners: Iterable[Candidate], sight: Sight) -> Candidate | None:
    newest = max(winners, key=lambda row: row.event_timestamp, default=None)
    return newest if newest is not None and sight.is_alive(newest.event_timestamp) else None


def judge(
    candidates: Iterable[Candidate],
    sight: Sight,
    histories: Mapping[str, BatchHistory],
    *,
    published_in_time: Mapping[str, bool],
    online_at: Mapping[str, datetime],
) -> tuple[Judged, ...]:
    """The fate of each candidate, newest first.

    Args:
        candidates: rows of the key.
        sight: what the label could see.
        histories: what is recorded of the candidates' batches, by id.
        published_in_time: per published batch, whether the set's ledger sequence includes its publish.
        online_at: per batch, when it was first in the online store.
    """
    candidates = tuple(candidates)
    visible = {batch.batch_id for batch in sight.batches}
    reigning = {batch.partition: batch for batch in sight.batches}
    chosen = _newest_alive((c for c in candidates if c.batch_id in visible and c.event_timestamp <= sight.until), sight)
    judged = []
    for one in candidates:
        history = histories[one.batch_id]
        if one.batch_id in visible:
            fate, why = _judge_visible(one, chosen, sight)
        else:
            fate, why = _judge_hidden(history, reigning.get(history.batch.partition), published_in_time)
        judged.append(
            Judged(
                fate=fate,
                why=why,
                event_timestamp=one.event_timestamp,
                values=one.values,
                batch_id=one.batch_id,
                batch_seq=history.batch.seq,
                partition=history.batch.partition.key,
                code_version=history.code_version,
                source_watermark=history.source_watermark,
                computed_at=history.computed_at,
                published_at=history.published_at,
                online_at=online_at.get(one.batch_id),
            )
        )
    return tuple(sorted(judged, key=lambda one: (one.event_timestamp, one.batch_seq), reverse=True))


def _judge_visible(one: Candidate, chosen: Candidate | None, sight: Sight) -> tuple[Fate, str]:
    if one.event_timestamp > sight.until:
        late = one.event_timestamp - sight.until
        return Fate.NOT_YET, f"available {span(late)} after the label's time"
    if chosen is not None and one is chosen:
        return Fate.CHOSEN, f"{span(sight.label_time - one.event_timestamp)} old at the label's time"
    if not sight.is_alive(one.event_timestamp):
        return Fate.EXPIRED, why_expired(one.event_timestamp, sight)
    return Fate.OLDER, "a newer row of the key was available"


def _judge_hidden(
    history: BatchHistory, reigning: PublishedBatch | None, published_in_time: Mapping[str, bool]
) -> tuple[Fate, str]:
    batch = history.batch
    if history.published_at is None:
        what = (history.failure or "").partition("\n")[0] or f"it is {history.state}"
        return Fate.NEVER_PUBLISHED, what
    if not published_in_time.get(batch.batch_id, False):
        return Fate.NOT_PUBLISHED_YET, f"published at {history.published_at.isoformat(' ', 'seconds')}"
    if reigning is not None and reigning.seq > batch.seq:
        return Fate.SUPERSEDED, f"by batch {reigning.seq} of the same partition"
    return Fate.NOT_ONLINE_YET, "no completed sync had brought it to the store"


def why_expired(event_timestamp: datetime, sight: Sight) -> str:
    """How old a dead row was, beside its ttl."""
    ttl = span(sight.ttl) if sight.ttl else "none"
    return f"{span(sight.label_time - event_timestamp)} old at the label's time, and ttl is {ttl}"


def span(duration: timedelta) -> str:
    """A duration for people."""
    return (
        format_duration(duration) if duration >= timedelta(seconds=1) else f"{duration // timedelta(microseconds=1)} µs"
    )
