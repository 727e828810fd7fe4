"""What compiled SQL reads and calls, as DuckDB's own parser sees it: whatever could escape a cut of the sources.

Rule: an allow-list. A table function, a relation or a statement this module does not know makes the verdict unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from feature_platform.audit.report import Unknown

Relation = tuple[str, str]
"""Schema and table; the schema is empty if none is written."""

# What depends on its arguments alone. Anything else may read files, other databases or DuckDB's own state.
_TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series", "generate_subscripts", "repeat", "repeat_row"})
# Keywords that read the clock where a column could stand; DuckDB parses them as columns.
_CLOCK_WORDS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
# What DuckDB's own list of unstable functions leaves out: macros over now(), and state of the session.
_ALSO_UNSTABLE = frozenset(
    {
        *("ago", "current_localtime", "current_localtimestamp", "pg_postmaster_start_time", "pg_conf_load_time"),
        *("current_setting", "getvariable", "getenv"),
    }
)
_STABLE_ALL_THE_SAME = frozenset({"error"})  # a guard: it either raises or is not there


@dataclass(slots=True)
class References:
    """What one statement refers to."""

    relations: set[tuple[str, Relation]] = field(default_factory=set)
    """Catalog (may be empty) and relation, in lower case; names of CTEs are left out."""
    table_functions: set[str] = field(default_factory=set)
    unstable: set[str] = field(default_factory=set)
    unread: str = ""
    """Why the statement could not be read; empty if it could."""


def find_escapes(
    connection: duckdb.DuckDBPyConnection, name: str, sql: str, *, known: Iterable[Relation], unstable: frozenset[str]
) -> Iterator[Unknown]:
    """Everything in a model's compiled SQL that cutting the sources does not reach.

    Args:
        connection: any connection; nothing is run but the parser.
        name: of the model, for the message.
        sql: its compiled SQL.
        known: the sources and upstream models that are cut.
        unstable: functions whose answer changes (`unstable_functions`).
    """
    found = read_references(connection, sql, unstable=unstable)
    if found.unread:
        yield Unknown(
            reason=f"{name}: DuckDB's parser gives no tree of this SQL: {found.unread}",
            remedy="write it without PIVOT or other statements than SELECT, e.g. with `filter (where …)`",
        )
    for function in sorted(found.table_functions - _TABLE_FUNCTIONS):
        yield Unknown(
            reason=f"{name}: {function}(…) reads what no source declares",
            remedy="load it as a dbt source with `event_time` and `loaded_at_field`, and read `{{ source(…) }}`",
        )
    cut = {(schema.lower(), table.lower()) for schema, table in known}
    for catalog, relation in sorted(found.relations):
        if catalog not in {"", "lake"} or relation not in cut:
            shown = ".".join(part for part in (catalog, *relation) if part)
            yield Unknown(
                reason=f"{name}: reads {shown}, which is no source or model it declares",
                remedy="read it with `{{ source(…) }}` or `{{ ref(…) }}`",
            )
    for function in sorted(found.unstable):
        yield Unknown(
            reason=f"{name}: {function} gives another answer each time it is asked",
            remedy="take the time from `event_timestamp`; make random choices by a hash of the key",
        )


def read_references(
    connection: duckdb.DuckDBPyConnection, sql: str, *, unstable: frozenset[str] = frozenset()
) -> References:
    """Parse a statement and collect what it refers to."""
    found = References()
    serialized = connection.execute("select json_serialize_sql($sql)", {"sql": sql}).fetchone()
    tree = json.loads(serialized[0]) if serialized else {"error": True}
    if tree["error"]:
        found.unread = str(tree.get("error_message", "no reason given"))
    elif len(tree["statements"]) != 1:
        found.unread = f"{len(tree['statements'])} statements"
    else:
        _walk(tree["statements"][0], frozenset(), found, unstable)
    return found


def unstable_functions(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Functions whose answer depends on more than their arguments, by DuckDB's own account and what it leaves out."""
    rows = connection.execute(
        "select distinct function_name from duckdb_functions()"
        " where stability in ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
    ).fetchall()
    return (frozenset(name for (name,) in rows) | _ALSO_UNSTABLE) - _STABLE_ALL_THE_SAME


def _walk(node: Any, ctes: frozenset[str], found: References, unstable: frozenset[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _walk(item, ctes, found, unstable)
    elif isinstance(node, dict):
        inner = ctes | {str(entry["key"]).lower() for entry in (node.get("cte_map") or {}).get("map", ())}
        _note(node, inner, found, unstable)
        for value in node.values():
            _walk(value, inner, found, unstable)


def _note(node: Mapping[str, Any], ctes: frozenset[str], found: References, unstable: frozenset[str]) -> None:
    """What this one node refers to."""
    kind = node.get("type")
    if node.get("sample"):
        found.unstable.add("a sample")
    if kind == "BASE_TABLE":
        catalog, schema, table = (str(node[f"{part}_name"]).lower() for part in ("catalog", "schema", "table"))
        if schema or catalog or table not in ctes:
            found.relations.add((catalog, (schema, table)))
    elif kind == "TABLE_FUNCTION":
        found.table_functions.add(str(node["function"].get("function_name", "?")).lower())
    elif kind == "SHOW_REF":
        found.table_functions.add("describe")
    elif node.get("class") == "COLUMN_REF":
        names = [str(name).lower() for name in node.get("column_names", ())]
        if len(names) == 1 and names[0] in _CLOCK_WORDS:
            found.unstable.add(names[0])
    elif node.get("class") == "FUNCTION":
        name = str(node.get("function_name", "")).lower()
        # age() of one instant is its age today
        if name in unstable or (name == "age" and len(node.get("children", ())) == 1):
            found.unstable.add(f"{name}()")
