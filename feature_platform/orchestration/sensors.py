"""Sensors that start no run: the watch over data time, and the look at the online store."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.orchestration.dead_runs import give_up_batches_of_dead_runs
from feature_platform.settings import Settings

INCIDENT_SENSOR = "incidents"
STORE_SENSOR = "look_at_online_store"
_SECONDS_BETWEEN_LOOKS = 60


def build_incident_sensor(settings: Settings, registry: FeatureRegistry) -> dg.SensorDefinition:
    """A sensor that never starts a run: it looks at the ledger and tells owners."""

    @dg.sensor(
        name=INCIDENT_SENSOR,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Staleness by data time, batches left unfinished, failing partitions: told once, resolved once.",
    )
    def incidents(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        # imported here: it loads psycopg2, and Apprise once there is something to say
        from feature_platform.ledger import Ledger
        from feature_platform.observability import watch

        with Ledger.connect(settings.ledger_url) as ledger:
            given_up = give_up_batches_of_dead_runs(ledger, context.instance)
            report = watch(ledger, registry, store=settings.store, now=datetime.now(UTC), log=lambda: context.log)
        dead = f"; {given_up} batch(es) of runs that are over given up" if given_up else ""
        return dg.SkipReason(f"{report}{dead}")

    return incidents


def build_store_sensor(settings: Settings, registry: FeatureRegistry) -> dg.SensorDefinition:
    """A sensor that never starts a run: it asks the online store where it is, and the ledger keeps the answer."""

    @dg.sensor(
        name=STORE_SENSOR,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="What the online store says of its position: the evidence behind training mode `served`.",
    )
    def look(_: dg.SensorEvaluationContext) -> dg.SkipReason:
        # imported here: it loads psycopg2 and libvalkey
        from feature_platform.errors import StoreUnavailableError
        from feature_platform.ledger import Ledger
        from feature_platform.observability import look_at_store

        with Ledger.connect(settings.ledger_url) as ledger:
            said = []
            for store, url in settings.all_stores.items():
                try:
                    report = look_at_store(ledger, registry, store=store, valkey_url=url)
                except StoreUnavailableError as error:  # an answer about the store, and no failure of the sensor
                    said.append(str(error))
                else:
                    said.append(str(report) if report else "no view is served online")
        return dg.SkipReason("; ".join(said))

    return look
