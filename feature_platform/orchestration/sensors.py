"""Sensors that start no run: the watch over data time, and the look at the online store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.errors import ConfigurationError, LedgerUnavailableError, StoreUnavailableError, without_passwords
from feature_platform.orchestration.dead_runs import give_up_batches_of_dead_runs
from feature_platform.orchestration.reasons import one_line
from feature_platform.orchestration.watching_audits import find_leaks
from feature_platform.orchestration.watching_automation import find_dead_automation
from feature_platform.orchestration.watching_backfills import find_failed_backfills
from feature_platform.orchestration.watching_runs import find_failed_runs, find_stuck_runs
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger
    from feature_platform.observability import Problem

INCIDENT_SENSOR = "incidents"
STORE_SENSOR = "look_at_online_store"
_SECONDS_BETWEEN_LOOKS = 60
_LOOK = "look for "
_REGULAR = timedelta(minutes=5)
"""Looks that are further apart than this had a pause between them."""


def build_incident_sensor(settings: Settings, registry: FeatureRegistry) -> dg.SensorDefinition:
    """A sensor that never starts a run: it looks at the ledger and tells owners."""

    @dg.sensor(
        name=INCIDENT_SENSOR,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Everything that is wrong, from stale views to schedules that are switched off: told once,"
        " resolved once.",
    )
    def incidents(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        # imported here: it loads psycopg2, and Apprise once there is something to say
        from feature_platform.ledger import Ledger
        from feature_platform.observability import watch

        with Ledger.connect(settings.ledger_url) as ledger:
            given_up = give_up_batches_of_dead_runs(ledger, context.instance)
            now = ledger.now()  # and not this machine's, which may be wrong
            report = watch(
                ledger,
                registry,
                stores=tuple(settings.all_stores),
                now=now,
                log=lambda: context.log,
                also=find_elsewhere(context, settings, registry, ledger, now=now),
            )
            ledger.beat(_daemons(context.instance))
        dead = f"; {given_up} batch(es) of runs that are over given up" if given_up else ""
        return dg.SkipReason(f"{report}{dead}")

    return incidents


def find_elsewhere(
    context: dg.SensorEvaluationContext, settings: Settings, registry: FeatureRegistry, ledger: Ledger, *, now: datetime
) -> dict[str, Sequence[Problem]]:
    """What is wrong and not in the ledger, by kind; a kind that cannot be judged now is absent.

    That one kind cannot be judged says nothing against the others, and is told as well: a watch that fell over it would
    tell nobody of anything.
    """
    # imported here: it loads psycopg2 and libvalkey
    from feature_platform.observability import (
        find_dead_canaries,
        find_unreachable,
        find_wrong_clocks,
        known_to_watch,
        problem_of_platform,
    )

    instance, repository = context.instance, context.repository_def
    looks: dict[str, Callable[[], Iterable[Problem]]] = {
        "unreachable": lambda: find_unreachable(registry, settings.all_stores),
        "clock": lambda: find_wrong_clocks(ledger, registry),
        "leaks": lambda: find_leaks(instance, registry),
        "run_failed": lambda: (
            *find_failed_runs(instance, ledger, registry, now=now),
            *find_failed_backfills(instance, ledger, registry, now=now),
        ),
    }
    last = context.last_tick_completion_time
    # after a pause the daemon was down, or the machine asleep. Queue, canary and schedules were away, too, and are
    # judged at the next look, when they had the time to go on
    if last is not None and now - datetime.fromtimestamp(last, tz=UTC) < _REGULAR:
        looks["run_stuck"] = lambda: find_stuck_runs(instance, registry, now=now)
        looks["canary"] = lambda: find_dead_canaries(ledger, registry, stores=tuple(settings.all_stores), now=now)
        if repository is not None:
            looks["automation"] = lambda: find_dead_automation(
                instance, repository, registry, now=now, itself=context.sensor_name
            )
    found: dict[str, Sequence[Problem]] = {}
    blind: list[Problem] = []
    for kind, look in looks.items():
        try:
            found[kind] = tuple(look())
        except LedgerUnavailableError:
            raise  # nothing can be told
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            blind.append(
                problem_of_platform(
                    "automation",
                    f"{_LOOK}{kind}",
                    registry,
                    severity="error",
                    message=f"the sensor {INCIDENT_SENSOR} cannot look for `{kind}`, which stays as it was:"
                    f" {type(error).__name__}: {one_line(without_passwords(str(error)))}",
                )
            )
    if blind:
        known = [one for one in ledger.incidents(open_only=True) if one.kind == "automation"]
        others = known_to_watch(one for one in known if not one.subject.startswith(_LOOK))
        found["automation"] = (*found.get("automation", others), *blind)
    return found


def _daemons(instance: dg.DagsterInstance) -> dict[str, datetime]:
    """When each of Dagster's daemons last said that it lives."""
    return {
        f"daemon {kind}": datetime.fromtimestamp(beat.timestamp, tz=UTC)
        for kind, beat in instance.get_daemon_heartbeats().items()
    }


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
        from feature_platform.ledger import Ledger
        from feature_platform.observability import look_at_store

        with Ledger.connect(settings.ledger_url) as ledger:
            said = []
            for store, url in settings.all_stores.items():
                try:
                    report = look_at_store(ledger, registry, store=store, valkey_url=url)
                except (StoreUnavailableError, ConfigurationError) as error:  # an answer, and no failure of the sensor
                    said.append(str(error))
                else:
                    said.append(str(report) if report else "no view is served online")
        return dg.SkipReason("; ".join(said))

    return look
