"""What is written under load: one view whose values say of which entity and which version they are.

Rule: everything is derived from (entity, version), so whoever reads can tell a right value from a wrong one without
being told what was written. A version is a batch of the one partition that supersedes the one before, synced the real
way.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
from pit import world as pit

from feature_platform.domain.batch import Measured
from feature_platform.domain.feature_view import Column, FeatureView
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, Partition, partitions_between
from feature_platform.lake.sql import SCHEMAS, batches_table, build_create_table
from feature_platform.ledger import Ledger

ENTITIES: Final = 20_000
VIEW: Final = "loaded"
VERSIONS: Final = 100_000
"""More than are ever written: an entity's numbers end where the next one's begin."""
_FLOATS, _INTEGERS, _TEXTS = 20, 5, 3
FEATURES: Final = (
    *(f"f{k}" for k in range(_FLOATS)),
    *(f"i{k}" for k in range(_INTEGERS)),
    *(f"s{k}" for k in range(_TEXTS)),
)


def expected(entity: int, version: int) -> list[Any]:
    """The features of an entity, in the order of `FEATURES`."""
    number = entity * VERSIONS + version
    floats = [number + k / 32 for k in range(_FLOATS)]
    return [*floats, *(number + k for k in range(_INTEGERS)), *(f"{entity}:{version}:{k}" for k in range(_TEXTS))]


def view() -> FeatureView:
    """Its declaration."""
    features = (
        *(Column(name=f"f{k}", type=ColumnType.DOUBLE) for k in range(_FLOATS)),
        *(Column(name=f"i{k}", type=ColumnType.BIGINT) for k in range(_INTEGERS)),
        *(Column(name=f"s{k}", type=ColumnType.VARCHAR) for k in range(_TEXTS)),
    )
    template = pit.Dataset(name=VIEW, days=1).view()
    return replace(template, features=features, ttl=timedelta(days=400))


def yesterday() -> Partition:
    """The one partition."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    (partition,) = partitions_between(midnight - timedelta(days=1), midnight, Grain.DAY)
    return partition


def create_tables(lake: duckdb.DuckDBPyConnection) -> None:
    """The lake's schemas and the view's table."""
    for schema in SCHEMAS:
        lake.execute(f"create schema if not exists {schema}")
    for statement in build_create_table(view()):
        lake.execute(statement)


def publish(lake: duckdb.DuckDBPyConnection, ledger: Ledger, partition: Partition, version: int) -> None:
    """Write and publish one version of every entity."""
    (batch,) = ledger.open_batches(view(), [partition], run_id="load")
    number = f"(i * {VERSIONS} + {version})"
    columns = [
        *(f"{number} + {k} / 32.0::double" for k in range(_FLOATS)),
        *(f"({number} + {k})::bigint" for k in range(_INTEGERS)),
        *(f"concat(i, ':', {version}, ':', {k})" for k in range(_TEXTS)),
    ]
    start = f"timestamptz '{partition.start.isoformat()}'"
    lake.execute(
        f"insert into {batches_table(view())} select i, {start} + to_seconds(60), {', '.join(columns)},"
        f" '{batch.batch_id}', {start} from range({ENTITIES}) t(i)"
    )
    measured = Measured(
        batch_id=batch.batch_id, row_count=ENTITIES, byte_count=1, compute_seconds=1.0, peak_memory_bytes=1,
        source_watermark=partition.end,
    )  # fmt: skip
    ledger.record_computed([measured])
    ledger.record_audited([batch.batch_id], passed=True)
    ledger.publish([batch.batch_id])


class Progress:
    """What reader and writer tell each other, in a file that both map."""

    _LAYOUT: Final = struct.Struct("=qqq")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self._LAYOUT.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._LAYOUT.size)

    def get(self) -> tuple[int, int, int]:
        """The newest version that may be seen; the one that must be; 1 while the server lacks its data, else 0."""
        begun, done, lost = self._LAYOUT.unpack(self._map)
        return begun, done, lost

    def set(self, *, begun: int | None = None, done: int | None = None, lost: int | None = None) -> None:
        """Tell. There is one writer."""
        held = self.get()
        told = (now if now is not None else before for now, before in zip((begun, done, lost), held, strict=True))
        self._map[:] = self._LAYOUT.pack(*told)
