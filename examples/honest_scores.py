"""What a model's offline score is worth: the same model, three joins, and what each would really have scored.

Rule: nothing differs but the join. Labels, features, model and periods are the same; the last column gives every model
the features as they would have been served, point-in-time correct, in months that none of them has seen.

Run it on a finished demo: `make example`. It reads views that the demo backfills over all history.

- *same day* joins the feature row of the flight's own day, as one joins two tables on a date. That row was computed at
  midnight after it: it knows the rest of the day, and the flight itself.
- *newest* joins the newest row of each key, as one joins a table that holds the present.
- *point in time* asks `get_historical_features`: the newest row that was there an hour before the scheduled departure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import click
import duckdb
import numpy as np
import pyarrow as pa

from feature_platform.errors import FeaturePlatformError, NotDeployedError
from feature_platform.lake import connect
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline import FeatureStore

VIEWS = ("carrier_delays", "route_delays", "aircraft_profile")
"""The views with months of history after `make demo`."""

WARM_UP = timedelta(days=28)
"""The longest window of the features: before, they see less than they say."""

OUTCOME = "left_late"
KNOWN_AT_BOOKING = ("distance", "local_hour")

LABELS = f"""
    select
        flight_id, flights.carrier, flights.origin, flights.dest, assignments.tailnum,
        dep_delay > 15 as {OUTCOME}, distance,
        hour(timezone('America/New_York', scheduled_departure_at)) as local_hour,
        scheduled_departure_at - interval 1 hour as event_timestamp
    from lake.sources.flights left join lake.sources.assignments using (flight_id)
    where not cancelled
    order by event_timestamp, flight_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """Which labels are learned from, scored offline, and scored as if live. In order of time, without overlap."""

    learned: np.ndarray
    held_out: np.ndarray
    later: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of one join: its own judgement of itself, and what came of it."""

    join: str
    offline: float
    live: float
    """The same model, the features as served: areas under the ROC curve."""
    caught: float
    """Of the tenth of the later flights it fears most, the share that did leave late."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print the scores for programs.")
def main(*, as_json: bool) -> None:
    """Train one model on three joins, and show what each offline score was worth.

    Needs a finished `make demo`; changes nothing. Takes some ten seconds. docs/concepts/time.md explains the answer.
    """
    began = time.monotonic()
    try:
        scores, periods = compare(FeatureStore.from_env())
    except FeaturePlatformError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({score.join.replace(" ", "_"): asdict(score) for score in scores}))
        return
    counts = [int(period.sum()) for period in (periods.learned, periods.held_out, periods.later)]
    click.echo(
        f"\nWill a flight leave more than 15 minutes late? Logistic regression on {counts[0]:,} flights,\n"
        f"scored offline on the next {counts[1]:,}, and live on the {counts[2]:,} after them.\n\n"
        "join             offline AUC   live AUC   live - offline   late among the 10% it fears most"
    )
    for score in scores:
        click.echo(
            f"{score.join:<15}{score.offline:>13.3f}{score.live:>11.3f}{score.live - score.offline:>+17.3f}"
            f"{score.caught:>35.1%}"
        )
    click.echo(f"\n{time.monotonic() - began:.0f} s. Why: docs/concepts/time.md")


def compare(store: FeatureStore) -> tuple[list[Scores], Periods]:
    """Join in three ways, train three models, score each twice."""
    with closing(connect(store.settings, read_only=True)) as lake:
        labels = lake.execute(LABELS).to_arrow_table()
    periods = periods_of(labels)
    click.echo(f"{labels.num_rows:,} flights; joining the features of {', '.join(VIEWS)} in three ways", err=True)
    with store.get_historical_features(labels, VIEWS, mode="modelled") as features:
        if all(share == 1 for share in features.null_shares().values()):
            raise NotDeployedError(
                "the views hold nothing about these flights", hint="run `make demo`, which backfills them, to its end"
            )
        columns = [(column.view, column.feature, column.name) for column in features.facts.features]
        as_served = features.to_arrow()
    with store.connect() as connection:
        connection.register("labels", labels)
        joined = {
            "same day": connection.execute(same_day(store, columns)).to_arrow_table(),
            "newest": connection.execute(newest(store, columns)).to_arrow_table(),
            "point in time": as_served,
        }
    click.echo("training on each join", err=True)
    late = labels[OUTCOME].to_numpy().astype(bool)
    served = inputs(as_served, columns)
    return [score(join, inputs(table, columns), served, late, periods) for join, table in joined.items()], periods


