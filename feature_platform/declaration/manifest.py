"""dbt's `manifest.json`, read as JSON: loading, its schema version, and walking upstream.

Rule: nothing here knows what a feature view is. Works on the artifact of dbt 1.11 (manifest schema v12).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from feature_platform.errors import ConfigurationError, NotDeployedError

SCHEMA_VERSION = 12
_SCHEMA_URL = re.compile(r"/manifest/v(\d+)(?:\.json)?$")
_SECTIONS = ("nodes", "sources", "macros", "exposures", "groups")

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The parts of a manifest that declarations are read from."""

    metadata: Mapping[str, Any]
    nodes: Mapping[str, Node]
    """Models, seeds, snapshots, tests, sources and functions by unique id."""
    macros: Mapping[str, Node]
    exposures: Mapping[str, Node]
    groups: Mapping[str, Node]
    """By name."""

    @property
    def models(self) -> tuple[Node, ...]:
        """All models in a stable order."""
        return tuple(node for _, node in sorted(self.nodes.items()) if node.get("resource_type") == "model")

    @property
    def generated_on(self) -> date | None:
        """The day dbt wrote the manifest, in UTC: the "today" by which a deprecation has passed.

        It is not the wall clock: a deployed manifest must not become invalid overnight.
        """
        return parse_date(self.metadata.get("generated_at"))

    def internal_packages(self) -> frozenset[str]:
        """Packages of dbt itself, whose macros come and go with its version."""
        return frozenset({"dbt", f"dbt_{self.metadata.get('adapter_type', 'duckdb')}"})

    def upstream(self, node: Node) -> Iterator[tuple[Node, tuple[str, ...]]]:
        """Every node upstream of this one, each once, with the names on the way to it (the node's own excluded)."""
        seen = {node.get("unique_id")}
        waiting: list[tuple[str, tuple[str, ...]]] = [(parent, ()) for parent in reversed(parents(node))]
        while waiting:
            unique_id, path = waiting.pop()
            found = self.nodes.get(unique_id)
            if unique_id in seen or found is None:
                continue
            seen.add(unique_id)
            path = (*path, str(found.get("name")))
            yield found, path
            waiting += [(parent, path) for parent in reversed(parents(found))]


def as_mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: people write anything, and dbt passes `meta` on unread."""
    return value if isinstance(value, Mapping) else {}


def config_of(node: Node) -> Mapping[str, Any]:
    """The node's rendered configuration."""
    return as_mapping(node.get("config"))


def meta_of(node: Node) -> Mapping[str, Any]:
    """The node's `meta`: that of its configuration over that of the node itself, where older projects write it."""
    return {**as_mapping(node.get("meta")), **as_mapping(config_of(node).get("meta"))}


def parents(node: Node) -> list[str]:
    """Unique ids of what a node refers to directly."""
    return list(node.get("depends_on", {}).get("nodes", []))


def yaml_path(node: Node) -> str:
    """The file that declares the node: its YAML (`package://path`) if it has one, else its own."""
    patch = node.get("patch_path")
    return str(patch).partition("://")[2] if patch else str(node.get("original_file_path", "?"))


def parse_date(value: object) -> date | None:
    """The day of an ISO date or instant; None if it is neither."""
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        return None


def load_manifest(path: Path) -> dict[str, Any]:
    """The manifest's JSON.

    Raises:
        NotDeployedError: there is no such file.
        ConfigurationError: it is not JSON.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise NotDeployedError(
            "nothing is deployed here yet",
            found=f"no file {path}",
            hint="run `feature-platform deploy`, which writes it",
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "the manifest cannot be read",
            found=f"{path}: {error}",
            hint="run `feature-platform deploy`, which writes it again",
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            "the manifest cannot be read",
            found=f"{path} holds no JSON object",
            hint="run `feature-platform deploy`, which writes it again",
        )
    return content


def read_manifest(content: Mapping[str, Any]) -> Manifest:
    """The manifest's parts, after checking its schema version.

    Raises:
        ConfigurationError: another schema version, or no manifest at all.
    """
    metadata = content.get("metadata")
    url = str(metadata.get("dbt_schema_version", "")) if isinstance(metadata, Mapping) else ""
    match = _SCHEMA_URL.search(url)
    if not isinstance(metadata, Mapping) or match is None or int(match[1]) != SCHEMA_VERSION:
        version = metadata.get("dbt_version", "unknown") if isinstance(metadata, Mapping) else "unknown"
        raise ConfigurationError(
            "the manifest has a schema version this platform does not read",
            found=f"{url or 'no dbt_schema_version'} (written by dbt {version})",
            allowed=f"manifest schema v{SCHEMA_VERSION}, which dbt 1.11 writes",
            hint="install dbt-core>=1.11,<1.12 and parse the project again with `feature-platform validate`",
        )
    for section in _SECTIONS:
        if not isinstance(content.get(section, {}), Mapping):
            raise ConfigurationError(
                "the manifest is malformed",
                found=f"its section {section!r} is no mapping",
                hint="let dbt write it again: `feature-platform deploy`, or `dbt parse`",
            )
    return Manifest(
        metadata=metadata,
        nodes={**content.get("nodes", {}), **content.get("sources", {}), **content.get("functions", {})},
        macros=content.get("macros", {}),
        exposures=content.get("exposures", {}),
        groups={str(group.get("name")): group for group in content.get("groups", {}).values()},
    )


def tested_columns(path: Path, unique_id: str) -> dict[str, str]:
    """The column that each data test of a model's columns is about, by the test's name."""
    nodes = load_manifest(path)["nodes"].values()
    tests = (node for node in nodes if node.get("resource_type") == "test" and node.get("attached_node") == unique_id)
    return {str(node["name"]): str(node["column_name"]) for node in tests if node.get("column_name")}
