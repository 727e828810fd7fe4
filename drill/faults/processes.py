"""Processes and stores that die, stop or forget."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import valkey

from drill.fault import AIRPORTS, FLIGHTS, fault
from drill.running import Drill


@fault("Valkey is killed", seen_by=("stopped valkey", "incident"), tells=())
def valkey_down(drill: Drill) -> Iterator[None]:
    """Consumers get an error that says so; the platform goes on computing."""
    drill.stack.kill("valkey")
    drill.minute()
    yield
    drill.stack.up()


@fault("Valkey loses everything it holds", seen_by=("incident lost",), tells=(FLIGHTS, AIRPORTS))
def valkey_flushed(drill: Drill) -> Iterator[None]:
    """What it holds is a pure function of the ledger, so it is built again."""
    with valkey.Valkey.from_url(drill.stack.settings.valkey_url) as store:
        store.flushall()
    yield
    drill.stack.command("sync", "--all")


@fault("Dagster's daemon is killed", seen_by=("stopped daemon",), tells=())
def daemon_killed(drill: Drill) -> Iterator[None]:
    """No schedule, no sensor: whoever looks at `status` or at Prometheus sees it, nobody is told by the platform."""
    drill.stack.kill("daemon")
    yield
    drill.stack.up()


@fault("Postgres is stopped in the middle of a run", seen_by=("stopped postgres",), tells=())
def postgres_restarted(drill: Drill) -> Iterator[None]:
    """Serving goes on; the run fails or is tried again, and what it left is seen by nobody."""
    drill.materialize("aircraft_state", wait=False)
    drill.until(lambda: bool(drill.stack.run_workers()), seconds=30)
    drill.stack.kill("postgres", signal.SIGINT)
    yield
    drill.stack.up()
    drill.materialize("aircraft_state")