def same_day(store: FeatureStore, columns: list[tuple[str, str, str]]) -> str:
    """SQL: each label with the row of the partition it lies in. Wrong: that row is of the partition's end."""
    joins = []
    for key, view in viewed(store).items():
        # what carries the date of its day (or month), as tables of a warehouse do: (start, end] has its start's date
        day = f"date_trunc('{view.grain}', {quote(key)}.event_timestamp - interval 1 microsecond)"
        on = " and ".join(f"{quote(key)}.{quote(name)} = labels.{quote(name)}" for name in view.entity_names)
        joins.append(
            f"left join features.{quote(view.name)} as {quote(key)}"
            f" on {on} and {day} = date_trunc('{view.grain}', labels.event_timestamp)"
        )
    return joined_sql(columns, joins)


def newest(store: FeatureStore, columns: list[tuple[str, str, str]]) -> str:
    """SQL: each label with the newest row of its keys. Wrong: labels of March get values of today."""
    joins = []
    for key, view in viewed(store).items():
        keys = ", ".join(quote(name) for name in view.entity_names)
        joins.append(
            f"left join (from features.{quote(view.name)}"
            f" qualify row_number() over (partition by {keys} order by event_timestamp desc) = 1) as {quote(key)}"
            f" on {' and '.join(f'{quote(key)}.{quote(name)} = labels.{quote(name)}' for name in view.entity_names)}"
        )
    return joined_sql(columns, joins)


def viewed(store: FeatureStore) -> Mapping[str, Any]:
    """The views by their keys."""
    return {view.key: view for view in map(store.registry.view, VIEWS)}


def joined_sql(columns: list[tuple[str, str, str]], joins: list[str]) -> str:
    """SQL: the labels in their order with the features under the names that the right join gives them."""
    chosen = ", ".join(f"{quote(view)}.{quote(feature)} as {quote(name)}" for view, feature, name in columns)
    known = ", ".join(f"labels.{name}" for name in KNOWN_AT_BOOKING)
    return f"select {known}, {chosen} from labels {' '.join(joins)} order by labels.event_timestamp, labels.flight_id"


def periods_of(labels: pa.Table) -> Periods:
    """After the warm-up: the first half is learned from, the next quarter held out, the last is the future."""
    times = labels["event_timestamp"].to_numpy()
    if not len(times) or times[-1] - times[0] < np.timedelta64(3 * WARM_UP):
        raise NotDeployedError(
            "there is too little history to learn from",
            found=f"{len(times):,} flights",
            allowed=f"{3 * WARM_UP.days} days of flights",
            hint="run `make demo` first",
        )
    begin = times[0] + np.timedelta64(WARM_UP)
    half, three_quarters = begin + (times[-1] - begin) / 2, begin + (times[-1] - begin) * 3 / 4
    return Periods(
        learned=(times >= begin) & (times < half),
        held_out=(times >= half) & (times < three_quarters),
        later=times >= three_quarters,
    )


def inputs(table: pa.Table, columns: list[tuple[str, str, str]]) -> np.ndarray:
    """What the model sees: every number and truth value, NULL as NaN."""
    names = [*KNOWN_AT_BOOKING, *(name for _, _, name in columns if is_number(table.schema.field(name).type))]
    chosen = ", ".join(f"{quote(name)}::float as {quote(name)}" for name in names)
    found = duckdb.from_arrow(table).project(chosen).fetchnumpy()
    return np.column_stack([np.ma.filled(found[name], np.nan) for name in names])


def is_number(kind: pa.DataType) -> bool:
    """Whether a model can take it as it is."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def score(join: str, own: np.ndarray, served: np.ndarray, late: np.ndarray, periods: Periods) -> Scores:
    """Train on one join; judge by that join, and by what would have been served."""
    # imported here: it takes seconds, and a demo that is not finished is said at once
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(own[periods.learned], late[periods.learned])
    offline = model.predict_proba(own[periods.held_out])[:, 1]
    live = model.predict_proba(served[periods.later])[:, 1]
    feared = np.argsort(live, kind="stable")[-len(live) // 10 :]
    return Scores(
        join=join,
        offline=float(roc_auc_score(late[periods.held_out], offline)),
        live=float(roc_auc_score(late[periods.later], live)),
        caught=float(late[periods.later][feared].mean()),
    )


if __name__ == "__main__":
    main()
