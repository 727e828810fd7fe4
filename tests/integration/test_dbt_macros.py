"""The dbt package on a small project and a real lake: windows, the appending strategy, its guards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from dbt_runs import Dbt, batches_of, dbt_environment, message, parse
from tiny_platform import TINY_PROJECT

from feature_platform import lake
from feature_platform.domain.windows import Grain, Partition, partition_starting
from feature_platform.settings import Settings

REPOSITORY = Path(__file__).parents[2]
DAY = datetime(2026, 3, 1, tzinfo=UTC)
TABLE = "lake.batches.planted_v1"

PROJECT = """
name: tiny
version: "1.0.0"
config-version: 2
profile: feature_platform
macro-paths: ["{macros}"]
models:
  tiny:
    +materialized: incremental
    +incremental_strategy: batch_append
    +on_schema_change: append_new_columns
    +full_refresh: false
    +schema: batches
    +pre-hook: [{{sql: "{{{{ assert_deployed() }}}}", transaction: false}}]
"""

MODELS = """
sources:
  - name: raw
    database: lake
    schema: sources
    tables: [{{name: planted}}]
models:
  {models}
"""

MODEL = """
  - name: {name}
    latest_version: 1
    config:
      batch_size: {grain}
      contract: {{enforced: true}}
      meta: {{feature_view: {{entities: [k]}}}}
      {config}
    columns:
      - {{name: k, data_type: integer, data_tests: [{{unique: {{config: {{where: "x < 100"}}}}}}]}}
      - {{name: event_timestamp, data_type: timestamptz}}
      - {{name: x, data_type: integer}}
    versions: [{{v: 1, defined_in: {name}}}]
"""

AS_PLANTED = "select k, event_timestamp, x from {{ source('raw', 'planted') }}"
SQL = {
    "planted": AS_PLANTED,
    "monthly": AS_PLANTED,
    "never_deployed": AS_PLANTED,
    "refreshing": AS_PLANTED,
    "windowed": """
