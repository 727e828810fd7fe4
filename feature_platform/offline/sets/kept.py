"""A kept training set, as people open it.

Rule: a file is compared with the hash that the ledger recorded before anything is read from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_platform.ledger import TrainingSetRecord
from feature_platform.offline.sets.files import DATA, LABELS, SetFiles
from feature_platform.offline.sets.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd


class TrainingSet:
    """A training set that is kept: its manifest, and ways to its rows."""

    def __init__(self, record: TrainingSetRecord, files: SetFiles) -> None:
        self.record = record
        self.files = files
        self.manifest = Manifest.from_json(record.manifest)

    @property
    def key(self) -> str:
        """`name@version`."""
        return self.record.key

    @property
    def is_released(self) -> bool:
        """Whether it was given up: its files are still there, but it may be impossible to make it again."""
        return self.record.released_at is not None

    @property
    def directory(self) -> str:
        """Where its files lie."""
        return self.files.directory(self.record.name, self.record.version)

    @property
    def path(self) -> str:
        """Its Parquet file: a path, or an address on the object store."""
        return f"{self.directory}/{DATA}"

    @contextmanager
    def local_data(self) -> Iterator[Path]:
        """A local path of the data.

        Raises:
            DamagedFileError: the file is missing, or is not the one that was kept.
        """
        with self.files.local(self.record.name, self.record.version, DATA, self.manifest.data.sha256) as path:
            yield path

    @contextmanager
    def local_labels(self) -> Iterator[Path]:
        """A local path of the labels.

        Raises:
            DamagedFileError: the file is missing, or is not the one that was kept.
        """
        with self.files.local(self.record.name, self.record.version, LABELS, self.manifest.labels.sha256) as path:
            yield path

    def to_batches(self, batch_rows: int = 65_536) -> Iterator[pa.RecordBatch]:
        """A stream of Arrow record batches, in the order of the labels.

        Raises:
            DamagedFileError: the file is missing, or is not the one that was kept.
        """
        with self.local_data() as path, pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_rows)

    def to_arrow(self) -> pa.Table:
        """The whole as an Arrow table.

        Raises:
            DamagedFileError: the file is missing, or is not the one that was kept.
        """
        with self.local_data() as path, pq.ParquetFile(path) as file:
            return file.read()

    def to_pandas(self) -> pd.DataFrame:
        """The whole as a DataFrame. pandas turns integer columns with missing values into floats; Arrow does not.

        Raises:
            DamagedFileError: the file is missing, or is not the one that was kept.
        """
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def __repr__(self) -> str:
        return f"<TrainingSet {self.key} {self.manifest.row_count} rows, {self.manifest.mode}>"
