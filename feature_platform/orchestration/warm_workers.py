"""Run workers that start from a process which has done the imports already.

Of the seconds one small partition takes, most are the start of its process: Dagster, dbt, DuckDB, pyarrow and, where
there are expectations, Great Expectations (docs/reference/runs.md has the figures). Dagster's code server starts a run
worker with multiprocessing's method `spawn`: a new interpreter that imports everything again. Here the same processes
come from a `forkserver`: one more process beside the code server, which imports those modules once, lets dbt fill its
caches (`rehearsal.py`) and does nothing else; each run worker is a fork of it.

Rule: only start-up changes. A run worker is still a process of its own that may be killed, and modules are loaded no
earlier than a restart or reload of the code location. The fork server never opens a connection or starts a thread.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess

VARIABLE = "FEATURE_PLATFORM_WARM_WORKERS"
"""Set to 1 by `feature-platform up` for the code server; elsewhere run launchers start containers."""

_EVERY_RUN = (
    "dagster",
    "dagster_postgres",
    "dagster._grpc.impl",
    "feature_platform.orchestration",
    "feature_platform.reference.assets",
    "dbt.cli.main",
    "dbt.adapters.duckdb",
    "feature_platform.materialization",
    "feature_platform.sync",
)
_REHEARSAL = "feature_platform.orchestration.rehearsal"
_EXPECTATIONS = ("feature_platform.quality.judging", "great_expectations")


def warm_workers(*, expectations: bool) -> None:
    """Let the run workers of this code server start warm, if it was asked for. Call when definitions are loaded.

    Args:
        expectations: whether any view has expectations, so that Great Expectations is worth its memory (250 MB).
    """
    if os.environ.get(VARIABLE) != "1" or multiprocessing.parent_process() is not None:
        return  # not asked for; or this is a run worker itself
    _preload((*_EVERY_RUN, *(_EXPECTATIONS if expectations else ()), _REHEARSAL))


def _preload(modules: Sequence[str]) -> None:
    forkserver.set_forkserver_preload(list(modules))
    # The code server asks the `spawn` context for its processes and offers no choice (dagster/_grpc/server.py).
    multiprocessing.get_context("spawn").Process = ForkServerProcess  # type: ignore[misc,assignment]
    # starts importing now, in the background, so that the first run need not wait for it
    forkserver.ensure_running()
