"""The pushed rows that could have been served to a label, and what became of each.

Rule: found anew from the lake and the ledger, with no part of the join. Of the rows that the store had acknowledged by
the label's time the one with the greatest event time counts, of equal ones the one pushed last; it was served if it is
newer than the batches' row. A row that was logged by then but not yet acknowledged may have been served or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.lake.push_tables import PUSH_NUMBER, PUSHED_AT, pushed_table
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.ledger import Acknowledged
from feature_platform.offline.sets.candidates import Fate, Judged, Sight, span, why_expired

_ACKNOWLEDGED = "acknowledged_pushes"
_LATER, _UNSURE = 3, 10
"""How many rows are shown: those the store had, and newer ones it may not have had."""


def with_pushed(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureView,
    features: Sequence[str],
    sight: Sight,
    rows: tuple[Judged, ...],
    *,
    acknowledged: Sequence[Acknowledged],
    at_sequence: int,
) -> tuple[Judged, ...]:
    """The batches' rows as judged, and the pushed ones beside them, newest first.

    Args:
        connection: a private one; gets a temporary list of pushes.
        view: one that takes pushes.
        features: the features to read.
        sight: what the label could see; nothing is added if what the store held then is not known.
        rows: the batches' rows.
        acknowledged: when the store had each push.
        at_sequence: the set's ledger sequence; later pushes had not happened.
    """
    if sight.asked_at is None or any(value is None for value in sight.keys.values()):
        return rows
    by_then = {one.number: one.at for one in acknowledged if one.at <= sight.asked_at}
    numbers = pa.table({PUSH_NUMBER: pa.array(by_then, pa.int64())})
    connection.register(_ACKNOWLEDGED, numbers)
    try:
        had = f"{PUSH_NUMBER} in (select {PUSH_NUMBER} from {_ACKNOWLEDGED})"
        bounds = {"at_sequence": at_sequence, "asked_at": sight.asked_at}
        sure = _rows(connection, view, features, sight, where=had, limit=_LATER, **bounds)
        unsure = _rows(connection, view, features, sight, where=f"not {had}", limit=_UNSURE, **bounds)
    finally:
        connection.unregister(_ACKNOWLEDGED)
    batches = next((row for row in rows if row.fate is Fate.CHOSEN), None)
    best = sure[0] if sure and sight.is_alive(sure[0].event_timestamp) else None
    if best is not None and batches is not None and best.event_timestamp <= batches.event_timestamp:
        best = None
    winner = best or batches
    judged = [_judge(row, best, winner, sight, by_then) for row in (*sure, *unsure)]
    shown = [row for row in judged if row.fate is not Fate.NOT_ACKNOWLEDGED or _would_win(row, winner)]
    own = [
        replace(row, fate=Fate.OLDER, why="a newer row was pushed") if best and row is batches else row for row in rows
    ]
    return tuple(sorted((*own, *shown), key=lambda row: (row.event_timestamp, row.batch_seq), reverse=True))


def _judge(
    row: Judged, best: Judged | None, winner: Judged | None, sight: Sight, by_then: Mapping[int, datetime]
) -> Judged:
    if row is best:
        fate, why = Fate.CHOSEN, f"pushed, {span(sight.label_time - row.event_timestamp)} old at the label's time"
    elif not sight.is_alive(row.event_timestamp):
        fate, why = Fate.EXPIRED, why_expired(row.event_timestamp, sight)
    elif row.batch_seq in by_then:
        late = winner is not None and row.event_timestamp == winner.event_timestamp
        fate, why = Fate.OLDER, "another row of that time counts" if late else "a newer row was served"
    else:
        fate, why = Fate.NOT_ACKNOWLEDGED, "it may have been served all the same"
    return replace(row, fate=fate, why=why, online_at=by_then.get(row.batch_seq))


def _would_win(row: Judged, winner: Judged | None) -> bool:
    return winner is None or row.event_timestamp >= winner.event_timestamp


def _rows(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureView,
    features: Sequence[str],
    sight: Sight,
    *,
    where: str,
    limit: int,
    **parameters: Any,
) -> list[Judged]:
    keys = " and ".join(f"{quote(name)} = $key_{index}" for index, name in enumerate(sight.keys))
    parameters |= {f"key_{index}": value for index, value in enumerate(sight.keys.values())}
    columns = ", ".join((EVENT_TIMESTAMP, PUSH_NUMBER, PUSHED_AT, *map(quote, features)))
    found = connection.execute(
        f"select {columns} from {pushed_table(view)} where {keys} and {where} and {PUSH_NUMBER} <= $at_sequence"
        f" and {PUSHED_AT} <= $asked_at order by {EVENT_TIMESTAMP} desc, {PUSH_NUMBER} desc limit {limit}",
        parameters,
    ).fetchall()
    return [
        Judged(
            fate=Fate.OLDER,
            why="",
            event_timestamp=event,
            values=dict(zip(features, values, strict=True)),
            batch_id="",
            batch_seq=number,
            partition="pushed",
            code_version="",
            source_watermark=None,
            computed_at=None,
            published_at=pushed_at,
            online_at=None,
        )
        for event, number, pushed_at, *values in found
    ]
