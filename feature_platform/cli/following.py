"""Watching runs and backfills of Dagster until they are over: bars on a terminal, a line now and then without one.

Rule: ending the watching ends nothing of what is watched, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.dagster_client import RUN_OVER, AssetProgress, BackfillProgress, DagsterClient
from feature_platform.cli.output import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_LINES = 10.0
"""Without a terminal: a log of an hour should be readable."""


@contextmanager
def left_running(notice: str) -> Iterator[None]:
    """Ctrl-C ends the watching, not what is watched."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\n{notice}", err=True)
        raise


def follow_run(client: DagsterClient, run_id: str, *, say: Callable[[str], Any]) -> str:
    """Wait for a run, saying each change once, and why a step is tried again; its final status."""
    said: set[str] = set()
    cursor = None
    while True:
        status, steps = client.run_status(run_id)
        lines = [status.lower()] if status not in RUN_OVER else []
        lines += [f"{step.replace('__', '/')}: {state.lower()}" for step, state in steps.items() if state]
        for line in lines:
            if line not in said:
                said.add(line)
                say(f"  {line}")
        waits, cursor = client.run_waits(run_id, after=cursor)
        for wait in waits:
            say(f"  {wait}")
        if status in RUN_OVER:
            return status
        time.sleep(SECONDS_BETWEEN_LOOKS)


def follow_backfill(client: DagsterClient, backfill_id: str, *, quiet: bool) -> BackfillProgress:
    """Wait for a backfill; how it ended."""
    if quiet:
        return _wait(client, backfill_id, lambda _: None)
    if not console().is_terminal:
        return _wait(client, backfill_id, _Lines())
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console()) as bars:
        tasks: dict[str, TaskID] = {}
        return _wait(client, backfill_id, lambda progress: _draw(bars, tasks, progress))


def _wait(client: DagsterClient, backfill_id: str, show: Callable[[BackfillProgress], Any]) -> BackfillProgress:
    while True:
        progress = client.backfill(backfill_id)
        show(progress)
        if progress.is_over:
            return progress
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _draw(bars: Progress, tasks: dict[str, TaskID], progress: BackfillProgress) -> None:
    for asset in progress.assets:
        if asset.asset not in tasks:
            tasks[asset.asset] = bars.add_task(asset.asset, total=asset.targeted, note="")
        bars.update(tasks[asset.asset], completed=asset.done, note=_note(asset))


def _note(asset: AssetProgress) -> str:
    notes = [f"{asset.running} running"] * bool(asset.running) + [f"{asset.failed} failed"] * bool(asset.failed)
    return ", ".join(notes)


class _Lines:
    """Says how far a backfill is when that has changed, but not more often than every few seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said = ""
        self._said_at = self._began - SECONDS_BETWEEN_LINES

    def __call__(self, progress: BackfillProgress) -> None:
        text = progress_text(progress)
        now = time.monotonic()
        if text == self._said or (now - self._said_at < SECONDS_BETWEEN_LINES and not progress.is_over):
            return
        self._said, self._said_at = text, now
        click.echo(f"  {now - self._began:.0f} s: {text}")


def progress_text(progress: BackfillProgress) -> str:
    """How far a backfill is, in one line: in all, and for each asset that is at work."""
    done, targeted = (sum(getattr(asset, name) for asset in progress.assets) for name in ("done", "targeted"))
    if not targeted:
        return progress.status.lower()
    at_work = [
        f"{asset.asset} {asset.done:,}/{asset.targeted:,} ({_note(asset)})" for asset in progress.assets if _note(asset)
    ]
    return "; ".join([f"{done:,} of {targeted:,} partitions", *at_work])
