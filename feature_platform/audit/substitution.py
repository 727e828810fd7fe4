"""Rebuilding a view over cut sources, without a change to its SQL.

The compiled SQL names the lake's catalog, `lake`. Here that name belongs to an empty database in memory: each source is
a filtered view of the real one, which is attached read-only under another name and pinned to one snapshot; each model
between is a view with its compiled SQL. What the SQL reads is then decided by replacing the sources' views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from feature_platform.audit.compiled import CompiledView
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView, Source
from feature_platform.domain.types import ColumnType
from feature_platform.lake.sql import quote_identifier, quote_instant

STORED = "stored"
"""Catalog of the real lake."""
CATALOG = "lake"
"""Catalog of the compiled SQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What is left of a source."""

    before: datetime | None = None
    """Only rows with an event time strictly before this."""
    arrived_by: datetime | None = None
    """Only rows that were loaded by then."""


UNCUT = Cut()


def relation(catalog: str, schema: str, table: str) -> str:
    """A relation, qualified and quoted."""
    return ".".join(quote_identifier(part) for part in (catalog, schema, table))


def build_source_view(source: Source, cut: Cut = UNCUT, *, shuffled: bool = False) -> str:
    """The statement that makes the source's name stand for what is left of it.

    A row without an event time stays: nothing says that it lies in the future. `shuffled` gives the same rows in
    another order, at the price of a second scan and no memory.
    """
    kept = []
    if cut.before is not None and source.event_time:
        kept.append(_kept(source.event_time, "<", cut.before))
    if cut.arrived_by is not None and source.loaded_at_field:
        kept.append(_kept(source.loaded_at_field, "<=", cut.arrived_by))
    halves = ("rowid % 2 = 1", "rowid % 2 = 0") if shuffled else ("",)
    stored = relation(STORED, source.schema, source.table)
    selects = [
        f"select * from {stored}" + (f" where {' and '.join(all_)}" if (all_ := [*filter(None, [half]), *kept]) else "")
        for half in halves
    ]
    return f"create or replace view {relation(CATALOG, source.schema, source.table)} as {' union all '.join(selects)}"


def _kept(column: str, operator: str, instant: datetime) -> str:
    name = quote_identifier(column)
    return f"({name} {operator} {quote_instant(instant)} or {name} is null)"


def build_rebuild(view: FeatureView, sql: str, table: str, *, through: datetime) -> str:
    """The statement that computes the view's rows up to an instant into a temporary table, typed as declared."""
    stamp = quote_identifier(EVENT_TIMESTAMP)
    columns = ", ".join(
        f"cast({quote_identifier(name)} as {kind}) as {quote_identifier(name)}" for name, kind in _typed(view)
    )
    return (
        f"create or replace temp table {quote_identifier(table)} as select {columns} from (\n"
        f"{sql.strip().rstrip(';')}\n"
        f") as model where {stamp} <= {quote_instant(through)}"
    )


def _typed(view: FeatureView) -> list[tuple[str, str]]:
    keys = [(column.name, column.type.value) for column in view.entities]
    features = [(column.name, column.type.value) for column in view.features]
    return [*keys, (EVENT_TIMESTAMP, ColumnType.TIMESTAMPTZ.value), *features]


class Substitution:
    """The lake's catalog over sources that can be cut.

    Args:
        connection: has the real lake attached as `stored`, and an empty database in memory as `lake`.
        compiled: the view to rebuild.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, compiled: CompiledView) -> None:
        self._connection = connection
        self._compiled = compiled
        self._tables = {
            (schema, table)
            for schema, table in connection.execute(
                f"select schema_name, table_name from duckdb_tables() where database_name = '{STORED}'"
            ).fetchall()
        }
        for schema in {schema for schema, _ in compiled.relations}:
            connection.execute(f"create schema if not exists {quote_identifier(CATALOG)}.{quote_identifier(schema)}")
        self.cut({})
        for model in compiled.upstream:
            connection.execute(
                f"create or replace view {relation(CATALOG, model.schema, model.table)} as\n"
                f"{model.sql.strip().rstrip(';')}\n"
            )

    def cut(self, cuts: Mapping[str, Cut], *, shuffled: bool = False) -> None:
        """Cut sources, by their names; the others are whole."""
        for source in self._compiled.sources:
            self._connection.execute(
                build_source_view(
                    source,
                    cuts.get(source.name, UNCUT),
                    # a source may be a view of the lake, which has no row ids
                    shuffled=shuffled and (source.schema, source.table) in self._tables,
                )
            )

    def rebuild(self, table: str, *, through: datetime) -> None:
        """Compute the view's rows up to an instant into a temporary table."""
        self._connection.execute(build_rebuild(self._compiled.view, self._compiled.sql, table, through=through))

    def exists(self, source: Source, condition: str) -> bool:
        """Whether the whole source has a row that meets a condition."""
        found = self._connection.execute(
            f"select 1 from {relation(STORED, source.schema, source.table)} where {condition} limit 1"
        ).fetchone()
        return found is not None
