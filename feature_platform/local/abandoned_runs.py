"""Tell Dagster that runs of an earlier stack are over. Run as a program, with their ids.

Rule: a run in progress needs a daemon above it. If a stack was killed (or the machine rebooted) its runs stay "started"
for ever, because Dagster's local launcher cannot ask whether a worker lives; each would keep one of the few slots.
They are marked as failed, and those that failed through no fault of their own are retried by Dagster's own rule. A
daemon that lives tries that at once and never again, so the new code server has to be there first.
"""

from __future__ import annotations

import sys
from contextlib import closing

import click
import psycopg2

_IN_PROGRESS = ("STARTING", "STARTED", "CANCELING")


def in_progress(database: str) -> tuple[str, ...]:
    """The runs that Dagster's storage takes to be in progress; none if it has no tables yet.

    Args:
        database: libpq address of Dagster's database.
    """
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('runs') is not null")
        if cursor.fetchone() != (True,):
            return ()
        cursor.execute("select run_id from runs where status = any(%s)", (list(_IN_PROGRESS),))
        return tuple(run_id for (run_id,) in cursor.fetchall())


def main(run_ids: list[str]) -> None:
    """Mark runs that are still in progress as failed, those that were being cancelled as cancelled."""
    from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

    statuses = [DagsterRunStatus(name) for name in _IN_PROGRESS]
    with DagsterInstance.get() as instance:
        for run in instance.get_runs(filters=RunsFilter(run_ids=run_ids, statuses=statuses)):
            if run.status == DagsterRunStatus.CANCELING:
                instance.report_run_canceled(run, "The local stack was stopped while this run was being cancelled.")
            else:
                instance.report_run_failed(run, "The local stack was stopped while this run was in progress.")
            click.echo(run.run_id)


if __name__ == "__main__":
    main(sys.argv[1:])
