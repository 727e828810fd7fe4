"""The log as labels, and logged against recomputed values, as SQL values: nothing here runs SQL.

Rule: a logged value is compared in the type that its feature is declared with, exactly, and a NULL equals a NULL. Rows
that served nothing (missing, expired) served NULLs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Column, FeatureView
from feature_platform.domain.types import ColumnType, ListType, in_lake
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.lake.sql import quote_literal
from feature_platform.offline.point_in_time import Statement

LOGGED: Final = "logged"
DIFFERING: Final = "differing"
_MICROSECOND: Final = timedelta(microseconds=1)
_BRACES: Final = (("%2C", ","), ("%7B", "{"), ("%7D", "}"), ("%25", "%"))


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
    text = f"split_part(entity_key, ',', {place})"
    unescaped = f"case when {text} = '%' then '' else "
    for escaped, plain in _BRACES:
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


def differing_sql(view: FeatureView, recomputed: str, names: list[str], *, explained: bool) -> str:
    """Table `DIFFERING`: the rows of which some feature differs, and the cause.

    Args:
        view: the view.
        recomputed: relation of the labels with the view's features.
        names: what the features are called there.
        explained: find the causes: the account is `modelled`.
    """
    differs = " or ".join(
        f"{quote(logged_column(place))} is distinct from {quote(name)}" for place, name in enumerate(names)
    )
    rows = f"select * from {recomputed} where {differs}"
    if not explained:
        return f"create or replace table {DIFFERING} as select *, null::varchar as cause from ({rows})"
    keys = " and ".join(f"d.{quote(name)} = f.{quote(name)}" for name in view.entity_names)
    delay = f"to_microseconds({view.availability_delay // _MICROSECOND})"
    alive = "true"
    if view.ttl is not None:
        alive = f"d.{EVENT_TIMESTAMP} - f.{EVENT_TIMESTAMP} < to_microseconds({view.ttl // _MICROSECOND})"
    expected = f"(case when {alive} then f.{EVENT_TIMESTAMP} end)"
    # what the client withheld as expired was no row to the model either
    served = "(case when d._status in ('fresh', 'stale') then d._served_event end)"
    cause = (
        f"case when {served} is null and {expected} is null then 'GONE' when {served} is null then 'NOT_ONLINE'"
        f" when {expected} is null then case when d._served_event + {delay} > d.{EVENT_TIMESTAMP} then 'AHEAD'"
        f" else 'GONE' end when {served} < {expected} then 'BEHIND' when {served} > {expected} then"
        f" case when {served} + {delay} > d.{EVENT_TIMESTAMP} then 'AHEAD' else 'GONE' end else 'RECOMPUTED' end"
    )
    features = f"features.{quote(f'{view.name}_v{view.version}')}"
    return (
        f"create or replace table {DIFFERING} as select d.*, {cause} as cause from ({rows}) d"
        f" asof left join {features} f on {keys} and d.{EVENT_TIMESTAMP} >= f.{EVENT_TIMESTAMP} + {delay}"
    )
