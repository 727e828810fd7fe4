"""What the contestants compete on: a platform of its own with generated feature views, and labels.

Rule: data is made once and kept; whatever is there complete is not made again, whatever was cut off is made anew. It is
written batch by batch through the lake, so memory does not follow its size. The other contestants read the very files
that the lake wrote.

A view has one row per entity and day at a second of that day, ten float64 features that do not compress, one batch a
day. `ten<days>` was never recomputed. In `tenth<days>` every tenth batch was recomputed three days later: other values,
and 1% of its rows vanished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from feature_platform import lake
from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.batch import Batch, Measured
from feature_platform.domain.feature_service import FeatureService, ViewSelection
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
from feature_platform.domain.windows import Grain, partitions_between
from feature_platform.lake.sql import SCHEMAS, batches_table, build_create_table
from feature_platform.ledger import Ledger, migrate
from feature_platform.local.places import Places
from feature_platform.local.postgres import start_postgres, stop_postgres
from feature_platform.settings import Settings

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ENTITIES = 1_000_000
FEATURES = 10
TTL = timedelta(days=7)
STORE = "default"
_OWNER = Owner(name="bench", email="bench@example.com")
_PUBLISHED_AFTER, _SYNC_BEGAN_AFTER, _ONLINE_AFTER = timedelta(minutes=30), timedelta(minutes=40), timedelta(hours=1)
_RECOMPUTED_AFTER = timedelta(days=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One generated view."""

    name: str
    days: int
    letter: str = "x"
    """Features are `<letter>0` to `<letter>9`, so that five views in one answer keep plain names."""
    superseded_every: int = 0
    """Every so-manieth batch was recomputed; 0: none."""

    def view(self, *, ttl: timedelta | None = TTL) -> FeatureView:
        """Its declaration."""
        return FeatureView(
            name=self.name, version=1, description="", grain=Grain.DAY, ttl=ttl, availability_delay=timedelta(0),
            entities=(Column(name="entity", type=ColumnType.BIGINT),),
            features=tuple(Column(name=f"{self.letter}{i}", type=ColumnType.DOUBLE) for i in range(FEATURES)),
            begin=BEGIN, late_data=LateData(policy=LatePolicy.RECOMPUTE, window=timedelta(days=7)),
            freshness=FreshnessSla(warn_after=None, error_after=None), online=OnlineTier.VALKEY, owner=_OWNER,
            group="bench", access="public", tags=(), deprecation_date=None, sources=(), expectations=(),
            unique_id=f"model.bench.{self.name}.v1", table=f"{self.name}_v1", sql_path="", yaml_path="",
            code_version="1",
        )  # fmt: skip


def datasets(days: int, views: int) -> tuple[Dataset, ...]:
    """The never recomputed views of this length: `ten10`, and for more than one `b_ten10` … beside it."""
    names = [f"ten{days}", *(f"{letter}_ten{days}" for letter in "bcde")][:views]
    return tuple(Dataset(name=n, days=days, letter="x" if n == names[0] else n[0]) for n in names)


def superseded(days: int) -> Dataset:
    """The view in which 10% of the batches were recomputed."""
    return Dataset(name=f"tenth{days}", days=days, superseded_every=10)


def registry_of(views: Sequence[FeatureView]) -> FeatureRegistry:
    """A registry of these views, and a service that wants all of them."""
    service = FeatureService(
        name="all", description="", owner=_OWNER, latency_budget=None, batch_size=None, freshness=None,
        unique_id="exposure.bench.all", path="",
        selections=tuple(ViewSelection(view=v.name, version=1, features=v.feature_names) for v in views),
    )  # fmt: skip
    return FeatureRegistry(
        views={view.key: view for view in views},
        services={service.name: service},
        sources={},
        latest={view.name: 1 for view in views},
    )


