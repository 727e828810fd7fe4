"""Running dbt in tests against a real lake: the environment its profile reads, one parse, runs with batches."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feature_platform.domain.windows import Partition
from feature_platform.lake import extension_directory, scratch_directory
from feature_platform.settings import PREFIX, Settings


def dbt_environment(settings: Settings, **more: str) -> dict[str, str]:
    values = {
        "LAKE_CATALOG": settings.lake_catalog,
        "LAKE_DATA": settings.lake_data,
        "DUCKDB_MEMORY": settings.duckdb_memory,
        "DUCKDB_EXTENSIONS": str(extension_directory(settings.home)),
        "SCRATCH": str(scratch_directory(settings.scratch)),
    }
    return {PREFIX + name: value for name, value in (values | more).items()}


@contextmanager
def environment(values: dict[str, str]):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def arguments(project: Path, target: Path) -> list[str]:
    return [
        *("--project-dir", str(project), "--profiles-dir", str(project)),
        *("--target-path", str(target), "--log-path", str(target)),
        *("--log-level", "none", "--no-use-colors", "--no-send-anonymous-usage-stats"),
    ]


def parse(project: Path, target: Path) -> Any:
    from dbt.cli.main import dbtRunner

    outcome = dbtRunner().invoke(["parse", *arguments(project, target)])
    assert outcome.success, outcome.exception
    return outcome.result


def batches_of(partitions: Iterable[Partition]) -> list[dict[str, str]]:
    return [
        {
            "batch_id": str(uuid.uuid4()),
            "partition_start": partition.start.isoformat(),
            "partition_end": partition.end.isoformat(),
        }
        for partition in partitions
    ]


class Dbt:
    """dbt on one project and one lake."""

    def __init__(self, project: Path, target: Path, manifest: Any, environ: dict[str, str]) -> None:
        self.project, self.target, self.manifest, self.environ = project, target, manifest, environ

    def invoke(self, command: Sequence[str], batches: list[dict[str, str]] | None = None) -> Any:
        from dbt.cli.main import dbtRunner

        variables = {} if batches is None else {"feature_platform": {"batches": batches}}
        with environment(self.environ):
            return dbtRunner(manifest=self.manifest).invoke(
                [*command, "--vars", json.dumps(variables), *arguments(self.project, self.target)]
            )

    def run(self, model: str, batches: list[dict[str, str]] | None = None, *flags: str) -> list[dict[str, str]]:
        outcome = self.invoke(["run", "--select", model, *flags], batches)
        assert outcome.success, message(outcome)
        return batches or []

    def refused(self, model: str, batches: list[dict[str, str]] | None = None, *flags: str) -> str:
        """Run a model that must fail; what dbt said."""
        outcome = self.invoke(["run", "--select", model, *flags], batches)
        assert not outcome.success
        return message(outcome)


def message(outcome: Any) -> str:
    said = [str(result.message) for result in getattr(outcome.result, "results", ())]
    return "\n".join([*said, str(outcome.exception or "")])
