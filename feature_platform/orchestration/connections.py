"""Dagster's connections to Postgres in a run worker: kept for the run, not opened for every statement.

Rule: only a process that lives for one run keeps them. dagster-postgres connects anew for each statement, five
milliseconds each, and a run of one partition has 180 of them; its pool is that of the webserver.
"""

from __future__ import annotations

import os

import dagster as dg

_NO_TIMEOUT = 0
_RECYCLE_SECONDS = 600
_BESIDES_THE_KEPT_ONE = 4

_kept_by: set[int] = set()


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Let the storages of this process's instance keep a connection each, from now on."""
    if os.getpid() in _kept_by:
        return
    _kept_by.add(os.getpid())
    instance.optimize_for_webserver(
        statement_timeout=_NO_TIMEOUT, pool_recycle=_RECYCLE_SECONDS, max_overflow=_BESIDES_THE_KEPT_ONE
    )
