"""How far back a batch reaches in each of its sources, from the SQL that dbt compiled for it.

Rule: known only if every reading of a source goes through `feature_rows`, by the source's own event time; else None,
which stands for everything before the partition's end. The macro writes what it bounds into the SQL as a comment.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from feature_platform.domain.feature_view import FeatureView, Source

_BOUNDED = re.compile(r"/\* feature_rows (\{.*?\}) \*/", re.DOTALL)


def lookbacks(view: FeatureView, compiled_sql: str, manifest: Any) -> dict[str, timedelta | None]:
    """Per source name how far before a partition's end its batch reads; None if the SQL does not tell.

    Args:
        view: the feature view.
        compiled_sql: what dbt ran.
        manifest: dbt's manifest.
    """
    bounds: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for text in _BOUNDED.findall(compiled_sql):
        bound = json.loads(text)
        bounds[bound["relation"]].append(bound)
    sql = _BOUNDED.sub("", compiled_sql)
    found: dict[str, list[timedelta | None]] = {source.name: [] for source in view.sources}
    for parent in _parents(manifest, view.unique_id):
        relation, defined = _relation(parent)
        read_elsewhere = sql.count(relation) != len(bounds[relation]) + defined
        for source in view.sources:
            if source.unique_id in _upstream(manifest, parent):
                ours = not read_elsewhere and all(
                    _is_event_time(one["event_time"], parent, source) for one in bounds[relation]
                )
                longest = max((one["seconds"] for one in bounds[relation]), default=None)
                found[source.name].append(timedelta(seconds=longest) if ours and longest is not None else None)
    return {
        name: None if None in lengths or not lengths else max(length for length in lengths if length is not None)
        for name, lengths in found.items()
    }


def _is_event_time(column: str, parent: Any, source: Source) -> bool:
    """Whether a column of what is read is the source's event time: by its name, or as the model in between declares."""
    if source.event_time is None:
        return False
    return column == (getattr(parent.config, "event_time", None) or source.event_time)


def _relation(node: Any) -> tuple[str, int]:
    """What a node is called in compiled SQL, and how often that stands there without being read."""
    if getattr(node.config, "materialized", None) == "ephemeral":
        return f"__dbt__cte__{node.name}", 1
    return str(node.relation_name), 0


def _parents(manifest: Any, unique_id: str) -> Iterator[Any]:
    for parent in manifest.nodes[unique_id].depends_on.nodes:
        if (node := _node(manifest, parent)) is not None:
            yield node


def _upstream(manifest: Any, node: Any) -> set[str]:
    """Unique ids of a node and of everything it is made from."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.unique_id not in found:
            found.add(one.unique_id)
            parents = getattr(getattr(one, "depends_on", None), "nodes", ())
            waiting += [parent for name in parents if (parent := _node(manifest, name)) is not None]
    return found


def _node(manifest: Any, unique_id: str) -> Any:
    return manifest.nodes.get(unique_id) or manifest.sources.get(unique_id)
