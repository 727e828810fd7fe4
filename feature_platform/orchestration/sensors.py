"""Sensors: the watch over data time, which opens and resolves incidents."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.settings import Settings

INCIDENT_SENSOR = "incidents"
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
            report = watch(ledger, registry, store=settings.store, now=datetime.now(UTC), log=context.log)
        return dg.SkipReason(str(report))

    return incidents
