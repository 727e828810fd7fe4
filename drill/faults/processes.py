"""Processes and stores that die, stop or forget."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import valkey

from drill import dagster
from drill.fault import AIRPORTS, CONSUMER, FLIGHTS, PLATFORM, fault
from drill.running import HOUR, Drill
from drill.signals import batches_being_computed, runs_going_on
from drill.stack import CommandError

HOURLY = "hourly_features_after_30_min"


@fault("Valkey is killed", seen_by=("incident unreachable",), tells=(PLATFORM, CONSUMER))
def valkey_down(drill: Drill) -> Iterator[None]:
    """Consumers get an error that says so; the platform goes on computing."""
    drill.stack.kill("valkey")
    yield
    drill.stack.up()


@fault("Valkey loses everything it holds", seen_by=("incident lost",), tells=(FLIGHTS, AIRPORTS, CONSUMER))
def valkey_flushed(drill: Drill) -> Iterator[None]:
    """What it holds is a pure function of the ledger, so it is built again."""
    with valkey.Valkey.from_url(drill.stack.settings.valkey_url) as store:
        store.flushall()
    yield
    drill.stack.command("sync", "--all")


@fault("Dagster's daemon is killed", seen_by=("stopped daemon",), tells=())
def daemon_killed(drill: Drill) -> Iterator[None]:
    """No schedule, no sensor: whoever looks at `status` or at Prometheus sees it, nobody is told by the platform.

    It is away for five hours; what came due in them is computed by itself when it is back.
    """
    drill.stack.kill("daemon")
    yield
    drill.pass_by(5)
    drill.stack.up()


@fault("Postgres is stopped in the middle of a run", seen_by=("stopped postgres",), tells=())
def postgres_restarted(drill: Drill) -> Iterator[None]:
    """Serving goes on; what the run left is seen by nobody, and computed again by itself."""
    drill.materialize("aircraft_state", wait=False)
    drill.until(lambda: bool(drill.stack.run_workers()), seconds=30)
    drill.stack.kill("postgres", signal.SIGINT)
    yield
    drill.stack.up()
    drill.until(lambda: runs_going_on(drill.stack) == 0, seconds=120)
    drill.pass_by(1)


@fault(
    "a run is killed with -9 while it computes",
    seen_by=("incident run_stuck", "incident unfinished airport", "incident failing airport"),
    tells=(),
)
def run_killed(drill: Drill) -> Iterator[None]:
    """Its batch is seen by nobody; the hours that follow are computed by other runs."""
    drill.materialize("airport_weather", wait=False)
    if not drill.until(lambda: batches_being_computed(drill.stack) > 0, seconds=60, every=0.02):
        raise CommandError("no run began to compute")
    for worker in drill.stack.run_workers():
        worker.kill()
    yield
    drill.stack.command("up", "--restart")  # which tells Dagster that the run is dead, so that it begins again


@fault(
    "the schedule of the hourly features is switched off",
    seen_by=("incident automation", "incident stale"),
    tells=(PLATFORM,),
)
def schedule_off(drill: Drill) -> Iterator[None]:
    """Nothing fails: nothing happens, for four hours; what came due in them is computed when it is on again."""
    dagster.stop_schedule(drill.stack.ui, HOURLY)
    yield
    drill.pass_by(4)
    dagster.start_schedule(drill.stack.ui, HOURLY)


@fault("the clock of the machine with the workers is two hours ahead", seen_by=("incident clock",), tells=(PLATFORM,))
def worker_clock_ahead(drill: Drill) -> Iterator[None]:
    """Code server, sensors and run workers believe that it is later; Postgres, Valkey, daemon and readers do not.

    What is begun there is refused, and tried again; the watch judges by the ledger's clock, so no view seems stale.
    """
    drill.stack.clock.skew_workers(2 * HOUR)
    drill.stack.kill("code")
    drill.stack.up(worker_clock=True)
    drill.materialize("airport_weather", wait=False)
    yield
    drill.stack.clock.skew_workers(0 * HOUR)
    drill.stack.kill("code")
    drill.stack.up()
