"""What child processes of tests do: run, and die where they are told to. Imported once by the fork server."""

from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import datetime
from multiprocessing.context import ForkServerContext, ForkServerProcess

import dbt.cli.main  # noqa: F401 # preloaded: a child then starts in milliseconds

from feature_platform.declaration import load_registry
from feature_platform.domain.windows import parse_partition_key
from feature_platform.lake import connect
from feature_platform.late_data import scan_all
from feature_platform.ledger import Ledger
from feature_platform.maintenance import maintain
from feature_platform.materialization import RunEvent, Step, deploy, materialize
from feature_platform.settings import Settings


def fork_context() -> ForkServerContext:
    """Children are forks of a process that has imported this module and nothing more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def start(function, *arguments) -> ForkServerProcess:
    process = fork_context().Process(target=function, args=arguments)
    process.start()
    return process


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def materialize_and_die(settings: Settings, view: str, keys: tuple[str, ...], step: str) -> None:
    """Run until the step; `inserted` is inside dbt's transaction: rows are written and not committed."""
    inserting = False

    def listen(event: RunEvent) -> None:
        nonlocal inserting
        if event.step is Step.DBT and step == "inserted":
            if inserting and event.dbt.info.name == "SQLQueryStatus":
                die()
            inserting = inserting or (event.dbt.info.name == "SQLQuery" and "insert into" in event.dbt.data.sql)
        if event.step.value == step:
            die()

    _materialize(settings, view, keys, f"dies at {step}", listen)


def materialize_each(settings: Settings, views: tuple[tuple[str, tuple[str, ...]], ...], run_id: str) -> None:
    """One run per partition."""
    for view, keys in views:
        for key in keys:
            _materialize(settings, view, (key,), run_id)


def deploy_and_die(settings: Settings, action: str) -> None:
    def listen(line: str) -> None:
        if line.startswith(action):
            die()

    deploy(settings, progress=listen)


def _materialize(settings: Settings, view: str, keys: tuple[str, ...], run_id: str, listen=lambda _: None) -> None:
    registry = load_registry(settings.manifest_path)
    grain = registry.view(view).grain
    partitions = [parse_partition_key(key, grain) for key in keys]
    materialize(settings, registry, view, partitions, run_id=run_id, on_event=listen)


def scan_and_die(settings: Settings, moment: str) -> None:
    """Look for late rows; die when they are read and not recorded, or right after they are."""
    with Ledger.connect(settings.ledger_url) as ledger, connect(settings, read_only=True) as lake:
        record = ledger.record_scan

        def dying(*arguments, **options):
            if moment == "read":
                die()
            record(*arguments, **options)
            die()

        ledger.record_scan = dying
        list(scan_all(ledger, lake, load_registry(settings.manifest_path), run_id="dies"))


def maintain_and_die(settings: Settings, now: datetime, step: str) -> None:
    """Maintain until a line of progress ends like this."""

    def listen(line: str) -> None:
        if line.endswith(step):
            die()

    maintain(settings, load_registry(settings.manifest_path), now=now, progress=listen)


def maintain_repeatedly(settings: Settings, now: datetime, times: int) -> None:
    for _ in range(times):
        maintain(settings, load_registry(settings.manifest_path), now=now)
