"""The code version of a view: a hash over all declared inputs that can change its rows, and over nothing else.

In: SQL of the model and of every model upstream, dbt configuration, column types, entities, seeds' contents, identity
of sources, and the macros used, transitively. Out: descriptions, owners, tags, SLAs, expectations, dbt's own macros.
`vars` and `env_var()` values are not in a manifest, so they are not in the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from feature_platform.declaration.manifest import Manifest, Node, as_mapping, config_of

# Configuration that cannot change a row. Everything else counts, so that a key dbt adds is counted too.
_IRRELEVANT_CONFIG = frozenset(
    {
        "access",
        "begin",
        "concurrent_batches",
        "database",
        "docs",
        "enabled",
        "freshness",
        "grants",
        "group",
        "meta",
        "persist_docs",
        "static_analysis",
        "tags",
    }
)


def code_version(manifest: Manifest, model: Node) -> str:
    """The hash, as 64 hexadecimal digits."""
    nodes = [model, *(node for node, _ in manifest.upstream(model))]
    content = {
        "nodes": {str(node["unique_id"]): _relevant(node) for node in nodes},
        "macros": {unique_id: manifest.macros[unique_id].get("macro_sql") for unique_id in _macros(manifest, nodes)},
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _relevant(node: Node) -> dict[str, Any]:
    if node.get("resource_type") == "source":
        relevant = {key: node.get(key) for key in ("schema", "identifier", "loaded_at_field")}
        relevant["event_time"] = config_of(node).get("event_time")
    else:
        config = config_of(node)
        relevant = {
            "sql": node.get("raw_code"),
            "schema": node.get("schema"),
            "alias": node.get("alias"),
            "config": {
                # a key without a value is as good as absent: releases of dbt add such keys
                key: value
                for key, value in config.items()
                if key not in _IRRELEVANT_CONFIG and value not in (None, {}, [])
            },
            "meta": _meta(config.get("meta")),
        }
        if node.get("resource_type") == "seed":
            relevant["contents"] = node.get("checksum")
    relevant["columns"] = [
        [name, as_mapping(column).get("data_type"), as_mapping(column).get("constraints")]
        for name, column in as_mapping(node.get("columns")).items()
    ]
    return relevant


def _meta(meta: object) -> dict[str, Any]:
    """Macros may read `meta`, so it counts; of the platform's own section only the entities do."""
    relevant = {key: value for key, value in as_mapping(meta).items() if key not in {"feature_view", "dagster"}}
    if entities := as_mapping(as_mapping(meta).get("feature_view")).get("entities"):
        relevant["entities"] = entities
    return relevant


def _macros(manifest: Manifest, nodes: Iterable[Node]) -> Iterator[str]:
    """Unique ids of all macros the nodes use, without those of dbt itself."""
    internal = manifest.internal_packages()
    waiting = [unique_id for node in nodes for unique_id in _used(manifest, node)]
    seen: set[str] = set()
    while waiting:
        unique_id = waiting.pop()
        macro = manifest.macros.get(unique_id)
        if unique_id in seen or macro is None or macro.get("package_name") in internal:
            continue
        seen.add(unique_id)
        yield unique_id
        waiting += as_mapping(macro.get("depends_on")).get("macros", [])


def _used(manifest: Manifest, node: Node) -> Iterator[str]:
    """Macros of a node: those dbt recorded, and those it calls by a name it builds from the configuration."""
    yield from as_mapping(node.get("depends_on")).get("macros", [])
    config = config_of(node)
    names = {
        f"get_incremental_{config.get('incremental_strategy')}_sql",
        f"materialization_{config.get('materialized')}_default",
        f"materialization_{config.get('materialized')}_{manifest.metadata.get('adapter_type', 'duckdb')}",
    }
    yield from (unique_id for unique_id, macro in manifest.macros.items() if macro.get("name") in names)
