"""The check `fresh` of every view: what is served, by data time, against the SLA; with the lag of each stage.

Rule: a run says it of what it has just served; between runs a sensor says it whenever the verdict changes, and once an
hour, so that a check is as old as the daemon's last look and not as the last run. Dagster's own policy beside it
counts runs; where the two disagree, this one is right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView, FreshnessSla
from feature_platform.orchestration import keys, metadata
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger
    from feature_platform.observability import Freshness, Frontiers

CHECK = "fresh"
SENSOR = "judge_freshness"
_SECONDS_BETWEEN_LOOKS = 60
_REPEATED_AFTER = timedelta(hours=1)
_LEAST_WINDOW = timedelta(seconds=60)


def native_freshness(sla: FreshnessSla) -> dg.FreshnessPolicy | None:
    """Dagster's own policy, so that its UI shows the SLA. It counts runs, not data: see `observability.freshness`."""
    if sla.error_after is None or sla.error_after < _LEAST_WINDOW:
        return None
    warn = sla.warn_after if sla.warn_after and _LEAST_WINDOW <= sla.warn_after < sla.error_after else None
    return dg.FreshnessPolicy.time_window(fail_window=sla.error_after, warn_window=warn)


def freshness_spec(view: FeatureView) -> dg.AssetCheckSpec:
    """The check, on the asset whose rows are judged: those in the online store, or those that are published."""
    bounds = {"warn": view.freshness.warn_after, "error": view.freshness.error_after}
    said = ", ".join(f"{name} after {format_duration(bound)}" for name, bound in bounds.items() if bound)
    return dg.AssetCheckSpec(
        CHECK,
        asset=_asset(view),
        description=f"Age of the newest event that is served, in every store: {said or 'no SLA'}.",
    )


def freshness_result(settings: Settings, view: FeatureView, ledger: Ledger, *, now: datetime) -> dg.AssetCheckResult:
    """The verdict now, over all stores: the worst counts."""
    return dg.AssetCheckResult(asset_key=_asset(view), check_name=CHECK, **_judge(settings, view, ledger, now=now))


def build_freshness_sensor(settings: Settings, registry: FeatureRegistry) -> dg.SensorDefinition:
    """A sensor that starts no run: it says the verdict when it changes, and once an hour."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Says the check `fresh` of every view when its verdict changes, and once an hour.",
    )
    def judge(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # imported here: it loads psycopg2
        from feature_platform.ledger import Ledger

        said: dict[str, Any] = json.loads(context.cursor or "{}")
        with Ledger.connect(settings.ledger_url) as ledger:
            now = ledger.now()
            verdicts = {view.key: _judge(settings, view, ledger, now=now) for view in registry.views.values()}
        news = {key: one for key, one in verdicts.items() if _is_news(said.get(key), one, now=now)}
        if not news:
            return dg.SkipReason("no verdict has changed")
        said = {key: said[key] for key in verdicts if key in said}
        said |= {key: [_summary(one), now.isoformat()] for key, one in news.items()}
        events = [
            dg.AssetCheckEvaluation(asset_key=_asset(registry.views[key]), check_name=CHECK, blocking=False, **one)
            for key, one in news.items()
        ]
        return dg.SensorResult(asset_events=events, cursor=json.dumps(said))

    return judge


def _asset(view: FeatureView) -> dg.AssetKey:
    return keys.online_key(view) if view.is_served else keys.view_key(view)


def _judge(settings: Settings, view: FeatureView, ledger: Ledger, *, now: datetime) -> dict[str, Any]:
    # imported here: it loads psycopg2
    from feature_platform.observability import FreshnessState, freshness_of_view, frontiers_of

    stores = tuple(settings.all_stores)
    found = freshness_of_view(ledger, view, stores=stores, now=now)
    worst = max(found, key=lambda one: (one.state in _BAD, one.state is FreshnessState.ERROR, one.age))
    frontiers = [frontiers_of(ledger, view, one.store or settings.store) for one in found]
    return {
        "passed": worst.state not in _BAD,
        "severity": dg.AssetCheckSeverity.ERROR if worst.state is FreshnessState.ERROR else dg.AssetCheckSeverity.WARN,
        "description": _sentence(worst),
        "metadata": _metadata(worst, found, frontiers, now=now),
    }


_BAD = ("warn", "error")


def _sentence(freshness: Freshness) -> str:
    allowed = f", {format_duration(freshness.allowed)} are allowed" if freshness.allowed else ""
    where = f"in store {freshness.store}" if freshness.store else "in the lake"
    age = format_duration(freshness.age)
    if freshness.newest_event is None:
        return f"nothing was ever served {where}, {age} after it could have been{allowed}"
    return f"the newest event {where} is {age} old{allowed}"


def _metadata(
    worst: Freshness, found: Sequence[Freshness], frontiers: Sequence[Frontiers], *, now: datetime
) -> dict[str, Any]:
    """Numbers of the worst store, which Dagster plots, and a table if there are several."""
    of_worst = frontiers[found.index(worst)]
    entries: dict[str, Any] = {"state": worst.state.value, "age_seconds": worst.age.total_seconds()}
    if worst.allowed is not None:
        entries["allowed_seconds"] = worst.allowed.total_seconds()
    entries |= dict(_lag_seconds(of_worst, now=now))
    entries |= {f"{name}_through": dg.MetadataValue.timestamp(at) for name, at in of_worst.instants().items()}
    if len(found) > 1:
        entries["stores"] = metadata.table(
            ("store", "state", "newest event", "age"),
            (
                (
                    one.store or "",
                    one.state.value,
                    one.newest_event.isoformat() if one.newest_event else "never",
                    format_duration(one.age),
                )
                for one in found
            ),
        )
    return entries


def _lag_seconds(frontiers: Frontiers, *, now: datetime) -> Iterator[tuple[str, float]]:
    for stage, lag in frontiers.lags(now=now).items():
        if lag is not None:
            yield f"lag_{stage}_seconds", lag.total_seconds()


def _summary(verdict: Mapping[str, Any]) -> str:
    return f"{verdict['passed']} {verdict['severity'].value}"


def _is_news(said: Sequence[str] | None, verdict: Mapping[str, Any], *, now: datetime) -> bool:
    if said is None:
        return True
    before, at = said
    return before != _summary(verdict) or now - datetime.fromisoformat(at) >= _REPEATED_AFTER