@contextmanager
def services(home: Path) -> Iterator[Settings]:
    """The platform of the benchmark: Postgres runs for the block."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)
    places = Places(home=home)
    with places.lock():
        server = start_postgres(places, ("ledger", "lake"))
    settings = Settings(
        project=home, home=home, ledger_url=server.url("ledger"), lake_catalog=f"dbname=lake {server.keywords}",
        lake_data=str(home / "lake"), valkey_url="", store=STORE, duckdb_memory="1GB",
    )  # fmt: skip
    try:
        migrate(settings.ledger_url)
        yield settings
    finally:
        stop_postgres(places)
        places.remove_sockets()


def prepare(settings: Settings, wanted: Sequence[Dataset], *, say: Callable[[str], None]) -> None:
    """Make the datasets that are not there yet."""
    with lake.connect(settings) as connection:
        for schema in SCHEMAS:
            connection.execute(f"create schema if not exists {schema}")
        for dataset in wanted:
            marker = settings.home / f"{dataset.name}.complete"
            if marker.exists():
                continue
            with Ledger.connect(settings.ledger_url) as ledger:
                if ledger.batches(dataset.view().key, limit=1):
                    raise SystemExit(f"{dataset.name} was cut off while it was made; delete {settings.home} and repeat")
                _write(connection, ledger, dataset, say=say)
            marker.touch()
        for dataset in wanted:
            with Ledger.connect(settings.ledger_url) as ledger:
                if not ledger.observations(dataset.view().key, STORE):
                    _record_sightings(ledger, dataset)


def _record_sightings(ledger: Ledger, dataset: Dataset) -> None:
    """The store was seen empty at the first sync, and complete long after the last one: all between is known.

    Their numbers are those of the syncs, so that cached histories can be completed.
    """
    view = dataset.view().key
    with ledger._append() as append:  # noqa: SLF001 - see _record_history
        ((sync_id, began_seq, began_at, last_seq, position),) = append.fetch(
            "select (array_agg(s.sync_id::text order by s.to_position))[1], min(s.ledger_seq), min(s.began_at),"
            " max(e.ledger_seq), max(s.to_position) from sync_began s join sync_ended e using (sync_id)"
            " where s.view = %s and s.store = %s",
            (view, STORE),
        )
        later = BEGIN + timedelta(days=dataset.days + 30)
        seen = [json.dumps({view: {"nonce": "bench", "position": at}}) for at in (0, position)]
        append.insert(
            "insert into store_observed (ledger_seq, store, asked_seq, asked_at, observed_at, server_run_id, views,"
            " sync_id) values %s returning 1",
            [
                (began_seq, STORE, began_seq - 1, began_at, began_at, "1", seen[0], sync_id),
                (last_seq, STORE, last_seq, later, later, "1", seen[1], None),
            ],
        )


def _write(
    connection: duckdb.DuckDBPyConnection, ledger: Ledger, dataset: Dataset, *, say: Callable[[str], None]
) -> None:
    view = dataset.view()
    for statement in build_create_table(view):
        connection.execute(statement)
    partitions = tuple(partitions_between(BEGIN, BEGIN + timedelta(days=dataset.days), Grain.DAY))
    batches = list(ledger.open_batches(view, partitions, run_id="bench"))
    again = partitions[dataset.superseded_every - 1 :: dataset.superseded_every] if dataset.superseded_every else ()
    recomputed = list(ledger.open_batches(view, again, run_id="bench")) if again else []
    measured = []
    for number, batch in enumerate([*batches, *recomputed]):
        say(f"{dataset.name}: batch {number + 1} of {len(batches) + len(recomputed)}")
        salt = 0 if number < len(batches) else 1
        connection.execute(
            f"insert into {batches_table(view)} {_rows(dataset, batch, salt)}",
        )
        measured.append(
            Measured(
                batch_id=batch.batch_id, row_count=ENTITIES, byte_count=1, compute_seconds=1.0, peak_memory_bytes=1,
                source_watermark=batch.partition.end,
            )
        )  # fmt: skip
    ledger.record_computed(measured)
    ledger.record_audited([batch.batch_id for batch in (*batches, *recomputed)], passed=True)
    events = [(batch, batch.partition.end) for batch in batches]
    events += [(batch, batch.partition.end + _RECOMPUTED_AFTER) for batch in recomputed]
    _record_history(ledger, view, sorted(events, key=lambda event: (event[1], event[0].seq)))


def _rows(dataset: Dataset, batch: Batch, salt: int) -> str:
    """The rows of one batch, sorted by entity as the platform's own writes are."""
    seed = int(hashlib.sha256(f"{dataset.name} {batch.partition.key} {salt}".encode()).hexdigest()[:12], 16)
    day = (batch.partition.start - BEGIN).days
    features = ", ".join(f"(hash(i + {seed + k}) >> 11) / 9007199254740992.0" for k in range(1, FEATURES + 1))
    start = batch.partition.start.isoformat()
    vanished = f"where hash(i, {seed}) % 100 > 0" if salt else ""
    return (
        f"select i, timestamptz '{start}' + to_seconds(1 + hash(i, {day}) % 86400), {features},"
        f" '{batch.batch_id}', timestamptz '{start}' from range({ENTITIES}) t(i) {vanished}"
    )


