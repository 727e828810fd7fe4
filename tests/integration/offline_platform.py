"""A small platform for the offline store's tests: two declared views, a real ledger, a real lake, no dbt."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pyarrow as pa
from ledger_batches import measured
from psycopg2.extensions import make_dsn, parse_dsn

from feature_platform import lake
from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.batch import Measured
from feature_platform.domain.feature_service import FeatureService, ViewSelection
from feature_platform.domain.feature_view import (
    Column,
    FeatureView,
    FreshnessSla,
    LateData,
    LatePolicy,
    OnlineTier,
    Owner,
)
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, Partition, floor, following
from feature_platform.lake import push_tables
from feature_platform.lake.sql import (
    BATCH_ID,
    PARTITION_START,
    SCHEMAS,
    batches_table,
    build_create_table,
    quote_identifier,
)
from feature_platform.ledger import Ledger
from feature_platform.offline import FeatureStore
from feature_platform.settings import Settings

OWNER = Owner(name="ops", email="ops@example.com")
_deployed: dict[tuple[str, ...], str] = {}
"""Catalogs to copy: by server and what was done in them, the database's name."""


def declare(
    name: str,
    *,
    entities: dict[str, ColumnType],
    features: dict[str, ColumnType],
    grain: Grain = Grain.DAY,
    ttl: timedelta | None = None,
    delay: timedelta = timedelta(0),
    version: int = 1,
    push: bool = False,
) -> FeatureView:
    return FeatureView(
        name=name, version=version, description="", grain=grain, ttl=ttl, availability_delay=delay,
        entities=tuple(Column(name=n, type=t) for n, t in entities.items()),
        features=tuple(Column(name=n, type=t) for n, t in features.items()),
        begin=datetime(2026, 1, 1, tzinfo=UTC),
        late_data=LateData(policy=LatePolicy.RECOMPUTE, window=timedelta(days=7)),
        freshness=FreshnessSla(warn_after=None, error_after=None),
        online=OnlineTier.VALKEY, owner=OWNER, group="ops", access="public", tags=(), deprecation_date=None,
        sources=(), expectations=(), unique_id=f"model.tiny.{name}.v{version}", table=f"{name}_v{version}",
        sql_path="", yaml_path="", code_version="1", push=push,
    )  # fmt: skip


CARRIER = declare(
    "carrier_delays",
    entities={"carrier": ColumnType.VARCHAR},
    features={"delay": ColumnType.DOUBLE, "flights": ColumnType.BIGINT},
    ttl=timedelta(days=3),
    delay=timedelta(minutes=90),
)
ROUTE = declare(
    "route_delays",
    entities={"origin": ColumnType.VARCHAR, "gate": ColumnType.INTEGER},
    features={"delay": ColumnType.DOUBLE},
    grain=Grain.HOUR,
)


def registry_of(*views: FeatureView) -> FeatureRegistry:
    latest: dict[str, int] = {}
    for view in views:
        latest[view.name] = max(view.version, latest.get(view.name, 0))
    service = FeatureService(
        name="departure_delay", description="", owner=OWNER, latency_budget=None, batch_size=None, freshness=None,
        unique_id="exposure.tiny.departure_delay", path="",
        selections=tuple(ViewSelection(view=v.name, version=v.version, features=v.feature_names) for v in views),
    )  # fmt: skip
    return FeatureRegistry(
        views={view.key: view for view in views}, services={service.name: service}, sources={}, latest=latest
    )


@dataclass(frozen=True)
class Platform:
    """Writes batches as runs do, without dbt."""

    settings: Settings
    registry: FeatureRegistry

    @property
    def store(self) -> FeatureStore:
        return FeatureStore(self.settings, self.registry)

    def with_memory(self, limit: str) -> Platform:
        return replace(self, settings=replace(self.settings, duckdb_memory=limit))

    def deploy(self, *more: str) -> None:
        """Make the lake one with schemas, tables and what else is stated: a copy of one where it was done before."""
        statements = (*self._statements(), *more)
        address = parse_dsn(self.settings.lake_catalog)
        template, wanted = (address["host"], *statements), address["dbname"]
        with closing(psycopg2.connect(**(address | {"dbname": "postgres"}))) as server:
            server.autocommit = True
            cursor = server.cursor()
            if template not in _deployed:
                name = f"deployed_{uuid.uuid4().hex}"
                cursor.execute(f"create database {name}")
                made = replace(self.settings, lake_catalog=make_dsn(**(address | {"dbname": name})))
                with lake.connect(made) as connection:
                    for statement in statements:
                        connection.execute(statement)
                _deployed[template] = name
            cursor.execute(f"drop database {wanted}")
            cursor.execute(f"create database {wanted} template {_deployed[template]} strategy file_copy")

    def _statements(self) -> Iterator[str]:
        yield from (f"create schema if not exists {schema}" for schema in SCHEMAS)
        for view in self.registry.views.values():
            yield from build_create_table(view)
        for _, statements in push_tables.plan_tables(self.registry.views.values(), {}):
            yield from statements

    def open(self, view: FeatureView, start: datetime, rows: Sequence[Sequence[Any]]) -> str:
        """Open a batch and write its rows (keys, event time, features). Not published."""
        return self.open_all([(view, start, rows)])[0]

    def open_all(self, wanted: Sequence[tuple[FeatureView, datetime, Sequence[Sequence[Any]]]]) -> list[str]:
        """Open batches in this order and write their rows. Not published."""
        opened: list[Measured] = []
        with Ledger.connect(self.settings.ledger_url) as ledger, lake.connect(self.settings) as connection:
            for view, instant, rows in wanted:
                start = floor(instant, view.grain)
                partition = Partition(start=start, end=following(start, view.grain), grain=view.grain)
                (batch,) = ledger.open_batches(view, [partition], run_id=str(uuid.uuid4()))
                opened.append(measured(batch.batch_id, len(rows)))
                if rows:
                    values = ", ".join(f"({', '.join('?' * (len(row) + 2))})" for row in rows)
                    # by name: a column that was added stands at the end of the table
                    columns = (*view.entity_names, "event_timestamp", *view.feature_names, BATCH_ID, PARTITION_START)
                    quoted = ", ".join(map(quote_identifier, columns))
                    connection.execute(
                        f"insert into {batches_table(view)} ({quoted}) values {values}",
                        [value for row in rows for value in (*row, batch.batch_id, start)],
                    )
            ledger.record_computed(opened)
        return [batch.batch_id for batch in opened]

    def publish(self, *batch_ids: str) -> None:
        with Ledger.connect(self.settings.ledger_url) as ledger:
            ledger.record_audited(batch_ids, passed=True)
            ledger.publish(batch_ids)

    def add(self, view: FeatureView, start: datetime, rows: Sequence[Sequence[Any]]) -> str:
        """Open, write and publish."""
        batch_id = self.open(view, start, rows)
        self.publish(batch_id)
        return batch_id


def arrow(rows: Sequence[dict[str, Any]], **types: pa.DataType) -> pa.Table:
    """Labels, with these types where inference would not do."""
    table = pa.Table.from_pylist(list(rows))
    for name, kind in types.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    return table
