"""Tracing each feature to the source columns that its expression reads, through every model in between.

Rule: sqlglot traces the SQL that dbt compiles; what it cannot trace is left out, and no deploy fails for it. A view is
traced again only when its code has changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from feature_platform.declaration.lineage import ColumnLineage
from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import floor, partition_starting
from feature_platform.materialization import dbt_run
from feature_platform.settings import Settings

Relation = tuple[str, str]
"""Schema and table."""
_DIALECT = "duckdb"


def trace_views(
    settings: Settings,
    manifest: Any,
    views: Iterable[FeatureView],
    *,
    before: Mapping[str, ColumnLineage],
    columns: Mapping[Relation, Iterable[str]],
    directory: Path,
    progress: Callable[[str], None],
) -> dict[str, ColumnLineage]:
    """The lineage of views, taken from `before` where the code is the same.

    Args:
        settings: addresses and directories.
        manifest: dbt's, as it is about to be deployed.
        views: of it.
        before: what was traced at the last deploy.
        columns: the columns of each source table.
        directory: for dbt; removed again.
        progress: told what could not be traced.
    """
    views = tuple(views)
    traced = {
        view.key: before[view.key]
        for view in views
        if view.key in before and before[view.key].code_version == view.code_version
    }
    if not (changed := [view for view in views if view.key not in traced]):
        return traced
    compiled = _compile(settings, manifest, changed, directory=directory)
    for view in changed:
        try:
            traced[view.key] = ColumnLineage(
                code_version=view.code_version, columns=trace(view, compiled, manifest, columns)
            )
        except Exception as error:  # noqa: BLE001 # a parser of its own: whatever it trips over, the deploy stands
            progress(f"no column lineage of {view.key}: {(str(error) or type(error).__name__).splitlines()[0]}")
    return traced


def trace(
    view: FeatureView, compiled: Mapping[str, str], manifest: Any, columns: Mapping[Relation, Iterable[str]]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Per entity and feature of a view, the columns of each source that its expression reads.

    Args:
        view: the feature view.
        compiled: compiled SQL by unique id, of the view and of the models upstream.
        manifest: dbt's manifest.
        columns: the columns of each source table.
    """
    from sqlglot import exp, parse_one  # half a second to import
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    upstream = {
        _full_name(node.schema, node.alias): parse_one(compiled[unique_id], dialect=_DIALECT)
        for unique_id in compiled
        if unique_id != view.unique_id and (node := manifest.nodes[unique_id]).config.materialized == "view"
    }
    whole = exp.expand(parse_one(compiled[view.unique_id], dialect=_DIALECT), upstream, dialect=_DIALECT)  # type: ignore[arg-type]
    sources = {(source.schema.lower(), source.table.lower()): source for source in view.sources}
    tables: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for (schema, table), names in columns.items():
        tables[schema][table] = dict.fromkeys(names, "unknown")
    known: dict[str, object] = {"lake": dict(tables)}
    query = qualify(whole, dialect=_DIALECT, schema=known, validate_qualify_columns=False)
    scope = build_scope(query)
    declared = {name.lower(): name for name in (*view.entity_names, *view.feature_names)}
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    # all columns at once share what they have in common; trimmed queries are for pictures, at ten times the price
    traced = lineage(None, query, known, scope=scope, dialect=_DIALECT, trim_selects=False, copy=False)
    for name, node in traced.items():
        if name.lower() not in declared:
            continue
        read: defaultdict[str, set[str]] = defaultdict(set)
        for leaf in node.walk():
            origin = leaf.expression
            if leaf.downstream or not isinstance(origin, exp.Table):
                continue
            if source := sources.get((origin.db.lower(), origin.name.lower())):
                column = exp.to_column(leaf.name).name
                read[source.unique_id].add(_spelled(column, columns.get((source.schema, source.table), ())))
        found[declared[name.lower()]] = {unique_id: tuple(sorted(names)) for unique_id, names in sorted(read.items())}
    return found


def _compile(settings: Settings, manifest: Any, views: Iterable[FeatureView], *, directory: Path) -> dict[str, str]:
    """Compiled SQL by unique id, of views and all models upstream, for a run of one partition."""
    views = tuple(views)
    partition = partition_starting(floor(views[0].begin, views[0].grain), views[0].grain)
    batch = Batch(batch_id="lineage", seq=1, view=views[0].key, partition=partition)
    outcome = dbt_run.invoke(
        settings,
        (
            *("compile", "--select", *("+" + dbt_run.select_node(manifest, view.unique_id) for view in views)),
            # without `empty`, tests of the selected models would be compiled too
            *("--indirect-selection", "empty", "--no-populate-cache"),
        ),
        manifest=manifest,
        run_directory=directory,
        variables=dbt_run.build_vars([batch]),
    )
    return {result.unique_id: result.compiled_sql for result in outcome.results if result.compiled_sql}


def _full_name(schema: str, table: str) -> str:
    return f"lake.{schema}.{table}".lower()


def _spelled(column: str, names: Iterable[str]) -> str:
    """A column as its table spells it; sqlglot gives names in lower case."""
    return next((name for name in names if name.lower() == column.lower()), column)
