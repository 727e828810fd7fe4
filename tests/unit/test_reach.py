"""How far back compiled SQL reaches: known only when every reading is bounded."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from online_support import make_view

from feature_platform.domain.feature_view import Source
from feature_platform.materialization.reach import lookbacks

DAY = 86400
EVENTS, STAGED = '"lake"."sources"."events"', '"lake"."staging"."stg_events"'
SOURCE = Source(
    unique_id="source.tiny.tiny.events",
    name="tiny.events",
    schema="sources",
    table="events",
    loaded_at_field="ingested_at",
    event_time="known_at",
    reporting_lag=timedelta(minutes=10),
)
VIEW = replace(make_view(), sources=(SOURCE,))


def node(unique_id, relation, *parents, **config):
    return SimpleNamespace(
        unique_id=unique_id,
        name=unique_id.rpartition(".")[2],
        relation_name=relation,
        config=SimpleNamespace(**config),
        depends_on=SimpleNamespace(nodes=list(parents)),
    )


def manifest(*reads: str, **staged):
    return SimpleNamespace(
        nodes={
            VIEW.unique_id: node(VIEW.unique_id, "", *reads),
            "model.stg_events": node("model.stg_events", STAGED, SOURCE.unique_id, **staged),
        },
        sources={SOURCE.unique_id: node(SOURCE.unique_id, EVENTS)},
    )


def bounded(relation: str, days: int, event_time: str = "known_at") -> str:
    text = relation.replace('"', '\\"')
    comment = f'/* feature_rows {{"relation": "{text}", "event_time": "{event_time}", "seconds": {days * DAY}}} */'
    return f"{comment} (select * from {relation} where …)"


@pytest.mark.parametrize(
    ("reads", "staged", "sql", "days"),
    [
        (("model.stg_events",), {}, f"select * from {bounded(STAGED, 3)}", 3),
        ((SOURCE.unique_id,), {}, f"select * from {bounded(EVENTS, 3)}", 3),
        # twice: the longer one
        (("model.stg_events",), {}, f"from {bounded(STAGED, 3)} join {bounded(STAGED, 7)}", 7),
        # besides the bounded reading an unbounded one
        (("model.stg_events",), {}, f"from {bounded(STAGED, 3)} join {STAGED}", None),
        (("model.stg_events",), {}, f"from {STAGED}", None),
        # bounded by a column that is not the source's event time, unless the model in between declares it
        (("model.stg_events",), {}, f"from {bounded(STAGED, 3, 'sent_at')}", None),
        (("model.stg_events",), {"event_time": "sent_at"}, f"from {bounded(STAGED, 3, 'sent_at')}", 3),
        (("model.stg_events",), {"event_time": "sent_at"}, f"from {bounded(STAGED, 3)}", None),
        # one way bounded, the other not
        (("model.stg_events", SOURCE.unique_id), {}, f"from {bounded(STAGED, 3)} join {EVENTS}", None),
        (("model.stg_events", SOURCE.unique_id), {}, f"from {bounded(STAGED, 3)} join {bounded(EVENTS, 1)}", 3),
        # the bound of a CTE says nothing of what the CTE reads
        (("model.stg_events",), {}, f"with c as (select * from {STAGED}) from {bounded('c', 3)}", None),
        # an ephemeral model stands in the SQL once, where it is defined
        (
            ("model.stg_events",),
            {"materialized": "ephemeral"},
            f"with __dbt__cte__stg_events as (select 1) select * from {bounded('__dbt__cte__stg_events', 3)}",
            3,
        ),
        ((), {}, "select 1", None),
    ],
)
def test_lookback(reads, staged, sql, days):
    expected = None if days is None else timedelta(days=days)
    assert lookbacks(VIEW, sql, manifest(*reads, **staged)) == {"tiny.events": expected}
