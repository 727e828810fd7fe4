"""Results of DuckDB as a stream of Arrow batches.

Rule: what fails in the middle of a stream fails as DuckDB's error. pyarrow, which pulls the batches, reports it as an
`OSError`, and nobody above could tell it from a failure of a file or a socket.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa


def record_batches(result: duckdb.DuckDBPyConnection, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of an executed statement, about so many at a time; empty batches are left out.

    Raises:
        duckdb.Error: DuckDB failed to compute a batch.
    """
    reader = result.to_arrow_reader(rows)
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            raise duckdb.Error(str(error)) from error
        if batch.num_rows:
            yield batch