with planted as (
    select * from {{ feature_rows(source('raw', 'planted'), event_time='known_at', lookback='7 days') }} as planted
)
select k, event_timestamp, {{ rolling('sum(x)', '1 day') }}::integer as x from planted group by k, event_timestamp
""",
}


def write_project(root: Path, models: dict[str, str]) -> Path:
    project = root / "dbt_project"
    (project / "models").mkdir(parents=True)
    macros = os.path.relpath(REPOSITORY / "feature_platform" / "dbt" / "macros", project)
    (project / "dbt_project.yml").write_text(PROJECT.format(macros=macros))
    shutil.copy(TINY_PROJECT / "dbt_project" / "profiles.yml", project)
    for name, sql in models.items():
        (project / "models" / f"{name}.sql").write_text(sql)
    declared = "".join(
        MODEL.format(
            name=name,
            grain="month" if name == "monthly" else "day",
            config="full_refresh: true" if name == "refreshing" else "",
        )
        for name in models
    )
    (project / "models" / "models.yml").write_text(MODELS.format(models=declared))
    return project


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    """The project on disk and its manifest, parsed with nothing running and no address set."""
    root = tmp_path_factory.mktemp("tiny")
    project = write_project(root, SQL)
    return project, root / "target", parse(project, root / "target")


@pytest.fixture
def dbt(tiny, settings: Settings) -> Dbt:
    project, target, manifest = tiny
    with lake.connect(settings) as connection:
        for schema in ("sources", "batches"):
            connection.execute(f"create schema lake.{schema}")
        connection.execute(
            "create table lake.sources.planted"
            " (k integer, event_timestamp timestamptz, x integer, known_at timestamptz)"
        )
        for name in SQL:
            if name != "never_deployed":
                connection.execute(
                    f"create table lake.batches.{name}_v1 (k integer, event_timestamp timestamptz, x integer,"
                    " _batch_id varchar, _partition_start timestamptz)"
                )
    return Dbt(project, target, manifest, dbt_environment(settings))


@pytest.fixture
def connection(dbt: Dbt, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with lake.connect(settings) as opened:
        yield opened


def days(*numbers: int) -> list[Partition]:
    return [partition_starting(DAY + timedelta(days=number), Grain.DAY) for number in numbers]


def plant(connection: duckdb.DuckDBPyConnection, *rows: tuple[int | None, float | None, int]) -> None:
    """Rows (k, event_timestamp in days after DAY, x)."""
    connection.execute("delete from lake.sources.planted")
    for k, day, x in rows:
        instant = None if day is None else DAY + timedelta(days=day)
        connection.execute("insert into lake.sources.planted values (?, ?, ?, ?)", [k, instant, x, instant])


def test_rows_are_appended_under_the_batch_of_their_partition(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    plant(connection, (1, 1, 10), (1, 1.000001, 11), (2, 1.5, 12), (2, 2, 13))
    first, second = dbt.run("planted", batches_of(days(0, 1)))
    found = connection.execute(f"select k, x, _batch_id, _partition_start from {TABLE} order by x").fetchall()
    start = DAY + timedelta(days=1)
    assert found == [
        (1, 10, first["batch_id"], DAY),  # an end belongs to its partition, a start to the one before
        (1, 11, second["batch_id"], start),
        (2, 12, second["batch_id"], start),
        (2, 13, second["batch_id"], start),
    ]


def test_months_have_their_own_lengths(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    months = [partition_starting(datetime(2026, month, 1, tzinfo=UTC), Grain.MONTH) for month in (2, 3)]
    plant(connection, (1, -28 + 0.000001, 1), (1, 0, 2), (1, 0.000001, 3), (1, 31, 4))
    february, march = dbt.run("monthly", batches_of(months))
    found = connection.execute("select x, _batch_id from lake.batches.monthly_v1 order by x").fetchall()
    assert found == [*((x, february["batch_id"]) for x in (1, 2)), *((x, march["batch_id"]) for x in (3, 4))]
    plant(connection, (1, -28, 1))
    assert "1 rows outside the run's partitions" in dbt.refused("monthly", batches_of(months))


def test_a_run_may_skip_partitions(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    plant(connection, (1, 0.5, 1), (1, 4.5, 2))
    dbt.run("planted", batches_of(days(4, 0)))
    plant(connection, (1, 2.5, 3))
    assert "1 rows outside the run's partitions" in dbt.refused("planted", batches_of(days(0, 4)))
    assert connection.execute(f"select x, _partition_start from {TABLE} order by x").fetchall() == [
        (1, DAY),
        (2, DAY + timedelta(days=4)),
    ]


GOOD = ((7, 0.5, 1), (7, 1.5, 2))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (((1, 0, 1),), "1 rows outside the run's partitions"),
        (((1, 2.000001, 1), (2, 9, 1), (2, -1.5, 1)), "3 rows outside the run's partitions"),
        (((1, 0.5, 1), (1, 0.5, 2)), "1 keys with more than one row, e.g. {'k': 1, 'event_timestamp': '2026-03-01 12"),
        (((None, 0.5, 1), (None, 0.6, 1)), "rows with a null key: k 2, event_timestamp 0"),
        (((1, None, 1),), "rows with a null key: k 0, event_timestamp 1"),
    ],
)
def test_one_bad_row_rejects_the_whole_run(
    dbt: Dbt, connection: duckdb.DuckDBPyConnection, bad: tuple, said: str
) -> None:
    plant(connection, *GOOD, *bad)
    refusal = dbt.refused("planted", batches_of(days(0, 1)))
    assert "feature_platform: batch rejected: planted_v1: " in refusal
    assert said in refusal
    assert connection.execute(f"select count(*) from {TABLE}").fetchone() == (0,)


def test_a_batch_is_written_once(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    plant(connection, *GOOD)
    opened = dbt.run("planted", batches_of(days(0, 1)))
    refusal = dbt.refused("planted", opened)
    assert "the table already has rows of " in refusal
    assert "(2 of 2 batches)" in refusal
    assert connection.execute(f"select count(*) from {TABLE}").fetchone() == (2,)


def test_a_recomputation_is_another_batch(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    plant(connection, *GOOD)
    dbt.run("planted", batches_of(days(0, 1)))
    dbt.run("planted", batches_of(days(0, 1)))
    assert connection.execute(f"select count(*), count(distinct _batch_id) from {TABLE}").fetchone() == (4, 4)


@pytest.mark.parametrize("same", ["batch_id", "partition_start"])
def test_one_run_cannot_hold_a_partition_or_an_id_twice(dbt: Dbt, same: str) -> None:
    first, second = batches_of(days(0, 1))
    refusal = dbt.refused("planted", [first, second | {same: first[same]}])
    assert f"one run holds a {same} twice" in refusal


def test_a_full_refresh_destroys_nothing(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    plant(connection, *GOOD)
    dbt.run("planted", batches_of(days(0, 1)))
    dbt.run("planted", batches_of(days(0, 1)), "--full-refresh")
    assert connection.execute(f"select count(*) from {TABLE}").fetchone() == (4,)

    connection.execute(
        "insert into lake.batches.refreshing_v1 select *, 'kept', null from (select k, event_timestamp, x"
        " from lake.sources.planted)"
    )
    assert "a full refresh would destroy history" in dbt.refused("refreshing", batches_of(days(0, 1)), "--full-refresh")
    assert connection.execute("select count(*) from lake.batches.refreshing_v1").fetchone() == (2,)


def test_a_run_creates_and_alters_no_table(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    refusal = dbt.refused("never_deployed", batches_of(days(0)))
    assert "feature_platform: not deployed: the lake has no table" in refusal
    assert "feature-platform deploy" in refusal

    connection.execute(f"alter table {TABLE} drop column x")
    assert 'planted_v1" lacks x' in dbt.refused("planted", batches_of(days(0)))
    columns = [row[0] for row in connection.execute(f"describe {TABLE}").fetchall()]
    assert "x" not in columns


def test_a_run_without_batches_says_where_they_come_from(dbt: Dbt) -> None:
    for model in ("planted", "windowed"):
        refusal = dbt.refused(model)
        assert "needs the batches of a run" in refusal
        assert "feature-platform materialize" in refusal


def test_windows_end_before_the_event_timestamp(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    plant(connection, (1, 2, 1000), (1, 1.999999, 1), (1, 1, 2), (1, 0.999999, 4), (2, -4.9, 8), (2, -5.1, 16))
    dbt.run("windowed", batches_of(days(1)))
    found = connection.execute("select k, x, event_timestamp from lake.batches.windowed_v1 order by k").fetchall()
    end = DAY + timedelta(days=2)
    assert found == [(1, 3, end), (2, None, end)]


PLANTED = "{{ feature_rows(source('raw', 'planted'), event_time='known_at', lookback='7 days') }}"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            f"with planted as (select * from {PLANTED} as p) select {{{{ rolling('sum(x)', '8 days') }}}} from planted",
            "a window of rolling() is longer than the lookback of feature_rows()",
        ),
        ("select {{ rolling('sum(x)', '1 day') }} from {{ source('raw', 'planted') }}", "without feature_rows()"),
        (
            f"select * from {PLANTED.replace('7 days', '1 month')} as planted",
            "lookback of feature_rows() is no duration",
        ),
    ],
)
def test_a_window_that_would_see_less_than_it_says_does_not_parse(tmp_path: Path, sql: str, said: str) -> None:
    project = write_project(tmp_path, {"wrong": sql})
    with pytest.raises(AssertionError) as refusal:
        parse(project, tmp_path / "target")
    assert said in str(refusal.value)


def test_generic_tests_judge_the_batches_of_the_run(dbt: Dbt, connection: duckdb.DuckDBPyConnection) -> None:
    """`unique` on k with `where x < 100`: true of each run's own rows, false of the table."""
    plant(connection, (1, 0.5, 1), (1, 0.6, 200))
    first = dbt.run("planted", batches_of(days(0)))
    second = dbt.run("planted", batches_of(days(0)))
    test = ["test", "--select", "planted"]
    assert dbt.invoke(test, first).success
    assert dbt.invoke(test, second).success
    assert not dbt.invoke(test, first + second).success
    assert "needs the batches of a run" in message(dbt.invoke(test))


def test_a_batch_larger_than_memory_spills(tiny, dbt: Dbt, settings: Settings) -> None:
    with lake.connect(settings) as connection:
        connection.execute(
            "insert into lake.sources.planted"
            " select range::integer, $at + to_microseconds(range), (hash(range) % 1000000)::integer, null"
            " from range(4000000)",
            {"at": DAY + timedelta(hours=1)},
        )
    dbt.environ = dbt.environ | {"FEATURE_PLATFORM_DUCKDB_MEMORY": "160MB"}
    dbt.run("planted", batches_of(days(0)))
    with lake.connect(settings) as connection:
        assert connection.execute(f"select count(*) from {TABLE}").fetchone() == (4000000,)
