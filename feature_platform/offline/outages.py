"""Outages of an online store as SQL: which labels fall into one. Pure functions, no connection.

Rule: an outage is a store incident of the ledger: from the last sighting of the store as it was until it was known
again. A store that merely lags behind is none; what it held is known, and was stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import pyarrow as pa

from feature_platform.domain.serving_history import INSTANT, ServedHistory
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline.point_in_time import LABEL_ID, LABELS, Statement

AS_OF = "_as_of"
"""Of a label: its time, or in an outage the last instant before it."""
IS_OUTAGE = "_is_outage"
_INSTANTS = pa.timestamp("us", "UTC")


def outage_table(history: ServedHistory, *, oldest: datetime, newest: datetime) -> pa.Table | None:
    """The outages that labels between `oldest` and `newest` can fall into; None if there is none."""
    found = [
        (since, until or newest + INSTANT)
        for since, until in history.outages
        if since < newest and (until is None or until > oldest)
    ]
    if not found:
        return None
    return pa.table(
        {
            "since": pa.array([since for since, _ in found], _INSTANTS),
            "until": pa.array([until for _, until in found], _INSTANTS),
        }
    )


def mark_labels(table: str, outages: str, *, keys: Iterable[str], timestamp_column: str) -> Statement:
    """All labels, with `AS_OF` and `IS_OUTAGE`, but without what only rides along. Outages do not overlap.

    Args:
        table: to be made, unquoted.
        outages: relation of `outage_table`, quoted.
        keys: the labels' key columns.
        timestamp_column: the labels' time.
    """
    time = f"l.{quote(timestamp_column)}"
    needed = ", ".join(f"l.{quote(column)}" for column in dict.fromkeys((LABEL_ID, *keys, timestamp_column)))
    return Statement(
        sql=f"create table {quote(table)} as select {needed}, coalesce(o.since, {time}) as {AS_OF},"
        f" o.since is not null as {IS_OUTAGE} from {LABELS} as l"
        f" left join {outages} as o on {time} > o.since and {time} < o.until"
    )


def excluded_labels(table: str, marked: list[str]) -> Statement:
    """The labels that are in an outage of any of these marked relations."""
    some = " union ".join(f"select {LABEL_ID} from {quote(one)} where {IS_OUTAGE}" for one in marked)
    return Statement(sql=f"create table {quote(table)} as {some}")
