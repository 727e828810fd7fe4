"""The answer of `get_historical_features`: a training set that is computed but not yet in memory.

Rule: rows and columns of the labels come first, unchanged and in order; one column per feature follows. Every way out
streams from DuckDB, which spills beyond its memory limit; only `to_arrow` and `to_pandas` hold the whole, because that
is what they are for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb
import pyarrow as pa

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.training_set import Mode
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.offline.modes import Outages
from feature_platform.offline.output import OutputColumn
from feature_platform.offline.parquet import copy_to_parquet
from feature_platform.offline.point_in_time import Plan
from feature_platform.offline.provenance import ProvenanceCounts

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetFacts:
    """What a training set was made of."""

    mode: Mode
    store: str | None
    """The online store that was asked about; None for `modelled`."""
    ledger_sequence: int
    """The state of the ledger that decided which batches were visible."""
    row_count: int
    outages: Outages | None
    excluded: int
    """Labels that were left out, because they fell into an outage and the service's policy says so."""
    label_columns: tuple[str, ...]
    features: tuple[OutputColumn, ...]
    writer: Mapping[str, Any]
    """Settings with which the set is written to Parquet."""
    plans: Mapping[str, tuple[Plan, ...]]
    """Per view key, how DuckDB computed what was modelled, and what was served; those that there were."""
    used: Mapping[str, tuple[PublishedBatch, ...]]
    """Per view key, the batches any label could see: without their rows the set cannot be made again."""
    provenance: Mapping[str, ProvenanceCounts]
    """Per view key, how many labels were answered in which way."""
    known_until: Mapping[str, datetime | None]
    """Per view that was asked about in the store, when the store was last seen; what is later is `unknown`."""

    @property
    def batches(self) -> dict[str, int]:
        """Per view key, how many batches any label could see."""
        return {key: len(batches) for key, batches in self.used.items()}


class HistoricalFeatures:
    """Labels with their features as of each label's time. Close it, or use it as a context manager."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, sql: str, facts: TrainingSetFacts, answers: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._sql = sql
        self._answers = answers
        self.facts = facts

    def to_reader(self, batch_rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
        """A stream of Arrow record batches. Several may be open at once."""
        # its own cursor: a second query on the same one would end the first one's stream
        cursor = self._cursor()
        cursor.execute(self._sql)
        reader: pa.RecordBatchReader = cursor.to_arrow_reader(batch_rows)
        return reader

    def to_arrow(self) -> pa.Table:
        """The whole as an Arrow table. Types are those of the declaration; instants are in UTC."""
        return self.to_reader().read_all()

    def to_pandas(self) -> pd.DataFrame:
        """The whole as a DataFrame. pandas turns integer columns with missing values into floats; Arrow does not."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_parquet(self, path: str | Path, *, writer: Mapping[str, Any] | None = None) -> Path:
        """Stream to a Parquet file. The file appears under its name when it is complete, replacing an older one.

        Args:
            path: the file.
            writer: the settings of a kept set (`Manifest.parquet`), whose very bytes are wanted again.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # beside the target, because a rename is atomic only within one file system
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
            unfinished = Path(directory) / "part.parquet"
            with self._cursor() as cursor, lake_errors(f"writing {path.name}"):
                copy_to_parquet(cursor, self._sql, unfinished, writer=writer or self.facts.writer)
            unfinished.replace(path)
        return path

    def null_shares(self) -> dict[str, float]:
        """Per feature column, the share of labels without a value; 0 for an empty set."""
        shares: dict[str, float] = {}
        with self._cursor() as cursor:
            for key, answer in self._answers.items():
                columns = [column for column in self.facts.features if column.view == key]
                counts = ", ".join(f"count({quote(column.feature)})" for column in columns)
                (present,) = cursor.execute(f"select {counts} from {quote(answer)}").fetchall()
                for column, count in zip(columns, present, strict=True):
                    shares[column.name] = 1 - count / self.facts.row_count if self.facts.row_count else 0.0
        return shares

    def close(self) -> None:
        """Free memory and scratch files. Readers that are still open end."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        columns = len(self.facts.label_columns) + len(self.facts.features)
        return f"<HistoricalFeatures {self.facts.row_count} rows x {columns} columns, {self.facts.mode}>"

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        cursor = self._connection.cursor()
        cursor.execute("set TimeZone = 'UTC'")
        return cursor
