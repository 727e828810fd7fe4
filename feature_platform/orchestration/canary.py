"""The canary in Dagster: a sensor that sends a value the whole way every five minutes, and starts no run.

Rule: no run, because 288 a day would bury those of the views, wait behind backfills, and cost seconds of processor time
each where the way itself takes a quarter of one. What came of it is in the ledger, where `incidents` looks.
"""

from __future__ import annotations

from typing import Final

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.settings import Settings

SENSOR: Final = "canary"
SECONDS_BETWEEN: Final = 300


def build_canary_sensor(settings: Settings, registry: FeatureRegistry) -> dg.SensorDefinition:
    """A sensor that never starts a run: it writes, syncs, reads and compares a value for each online store."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=SECONDS_BETWEEN,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Whether a fresh value comes through to each online store, from the lake to a client.",
    )
    def canary(_: dg.SensorEvaluationContext) -> dg.SkipReason:
        # imported here: it loads DuckDB, pyarrow and libvalkey, which definitions do not need
        from feature_platform.canary import run_canary
        from feature_platform.errors import LockBusyError

        try:
            reads = run_canary(settings, registry, run_id=SENSOR)
        except LockBusyError as error:  # a deploy; the next round is five minutes away
            return dg.SkipReason(f"not tried: {error}")
        said = (
            f"store {read.store}: read {read.took.total_seconds():.2f} s after it was written"
            if read.is_ok and read.took
            else f"store {read.store}: failed at {read.failed_at}: {read.failure}"
            for read in reads
        )
        return dg.SkipReason("; ".join(said))

    return canary
