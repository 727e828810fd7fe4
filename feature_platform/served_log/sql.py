"""The log as labels, and logged against recomputed values, as SQL values: nothing here runs SQL.

Rule: a logged value is compared in the type that its feature is declared with, exactly, and a NULL equals a NULL. Rows
that served nothing (missing, expired) served NULLs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView
from feature_platform.domain.types import ColumnType, ListType, in_lake
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.lake.sql import quote_literal
from feature_platform.offline.point_in_time import Statement
from feature_platform.offline.provenance import Provenance
from feature_platform.online.keys import EMPTY, ESCAPES, SEPARATOR

LOGGED: Final = "logged"
DIFFERING: Final = "differing"
_MICROSECOND: Final = timedelta(microseconds=1)


def choose_logged(
    table: str, *, store: str, request_id: str | None, since: datetime | None, until: datetime | None
) -> Statement:
    """Table `LOGGED`: the rows to compare. An entry that a client sent twice is there once."""
    conditions, parameters = ["store = $store"], {"store": store}
    given: dict[str, tuple[str, Any]] = {
        "request_id": ("request_id = $request_id", request_id),
        "since": ("requested_at >= $since", since),
        "until": ("requested_at < $until", until),
    }
    for name, (condition, value) in given.items():
        if value is not None:
            conditions.append(condition)
            parameters[name] = value
    return Statement(
        sql=f"create table {LOGGED} as select distinct * from {table} where {' and '.join(conditions)}",
        parameters=parameters,
    )


def logged_column(place: int) -> str:
    """The column that holds what was served of the feature in this place."""
    return f"_logged_{place}"


def labels_sql(view: FeatureView) -> str:
    """The rows of one view (parameter `view`) as labels: keys, time of the request, and what was served.

    Requests of which only was logged which row was served are left out, unless it had nothing to serve.
    """
    keys = [
        f"{_key_component(column, place)} as {quote(column.name)}"
        for place, column in enumerate(view.entities, start=1)
    ]
    served = [
        f"case when status in ('fresh', 'stale') then {_typed(column)} end as {quote(logged_column(place))}"
        for place, column in enumerate(view.features)
    ]
    return (
        f"select {', '.join(keys)}, requested_at as {EVENT_TIMESTAMP}, request_id as _request_id,"
        f" entity_key as _entity_key, status as _status, position as _position, event_timestamp as _served_event,"
        f" {', '.join(served)} from {LOGGED} where view = $view"
        " and (\"values\" is not null or status in ('missing', 'expired'))"
        " order by requested_at, request_id, entity_number"
    )


def _key_component(column: Column, place: int) -> str:
    """A key column out of the key in the store: docs/reference/online-format.md."""
    text = f"split_part(entity_key, {quote_literal(SEPARATOR)}, {place})"
    unescaped = f"case when {text} = {quote_literal(EMPTY)} then '' else "
    for plain, escaped in reversed(ESCAPES):
        text = f"replace({text}, {quote_literal(escaped)}, {quote_literal(plain)})"
    return f"({unescaped}{text} end)::{column.type.value}"


def _typed(column: Column) -> str:
    """A feature out of the JSON that the drain wrote."""
    path = quote_literal("$." + quote(column.name))
    kind = in_lake(column.type)
    if isinstance(kind, ListType):
        element = quote_literal(f'["{kind.element.value}"]')
        return f'from_json("values"->{path}, {element})'
    if kind is ColumnType.BLOB:
        return f'unhex("values"->>{path})'
    return f'("values"->>{path})::{kind.value}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """The labels with a view's features as one mode gives them."""

    relation: str
    features: Sequence[str]
    """What the features are called there, in the view's order."""
    provenance: str
    """The column that says how far the answer can be vouched for."""
    event_timestamp: str
    """The column with the event time of the row that the answer comes from."""


def judged_sql(recomputed: Recomputed) -> str:
    """The rows for which there is an answer that can be vouched for."""
    vouched = f"{quote(recomputed.provenance)} in ('{Provenance.SERVED_EXACT}', '{Provenance.MODELLED}')"
    return f"select * from {recomputed.relation} where {vouched}"


def differing_sql(view: FeatureView, recomputed: Recomputed) -> str:
    """Table `DIFFERING`: the rows of which some feature differs, with `cause` where the answer is modelled."""
    differs = " or ".join(
        f"{quote(logged_column(place))} is distinct from {quote(name)}"
        for place, name in enumerate(recomputed.features)
    )
    delay = f"to_microseconds({view.availability_delay // _MICROSECOND})"
    expected = quote(recomputed.event_timestamp)
    # what the client withheld as expired was no row to the model either
    served = "(case when _status in ('fresh', 'stale') then _served_event end)"
    ahead_or_gone = f"case when {served} + {delay} > {EVENT_TIMESTAMP} then 'AHEAD' else 'GONE' end"
    cause = (
        f"case when {quote(recomputed.provenance)} <> '{Provenance.MODELLED}' then null"
        f" when {served} is null then 'NOT_ONLINE'"
        f" when {expected} is null or {served} > {expected} then {ahead_or_gone}"
        f" when {served} < {expected} then 'BEHIND' else 'RECOMPUTED' end"
    )
    return (
        f"create or replace table {DIFFERING} as select *, {cause} as cause"
        f" from ({judged_sql(recomputed)}) where {differs}"
    )
