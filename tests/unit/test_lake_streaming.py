"""Results of DuckDB as a stream of Arrow batches."""

from __future__ import annotations

import duckdb
import pytest

from feature_platform.errors import LedgerUnavailableError
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.streaming import record_batches


def test_batches_hold_all_rows_in_order():
    with duckdb.connect() as connection:
        batches = list(record_batches(connection.execute("select i from range(10000) r(i)"), 2048))
        assert [number for batch in batches for number in batch.column(0).to_pylist()] == list(range(10000))
        assert len(batches) > 2
        assert list(record_batches(connection.execute("select 1 where false"), 10)) == []


def test_a_failure_in_the_middle_is_told_as_what_it_is():
    failing = "select if(i = 90000, error('server closed the connection unexpectedly'), i) from range(100000) r(i)"
    with (
        duckdb.connect() as connection,
        pytest.raises(LedgerUnavailableError, match="reading x: the lake catalog"),
        lake_errors("reading x"),
    ):
        list(record_batches(connection.execute(failing), 2048))
