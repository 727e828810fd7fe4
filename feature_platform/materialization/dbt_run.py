"""dbt in this process: one invocation at a time, with the manifest that the last deploy parsed.

Rule: an invocation has its own target and log directory, prints nothing, and gets its addresses from `Settings`. What
it says comes back as results and errors. Importing dbt takes seconds, so it is imported by the first call.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from feature_platform.domain.batch import Batch
from feature_platform.errors import NotDeployedError, without_passwords
from feature_platform.lake import connect, extension_directory, scratch_directory
from feature_platform.lake.connection import CATALOG, data_path
from feature_platform.settings import PREFIX, Settings

PARSED_FILE = "partial_parse.msgpack"
"""dbt's own form of the manifest; loads in two thirds of the time of the JSON."""

EventListener = Callable[[Any], None]

_one_at_a_time = threading.RLock()
_manifests: dict[Path, Any] = {}
_environments: dict[tuple[int, Settings], dict[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """What dbt says of one model or test."""

    unique_id: str
    name: str
    resource_type: str
    status: str
    """`success`, `pass`, `warn`, `fail`, `error` or `skipped`."""
    severity: str
    """Of a test, `error` or `warn`."""
    message: str
    failures: int
    seconds: float
    compiled_sql: str
    compiled_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What an invocation of dbt came to."""

    success: bool
    results: tuple[NodeResult, ...]
    errors: tuple[str, ...]


def build_vars(batches: Iterable[Batch]) -> dict[str, Any]:
    """The variable by which a run's batches reach the SQL."""
    return {
        "feature_platform": {
            "batches": [
                {
                    "batch_id": batch.batch_id,
                    "partition_start": batch.partition.start.isoformat(),
                    "partition_end": batch.partition.end.isoformat(),
                }
                for batch in batches
            ]
        }
    }


def data_tests(manifest: Any, unique_id: str) -> tuple[Any, ...]:
    """The data tests that depend on the model: all of them must speak."""
    return tuple(
        node for node in manifest.nodes.values() if node.resource_type == "test" and unique_id in node.depends_on.nodes
    )


def select_node(manifest: Any, unique_id: str) -> str:
    """The selector that names exactly this node.

    Raises:
        NotDeployedError: the deployed manifest does not have it.
    """
    node = manifest.nodes.get(unique_id)
    if node is None:
        raise NotDeployedError(f"the deployed manifest has no {unique_id}", hint="run `feature-platform deploy`")
    return "fqn:" + ".".join(node.fqn)


def load_manifest(settings: Settings) -> Any:
    """The manifest as the last deploy parsed it, loaded once per process.

    Raises:
        NotDeployedError: nothing was deployed.
    """
    try:
        path = settings.manifest_path.resolve(strict=True)
    except FileNotFoundError as error:
        raise NotDeployedError(
            "nothing is deployed here yet",
            found=f"no file {settings.manifest_path}",
            hint="run `feature-platform deploy`",
        ) from error
    with _one_at_a_time:
        if path not in _manifests:
            _manifests.clear()  # of an older deploy
            _manifests[path] = read_manifest(path)
        return _manifests[path]


def invoke(
    settings: Settings,
    command: Sequence[str],
    *,
    manifest: Any,
    run_directory: Path,
    variables: Mapping[str, Any] | None = None,
    on_event: EventListener | None = None,
) -> Invocation:
    """Run one dbt command. Removes `run_directory` if dbt succeeds; else its compiled SQL and log stay there.

    Whatever stops the process (Ctrl-C, a Dagster interrupt) is raised again.
    """
    with _one_at_a_time:
        from dbt.cli.main import dbtRunner

        errors: list[str] = []

        def listen(event: Any) -> None:
            if event.info.level == "error":
                errors.append(without_passwords(event.info.msg.strip()))
            if on_event is not None:
                on_event(event)

        with environment(dbt_environment(settings)):
            outcome = dbtRunner(manifest=manifest, callbacks=[listen]).invoke(
                [*command, *_arguments(settings, run_directory)], vars=dict(variables or {})
            )
        if outcome.exception is not None and not isinstance(outcome.exception, Exception):
            raise outcome.exception
        if outcome.exception is not None:
            errors.append(without_passwords(str(outcome.exception)))
        results = tuple(_result(result) for result in getattr(outcome.result, "results", ()))
    if outcome.success:
        shutil.rmtree(run_directory, ignore_errors=True)
    return Invocation(success=outcome.success, results=results, errors=tuple(errors))


@contextmanager
def open_lake(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """The lake, through the DuckDB that dbt has open in this process: one memory limit, no second start."""
    lake = opened_lake() or connect(settings)
    try:
        yield lake
    finally:
        lake.close()


def opened_lake() -> duckdb.DuckDBPyConnection | None:
    """A connection of one's own to the lake through the DuckDB that dbt has open in this process, if it has."""
    connections = sys.modules.get("dbt.adapters.duckdb.connections")  # who did not run dbt shall not import it for this
    if connections is None:
        return None
    opened = getattr(connections.DuckDBConnectionManager._ENV, "conn", None)  # noqa: SLF001 # env() raises if unset
    if opened is None:
        return None
    lake: duckdb.DuckDBPyConnection = opened.cursor()
    lake.execute("set TimeZone = 'UTC'")
    lake.execute(f"use {CATALOG}")
    return lake


def close_lake() -> None:
    """Close the DuckDB that dbt keeps open, with its connections to Postgres; the next run opens it again."""
    with _one_at_a_time:
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        opened = DuckDBConnectionManager._ENV  # noqa: SLF001 # dbt itself only forgets it
        if opened is not None:
            opened.close()
            DuckDBConnectionManager.close_all_connections()


def dbt_environment(settings: Settings) -> dict[str, str]:
    """The variables that the project's profile reads. Equal for equal settings, so that dbt keeps its DuckDB open."""
    key = (os.getpid(), settings)  # two processes must not spill into one directory, also not a fork and its parent
    if key not in _environments:
        _environments[key] = {
            PREFIX + "LAKE_CATALOG": settings.lake_catalog,
            PREFIX + "LAKE_DATA": data_path(settings.lake_data),
            PREFIX + "DUCKDB_MEMORY": settings.duckdb_memory,
            PREFIX + "DUCKDB_EXTENSIONS": str(extension_directory(settings.home)),
            PREFIX + "SCRATCH": str(scratch_directory(settings.scratch)),
        }
    return _environments[key]


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block: dbt reads `os.environ` when an invocation begins."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _arguments(settings: Settings, run_directory: Path) -> tuple[str, ...]:
    project = settings.project / "dbt_project"
    directories = {"project": project, "profiles": project, "target": run_directory, "log": run_directory}
    flags = {"project": "--project-dir", "profiles": "--profiles-dir", "target": "--target-path", "log": "--log-path"}
    return (
        *(part for name, flag in flags.items() for part in (flag, str(directories[name]))),
        *("--log-level", "none", "--log-level-file", "info", "--no-use-colors", "--no-use-colors-file"),
        *("--no-send-anonymous-usage-stats", "--no-version-check", "--no-write-json", "--no-populate-cache"),
    )


def read_manifest(path: Path) -> Any:
    """The manifest of a parse, as dbt's object."""
    from dbt.contracts.graph.manifest import Manifest, WritableManifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    parsed = path.with_name(PARSED_FILE)
    if parsed.is_file():
        manifest = Manifest.from_msgpack(parsed.read_bytes(), decoder=extended_mashumuro_decoder)
    else:
        manifest = Manifest.from_writable_manifest(WritableManifest.read_and_check_versions(str(path)))
    manifest.build_flat_graph()  # `graph` in Jinja; dbt builds it only when it parses
    return manifest


def severity_of(node: Any) -> str:
    """Of a test, `error` or `warn`."""
    return str(getattr(node.config, "severity", "") or "error").lower()


def _result(result: Any) -> NodeResult:
    node = result.node
    return NodeResult(
        unique_id=node.unique_id,
        name=node.name,
        resource_type=str(node.resource_type),
        status=str(result.status),
        severity=severity_of(node),
        message=without_passwords(str(result.message or "")),
        failures=int(result.failures or 0),
        seconds=float(result.execution_time or 0.0),
        compiled_sql=str(getattr(node, "compiled_code", "") or ""),
        compiled_path=str(getattr(node, "compiled_path", "") or ""),
    )
