"""A view's SQL as a run of some partitions would execute it: compiled by dbt, with that of the models upstream.

Rule: dbt compiles from the deployed manifest, so that what is judged is what runs. Nothing of the lake is read; a model
that queries the lake while it is compiled bakes the answer into its SQL, where no cut reaches it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feature_platform.audit.references import Relation
from feature_platform.audit.report import Unknown
from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.windows import Partition
from feature_platform.materialization import dbt_run
from feature_platform.materialization.rejection import explain
from feature_platform.settings import Settings

# what Jinja has that is another value in every run
_JINJA_CLOCK = re.compile(r"\brun_started_at\b|\binvocation_id\b|\bmodules\.(?:datetime|pytz)\b")
_OF_DBT = frozenset({"dbt", "dbt_duckdb"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """A model between the sources and the view: a view of the lake."""

    name: str
    schema: str
    table: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledView:
    """A feature view, compiled for some partitions."""

    view: FeatureView
    sql: str
    upstream: tuple[CompiledModel, ...]
    """In the order in which they depend on each other."""
    sources: tuple[Source, ...]
    """What can be cut: sources, and seeds, which have an event time only if their configuration says so."""
    unknown: tuple[Unknown, ...]
    """What the compilation itself gives away."""

    @property
    def relations(self) -> tuple[Relation, ...]:
        """Schema and table of everything that is substituted."""
        models = [(model.schema, model.table) for model in self.upstream]
        return (*((source.schema, source.table) for source in self.sources), *models)


def compile_view(
    settings: Settings, manifest: Any, view: FeatureView, partitions: Sequence[Partition], *, directory: Path
) -> CompiledView:
    """Let dbt compile a view and what is upstream of it, for a run of these partitions.

    Raises:
        NotDeployedError: the deployed manifest does not have the view.
        ComputationError: it does not compile.
    """
    asking: set[str] = set()

    def listen(event: Any) -> None:
        if event.info.name == "SQLQuery":
            asking.add(event.data.node_info.unique_id)

    batches = [
        Batch(batch_id=f"audit-{number}", seq=number, view=view.key, partition=partition)
        for number, partition in enumerate(partitions, start=1)
    ]
    outcome = dbt_run.invoke(
        settings,
        # without `empty`, tests of the selected models would be compiled too
        (
            *("compile", "--select", "+" + dbt_run.select_node(manifest, view.unique_id)),
            *("--indirect-selection", "empty", "--no-populate-cache"),
        ),
        manifest=manifest,
        run_directory=directory,
        variables=dbt_run.build_vars(batches),
        on_event=listen,
    )
    if not outcome.success:
        raise explain(view, outcome, directory)
    compiled = {result.unique_id: result for result in outcome.results}
    nodes = {unique_id: manifest.nodes[unique_id] for unique_id in compiled}
    return CompiledView(
        view=view,
        sql=compiled[view.unique_id].compiled_sql,
        upstream=tuple(
            CompiledModel(name=node.name, schema=node.schema, table=node.alias, sql=compiled[unique_id].compiled_sql)
            for unique_id, node in nodes.items()
            if unique_id != view.unique_id and node.config.materialized == "view"
        ),
        sources=(*view.sources, *_seeds(manifest, view.unique_id)),
        unknown=(*_queries(nodes, asking), *_jinja_clocks(manifest, nodes)),
    )


def _seeds(manifest: Any, unique_id: str) -> Iterator[Source]:
    """Seeds upstream of a node: tables whose rows nobody dated, unless their configuration names the column."""
    waiting, seen = [unique_id], set()
    while waiting:
        node = manifest.nodes.get(waiting.pop())
        if node is None or node.unique_id in seen:
            continue
        seen.add(node.unique_id)
        waiting += node.depends_on_nodes
        if str(node.resource_type) == "seed":
            yield Source(
                unique_id=node.unique_id,
                name=node.name,
                schema=node.schema,
                table=node.alias,
                loaded_at_field="",
                event_time=getattr(node.config, "event_time", None),
                reporting_lag=timedelta(0),
            )


def _queries(nodes: dict[str, Any], asking: set[str]) -> Iterator[Unknown]:
    for unique_id in sorted(asking & set(nodes)):
        yield Unknown(
            reason=f"{nodes[unique_id].name}: queries the lake while dbt compiles it, so its SQL holds what the whole "
            "lake said",
            remedy="write the values into the SQL, or compute them in it from what it may read",
        )


def _jinja_clocks(manifest: Any, nodes: dict[str, Any]) -> Iterator[Unknown]:
    """Models whose template, or a macro of it, reads the clock of the run."""
    for node in nodes.values():
        texts = [node.raw_code, *_macro_texts(manifest, node)]
        if found := sorted({match for text in texts for match in _JINJA_CLOCK.findall(text)}):
            yield Unknown(
                reason=f"{node.name}: its template uses {', '.join(found)}, another value in every run",
                remedy="take the time from `event_timestamp` or from {{ batches() }}",
            )


def _macro_texts(manifest: Any, node: Any) -> Iterator[str]:
    waiting, seen = list(node.depends_on.macros), set()
    while waiting:
        macro = manifest.macros.get(waiting.pop())
        if macro is None or macro.unique_id in seen or macro.package_name in _OF_DBT:
            continue
        seen.add(macro.unique_id)
        waiting += macro.depends_on.macros
        yield macro.macro_sql