def _record_history(ledger: Ledger, view: FeatureView, events: Sequence[tuple[Batch, datetime]]) -> None:
    """Publishes and syncs at the instants of a view that was live all the time.

    The ledger's clock is the database's; only a generated past has to state its own.
    """
    with ledger._append() as append:  # noqa: SLF001 - no API writes the past, and none should
        for position, (batch, ready) in enumerate(events, 1):
            sync_id = str(uuid.uuid4())
            published, began, ended = append.take_numbers(3)
            append.insert(
                "insert into batch_published (batch_id, ledger_seq, view, position, published_at) values %s"
                " returning 1",
                [(batch.batch_id, published, view.key, position, ready + _PUBLISHED_AFTER)],
            )
            append.insert(
                "insert into sync_began (sync_id, ledger_seq, view, store, from_position, to_position, server_run_id,"
                " run_id, began_at) values %s returning 1",
                [(sync_id, began, view.key, STORE, position - 1, position, "1", "bench", ready + _SYNC_BEGAN_AFTER)],
            )
            append.insert(
                "insert into sync_ended (sync_id, ledger_seq, entities, written, tombstones, refused, seconds,"
                " ended_at) values %s returning 1",
                [(sync_id, ended, ENTITIES, ENTITIES, 0, 0, 1.0, ready + _ONLINE_AFTER)],
            )


def files_of(settings: Settings, dataset: Dataset) -> list[str]:
    """The Parquet files of a view that was never recomputed: all of its rows count."""
    with lake.connect(settings, read_only=True) as connection:
        rows = connection.execute(
            f"select data_file from ducklake_list_files('lake', '{dataset.view().table}', schema => 'batches')"
        ).fetchall()
    return sorted(row[0] for row in rows)


def folder_of(settings: Settings, dataset: Dataset) -> Path:
    """The same files as links in one folder, for readers that take a folder."""
    folder = settings.home / "folders" / dataset.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, path in enumerate(files_of(settings, dataset)):
        os.link(path, folder / f"{number:04d}.parquet")
    return folder


def make_labels(home: Path, *, count: int, days: int) -> Path:
    """`count` labels, uniform over entities and time, in no order.

    Their times lie half a second beside every event, so no answer hangs on whether a bound is strict: polars'
    `tolerance` and pandas' are inclusive, ours and SQL's here are not.
    """
    path = home / "labels" / f"{count}_{days}.parquet"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with duckdb.connect(config={"memory_limit": "1GB"}) as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(
                f"copy (select i as n, (hash(i, 1) % {ENTITIES})::bigint as entity, timestamptz '{BEGIN.isoformat()}'"
                f" + to_seconds(hash(i, 2) % {days * 86400}) + interval 500 milliseconds as event_timestamp"
                f" from range({count}) t(i)) to '{path}.part' (format parquet)"
            )
        Path(f"{path}.part").replace(path)
    return path


def write_case(path: Path, settings: Settings, data: Sequence[Dataset], labels: Path, **extra: object) -> Path:
    """What one contestant has to do, for its own process."""
    path.write_text(
        json.dumps(
            {
                "home": str(settings.home), "ledger_url": settings.ledger_url, "lake_catalog": settings.lake_catalog,
                "labels": str(labels), "ttl_days": TTL.days, "memory_limit": settings.duckdb_memory,
                "views": [
                    {
                        "name": d.name, "days": d.days, "letter": d.letter, "superseded_every": d.superseded_every,
                        "files": files_of(settings, d) if not d.superseded_every else [],
                        "folder": str(folder_of(settings, d)) if extra.get("folders") else "",
                        "features": [f"{d.letter}{i}" for i in range(FEATURES)],
                    }
                    for d in data
                ],
                **extra,
            },
            indent=1,
        ),
        encoding="utf-8",
    )  # fmt: skip
    return path
