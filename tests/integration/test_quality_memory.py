"""Bounded memory: profiling and judging one batch of more data than DuckDB may hold."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from views import DAY, view_with

from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import Column, Expectation
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, partition_starting
from feature_platform.quality import judge, profile_batches, refuse_unjudgeable
from feature_platform.quality.duckdb_dialect import MAX_RESULT_ROWS

ROWS, FEATURES = 4_000_000, 12
EXPECTATIONS = (
    Expectation(type="ExpectColumnMeanToBeBetween", arguments={"column": "f0", "min_value": 0.49, "max_value": 0.51}),
    Expectation(type="ExpectColumnMedianToBeBetween", arguments={"column": "f1", "min_value": 0.49}),
    Expectation(type="ExpectColumnValuesToBeBetween", arguments={"column": "f2", "min_value": 0.5}),
    Expectation(
        type="ExpectColumnQuantileValuesToBeBetween",
        arguments={
            "column": "f3",
            "quantile_ranges": {"quantiles": [0.5, 0.9], "value_ranges": [[0.4, 0.6], [0.8, 1.0]]},
        },
    ),
)
VIEW = replace(
    view_with(*EXPECTATIONS),
    features=tuple(Column(name=f"f{number}", type=ColumnType.DOUBLE) for number in range(FEATURES)),
)


@pytest.fixture
def batch() -> Batch:
    return Batch(batch_id=str(uuid.uuid4()), seq=1, view=VIEW.key, partition=partition_starting(DAY, Grain.DAY))


@pytest.fixture
def lake(tmp_path, batch: Batch):
    """Rows on a disk, 400 MB of them; DuckDB may hold 200 MB."""
    connection = duckdb.connect(config={"memory_limit": "200MB", "threads": 2})
    connection.execute(f"set TimeZone = 'UTC'; attach '{tmp_path / 'lake.duckdb'}' as lake; create schema lake.batches")
    numbers = ", ".join(f"random() as f{number}" for number in range(FEATURES))
    connection.execute(
        f"create table lake.batches.carrier_delays_v1 as select 'c' || i as carrier,"
        f" timestamptz '{batch.partition.end.isoformat()}' as event_timestamp, {numbers},"
        f" '{batch.batch_id}' as _batch_id,"
        f" timestamptz '{batch.partition.start.isoformat()}' as _partition_start from range({ROWS}) as r (i)"
    )
    yield connection
    connection.close()


def memory_mb(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024


def test_a_batch_larger_than_memory(lake, batch: Batch, record_property) -> None:
    refuse_unjudgeable([VIEW])  # the library itself is loaded
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
    before = memory_mb("VmRSS")
    (profile,) = profile_batches(VIEW, lake, [batch], rows={batch.batch_id: ROWS})
    outcomes = judge(VIEW, lake, [batch])
    grown = memory_mb("VmHWM") - before
    record_property("peak_rss_grew_mb", grown)
    assert grown < 300
    assert profile.row_count == ROWS
    for feature in profile.features.values():
        assert feature.quantiles[4] == pytest.approx(0.5, abs=0.01)
    assert [one.passed for one in outcomes] == [True, True, False, True]
    assert outcomes[2].detail["unexpected_count"] == pytest.approx(ROWS / 2, rel=0.01)


def test_a_check_that_would_fetch_a_whole_column_fails(lake, batch: Batch) -> None:
    distinct = Expectation(
        type="ExpectColumnDistinctValuesToContainSet", arguments={"column": "carrier", "value_set": ["c1"]}
    )
    (outcome,) = judge(replace(VIEW, expectations=(distinct,)), lake, [batch])
    assert not outcome.passed
    assert f"more than {MAX_RESULT_ROWS} rows" in outcome.detail["error"]
