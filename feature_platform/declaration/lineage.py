"""Which source columns each feature is computed from, as the last deploy traced it: a file beside the manifest.

Rule: a picture for people. Nothing is computed or decided by it, so a missing or older file is no error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "column_lineage.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnLineage:
    """Of one view."""

    code_version: str
    columns: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Entity or feature → dbt's unique id of a source → columns of it. Empty for what reads no column, as count(*)."""


def load_lineage(manifest_path: Path) -> dict[str, ColumnLineage]:
    """The lineage of each view that was traced, by key; empty if the deploy left none."""
    try:
        content = json.loads(manifest_path.resolve().with_name(FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {key: _parse(one) for key, one in content.items()}


def write_lineage(lineage: Mapping[str, ColumnLineage], directory: Path) -> None:
    """Write the file that `load_lineage` reads."""
    content = {key: {"code_version": one.code_version, "columns": one.columns} for key, one in lineage.items()}
    (directory / FILE).write_text(json.dumps(content, default=dict, sort_keys=True, indent=1))


def _parse(one: Mapping[str, Any]) -> ColumnLineage:
    return ColumnLineage(
        code_version=str(one["code_version"]),
        columns={
            column: {source: tuple(names) for source, names in read.items()} for column, read in one["columns"].items()
        },
    )
