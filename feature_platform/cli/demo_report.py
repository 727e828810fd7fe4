"""What `feature-platform demo` shows at its end: read back from ledger, lake and Valkey, nothing remembered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.lake import connect
from feature_platform.lake.sql import quote_identifier, quote_literal
from feature_platform.ledger import Ledger
from feature_platform.offline import FeatureStore
from feature_platform.online import FeatureClient, OnlineRow
from feature_platform.settings import Settings

SERVICE = "departure_delay"
ASKED_BEFORE = timedelta(hours=1)
LABEL_DAYS = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewReport:
    """One view after the demo."""

    view: str
    owner: str
    partitions: int
    rows: int
    checks: tuple[int, int, int]
    """How many passed, warned and failed."""
    lags: tuple[tuple[str, timedelta], ...]
    """Of the newest batch: from each clock to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedReport:
    """One flight, as the online store answers for it and as the lake says."""

    flight: dict[str, Any]
    row: OnlineRow
    lake: dict[str, Any]
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """The training set that was built."""

    path: Path
    rows: int
    columns: int
    positives: float
    filled: float
    """Share of feature cells with a value."""
    ledger_sequence: int


def view_reports(settings: Settings, registry: FeatureRegistry) -> tuple[ViewReport, ...]:
    """What the ledger says of every view."""
    with Ledger.connect(settings.ledger_url) as ledger:
        return tuple(_view_report(ledger, view, settings.store) for view in registry.views.values())


def _view_report(ledger: Ledger, view: FeatureView, store: str) -> ViewReport:
    active = ledger.active_batches(view.key)
    lags: list[tuple[str, timedelta]] = []
    if active:
        newest = max(active, key=lambda batch: batch.partition.end)
        event = newest.partition.end
        if newest.source_watermark is not None:
            lags.append(("event → input arrived", newest.source_watermark - event))
        lags.append(("event → computed", newest.computed_at - event))
        lags.append(("computed → published", newest.published_at - newest.computed_at))
        if online := ledger.online_at(view.key, store).get(newest.batch_id):
            lags.append(("published → online", online - newest.published_at))
    return ViewReport(
        view=view.key,
        owner=view.owner.email,
        partitions=len(active),
        rows=sum(batch.row_count for batch in active),
        checks=ledger.check_counts(view.key),
        lags=tuple(lags),
    )


def next_flight(settings: Settings, *, now: datetime) -> dict[str, Any] | None:
    """The next scheduled departure that a prediction would be asked for; None when the data has ended.

    At night, when no aircraft is assigned yet, the last one that was asked for.
    """
    asked = now + ASKED_BEFORE
    with closing(connect(settings, read_only=True)) as lake:
        cursor = lake.execute(
            """
            select carrier, flight, origin, dest, tailnum, scheduled_departure_at
            from lake.sources.schedules join lake.sources.assignments using (flight_id)
            where scheduled_departure_at > $asked - interval 1 day
            order by scheduled_departure_at <= $asked, abs(epoch(scheduled_departure_at) - epoch($asked)), flight_id
            limit 1
            """,
            {"asked": asked},
        )
        row = cursor.fetchone()
        return dict(zip((column[0] for column in cursor.description), row, strict=True)) if row else None


def served_report(settings: Settings, registry: FeatureRegistry, flight: dict[str, Any]) -> ServedReport:
    """The service's answer for one flight, beside the newest published rows of its entities that are not too old."""
    entity = {name: flight[name] for name in ("carrier", "origin", "dest", "tailnum")}
    with FeatureClient.from_env() as client:
        row = client.get_online_features(SERVICE, [entity])[0]
    now = datetime.now(UTC)
    lake: dict[str, Any] = {}
    with FeatureStore(settings, registry).connect() as connection:
        for selection in registry.service(SERVICE).selections:
            view = registry.views[selection.key]
            where = " and ".join(f"{quote_identifier(name)} = ?" for name in view.entity_names)
            alive = datetime.min.replace(tzinfo=UTC) if view.ttl is None else now - view.ttl
            found = connection.execute(
                f"select * from features.{quote_identifier(view.name)} where {where} and event_timestamp > ?"
                " order by event_timestamp desc limit 1",
                [*(entity[name] for name in view.entity_names), alive],
            )
            values = found.fetchone()
            if values is not None:
                columns = dict(zip((column[0] for column in found.description), values, strict=True))
                lake |= {_answer_name(row, view, name): columns[name] for name in selection.features}
    differences = tuple(name for name, value in row.values.items() if value != lake.get(name))
    return ServedReport(flight=flight, row=row, lake=lake, differences=differences)


def _answer_name(row: OnlineRow, view: FeatureView, feature: str) -> str:
    qualified = f"{view.name}__{feature}"
    return qualified if qualified in row.values else feature


def build_training_set(settings: Settings, registry: FeatureRegistry, out: Path, *, now: datetime) -> TrainingReport:
    """Labels of the last weeks, each with the features as of one hour before its scheduled departure.

    The aircraft is the one assigned by then, which is what a request would name.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    labels = out.with_name("labels.parquet")
    with closing(connect(settings, read_only=True)) as lake:
        lake.execute(
            f"""
            copy (
                select flight_id, carrier, origin, dest, assignments.tailnum, dep_delay > 15 as left_late,
                    scheduled_departure_at - interval {int(ASKED_BEFORE.total_seconds())} seconds as event_timestamp
                from lake.sources.flights left join lake.sources.assignments using (flight_id)
                where not cancelled and scheduled_departure_at > $since and scheduled_departure_at <= $now
                order by event_timestamp, flight_id
            ) to {quote_literal(str(labels))} (format parquet)
            """,
            {"since": now - timedelta(days=LABEL_DAYS), "now": now},
        )
        found = lake.execute("select avg(left_late::integer) from read_parquet(?)", [str(labels)]).fetchone()
    with FeatureStore(settings, registry).get_historical_features(labels, SERVICE) as features:
        features.to_parquet(out)
        shares: Sequence[float] = tuple(features.null_shares().values())
        return TrainingReport(
            path=out,
            rows=features.facts.row_count,
            columns=len(features.facts.label_columns) + len(features.facts.features),
            positives=float(found[0] or 0) if found else 0.0,
            filled=1 - sum(shares) / len(shares) if shares else 0.0,
            ledger_sequence=features.facts.ledger_sequence,
        )
