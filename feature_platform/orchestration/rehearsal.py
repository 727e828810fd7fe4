"""What every run would do again: imported by the fork server of run workers, for its effect.

dbt fills caches at its first invocation in a process: JSON schemas of its own files (half a second), decoders, the
manifest, lazily imported modules. Here it lists the project's models once, so that each run worker begins as if it
were the second run of its process.

Rule: no connection and no thread; both would be broken in a fork. `dbt list` needs neither. A rehearsal that fails is
no failure: the run meets the same error and says it in the UI.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import logging
from contextlib import suppress

from feature_platform.materialization import dbt_run
from feature_platform.settings import Settings

_IMPORTED_BY_A_RUN = (
    "babel.dates",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.workspace.autodiscovery",
    "dbt.adapters.__about__",
    "dbt.adapters.duckdb.environments.local",
    "dbt.task.run",
    "dbt.task.test",
    "dbt_common.clients.agate_helper",
    "feature_platform.definitions",
    "feature_platform.orchestration.definitions",
    "multiprocessing.dummy",
    "psycopg2.sql",
    "sqlparse",
    "upath.implementations.local",
)


def rehearse(settings: Settings) -> None:
    """Fill the caches of this process with what a run of the deployed project needs."""
    for module in _IMPORTED_BY_A_RUN:
        with suppress(ImportError):  # a library has moved it: it is imported by the run, as it would be anyway
            importlib.import_module(module)
    manifest = dbt_run.load_manifest(settings)
    dbt_run.invoke(
        settings,
        ["list", "--resource-type", "model"],
        manifest=manifest,
        run_directory=settings.home / "dbt" / "rehearsal",
    )
    inspect.stack()  # dbt asks for it in each invocation; the slow part is to find the file of every module
    # a million objects that stay: a fork's garbage collector need not look at them (0.6 s a run), and copies no pages
    gc.collect()
    gc.freeze()


def _rehearse_now() -> None:
    try:
        rehearse(Settings.from_env())
    except Exception:  # whatever it is: run workers then start with cold caches
        logging.getLogger(__name__).warning("run workers start with cold caches", exc_info=True)


_rehearse_now()
