"""SQL of the lake as values."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_platform.domain.feature_view import Column, FeatureView
from feature_platform.domain.types import ColumnType, ListType
from feature_platform.domain.windows import Grain
from feature_platform.lake import sql
from feature_platform.lake.tables import find_misfits, plan_tables


@dataclass(frozen=True)
class View:
    """The parts of a feature view that tables depend on."""

    entities: tuple[Column, ...] = (Column(name="user_id", type=ColumnType.BIGINT),)
    features: tuple[Column, ...] = (Column(name="clicks", type=ColumnType.BIGINT),)
    grain: Grain = Grain.DAY
    name: str = "user_activity"
    version: int = 1
    key: str = "user_activity@1"
    table: str = "user_activity_v1"
    yaml_path: str = "models/user_activity.yml"

    @property
    def entity_names(self):
        return tuple(column.name for column in self.entities)

    @property
    def feature_names(self):
        return tuple(column.name for column in self.features)

    @property
    def row_bytes(self):
        return FeatureView.row_bytes.fget(self)


DEPLOYED = {
    "user_id": "BIGINT",
    "event_timestamp": "TIMESTAMP WITH TIME ZONE",
    "clicks": "BIGINT",
    "_batch_id": "VARCHAR",
    "_partition_start": "TIMESTAMP WITH TIME ZONE",
}
MORE = Column(name="amount", type=ColumnType.DOUBLE)


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=20))
def test_quoting_round_trips(name):
    with duckdb.connect() as connection:
        cursor = connection.execute(f"select {sql.quote_literal(name)} as {sql.quote_identifier(name)}")
        assert cursor.description[0][0] == name
        assert cursor.fetchone() == (name,)


def test_created_table():
    create, partition = sql.build_create_table(View())
    assert create == (
        'create table "lake"."batches"."user_activity_v1" ("user_id" BIGINT not null,'
        ' "event_timestamp" TIMESTAMP WITH TIME ZONE not null, "clicks" BIGINT,'
        ' "_batch_id" VARCHAR not null, "_partition_start" TIMESTAMP WITH TIME ZONE not null)'
    )
    assert partition.endswith('set partitioned by (year("_partition_start"), month("_partition_start"))')


def test_table_that_fits_needs_nothing():
    assert plan_tables({"v": View()}, {"user_activity_v1": DEPLOYED}, {}) == ()


def test_new_features_are_appended():
    view = View(features=(*View().features, MORE))
    ((action, statements),) = plan_tables({"v": view}, {"user_activity_v1": DEPLOYED}, {})
    assert action == "add amount to batches.user_activity_v1"
    assert statements == ('alter table "lake"."batches"."user_activity_v1" add column "amount" DOUBLE',)
    # as the table then is: appended behind the platform's own columns
    assert plan_tables({"v": view}, {"user_activity_v1": DEPLOYED | {"amount": "DOUBLE"}}, {}) == ()


def test_wide_rows_are_written_in_smaller_groups():
    view = View(features=(Column(name="clicks", type=ListType(ColumnType.FLOAT, 768)),))
    table = {"user_activity_v1": DEPLOYED | {"clicks": "FLOAT[]"}}
    ((action, (statement,)),) = plan_tables({"v": view}, table, {})
    assert action == "write batches.user_activity_v1 in groups of 10,240 rows"
    assert "'parquet_row_group_size', 10240, schema => 'batches', table_name => 'user_activity_v1'" in statement
    assert plan_tables({"v": view}, table, {"user_activity_v1": "10240"}) == ()
    assert [action for action, _ in plan_tables({"v": view}, {}, {})] == [
        "create table batches.user_activity_v1",
        action,
    ]


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        (View(features=()), "clicks was removed"),
        (View(features=(Column(name="clicks", type=ColumnType.DOUBLE),)), "clicks changed its type"),
        (View(entities=(Column(name="user_id", type=ColumnType.VARCHAR),)), "user_id changed its type"),
        (View(entities=(*View().entities, Column(name="shop", type=ColumnType.BIGINT))), "entity shop was added"),
        (View(entities=(Column(name="clicks", type=ColumnType.BIGINT),), features=(
            Column(name="user_id", type=ColumnType.BIGINT),)), "entities changed"),
    ],
)  # fmt: skip
def test_incompatible_changes_are_refused(view, problem):
    findings = find_misfits({"v": view}, {"user_activity_v1": DEPLOYED})
    assert problem in "\n".join(map(str, findings))
    assert all("declare version 2 of user_activity" in finding.hint for finding in findings)


def test_all_findings_come_at_once():
    views = {"a": View(features=()), "b": View(table="other_v1", features=())}
    assert len(find_misfits(views, {"user_activity_v1": DEPLOYED, "other_v1": DEPLOYED})) == 2
