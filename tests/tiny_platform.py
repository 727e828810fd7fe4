"""A deployed platform over the tiny project, for tests of everything that runs on one.

platform = TinyPlatform.create(settings, tmp_path)   # a copy of tests/fixtures/tiny_project that may be edited
platform.add_events((1, 10.0, "2024-01-02 09:00"))   # user, amount, known at
platform.load_through("2024-01-10")
platform.deploy()
platform.materialize("user_activity", "2024-01-02")
"""

from __future__ import annotations

import shutil
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import psycopg2.extensions
import pytest

from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.windows import Partition, parse_partition_key
from feature_platform.lake import connect, sql
from feature_platform.ledger import Ledger, migrate
from feature_platform.materialization import DeployResult, MaterializationResult, deploy, materialize
from feature_platform.materialization.dbt_run import close_lake
from feature_platform.settings import Settings

TINY_PROJECT = Path(__file__).parent / "fixtures" / "tiny_project"
REPOSITORY = Path(__file__).parents[1]
SOURCE = "tiny.events"
LAG = timedelta(minutes=5)


def instant(text: str) -> datetime:
    """`2024-01-02 09:00` in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass
class TinyPlatform:
    settings: Settings

    @classmethod
    def create(cls, settings: Settings, directory: Path, *, template: Path = TINY_PROJECT) -> TinyPlatform:
        """Copy the project, migrate the ledger, create the empty source table."""
        project = directory / "project"
        shutil.copytree(template, project)
        config = project / "dbt_project" / "dbt_project.yml"
        config.write_text(config.read_text().replace("../../../../feature_platform", f"{REPOSITORY}/feature_platform"))
        platform = cls(settings=replace(settings, project=project))
        migrate(platform.settings.ledger_url)
        with closing(connect(platform.settings)) as lake:
            lake.execute("create schema if not exists lake.sources")
            lake.execute(
                "create table lake.sources.events"
                " (user_id bigint, amount double, known_at timestamptz, ingested_at timestamptz)"
            )
        return platform

    def model(self, name: str) -> Path:
        """A file of the copied project, by its name."""
        return next((self.settings.project / "dbt_project" / "models").rglob(name))

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.model(name)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def add_events(self, *events: tuple[int, float | None, str], late: timedelta = LAG) -> None:
        """Append source rows: (user, amount, known at); they arrive `late` after that."""
        rows = [(user, amount, instant(at), instant(at) + late) for user, amount, at in events]
        with closing(connect(self.settings)) as lake:
            lake.executemany("insert into lake.sources.events values (?, ?, ?, ?)", rows)

    def load_through(self, text: str) -> None:
        with Ledger.connect(self.settings.ledger_url) as ledger:
            ledger.record_source_load(SOURCE, loaded_through=instant(text), row_count=0, watermark=None, run_id="load")

    def deploy(self) -> DeployResult:
        return deploy(self.settings)

    @property
    def registry(self) -> FeatureRegistry:
        return load_registry(self.settings.manifest_path)

    def partitions(self, view: str, *keys: str) -> tuple[Partition, ...]:
        grain = self.registry.view(view).grain
        return tuple(parse_partition_key(key, grain) for key in keys)

    def materialize(self, view: str, *keys: str, run_id: str = "run", **options) -> MaterializationResult:
        return materialize(self.settings, self.registry, view, self.partitions(view, *keys), run_id=run_id, **options)

    def visible(self, view: str) -> list[tuple]:
        """The rows readers see: ledger first, then the lake, as every reader must."""
        declared = self.registry.view(view)
        with Ledger.connect(self.settings.ledger_url) as ledger:
            active = ledger.active_batches(declared.key)
        if not active:
            return []
        columns = ", ".join((*declared.entity_names, "event_timestamp", *declared.feature_names))
        with closing(connect(self.settings, read_only=True)) as lake:
            return lake.execute(
                f"select {columns} from {sql.batches_table(declared)}"
                " where _batch_id in (select unnest(?)) order by all",
                [[batch.batch_id for batch in active]],
            ).fetchall()

    def count_rows(self, view: str) -> int:
        """All rows of the physical table, visible or not."""
        with closing(connect(self.settings, read_only=True)) as lake:
            return lake.execute(f"select count(*) from {sql.batches_table(self.registry.view(view))}").fetchone()[0]


def platform_for_many(postgres_server, directory: Path, *, template: Path = TINY_PROJECT) -> TinyPlatform:
    """A platform that several tests share: with databases that end with the server, and without an online store."""
    ledger, catalog = (f"{directory.name}_{kind}_{uuid.uuid4().hex}" for kind in ("ledger", "catalog"))
    with closing(psycopg2.connect(postgres_server.url("postgres"))) as connection:
        connection.autocommit = True
        for name in (ledger, catalog):
            connection.cursor().execute(f'create database "{name}"')
    settings = Settings(
        project=directory / "project",
        home=directory / "home",
        ledger_url=postgres_server.url(ledger),
        lake_catalog=f"dbname={catalog} {postgres_server.keywords}",
        lake_data=str(directory / "home" / "lake"),
        valkey_url="",
        store="default",
        duckdb_memory="1GB",
    )
    return TinyPlatform.create(settings, directory, template=template)


@pytest.fixture(scope="session")
def tiny_template(postgres_server, tmp_path_factory) -> TinyPlatform:
    """A deployed platform without rows, to be copied. Nobody may be connected to its databases when that happens."""
    platform = platform_for_many(postgres_server, tmp_path_factory.mktemp("tiny"))
    platform.deploy()
    close_lake()
    return platform


@pytest.fixture
def tiny(tiny_template: TinyPlatform, postgres_server, new_database, tmp_path: Path) -> TinyPlatform:
    """A fresh deployed platform: own ledger, lake, project and home; nothing loaded. It has no online store."""
    template = tiny_template.settings
    shutil.copytree(template.home, tmp_path / "home", symlinks=True, ignore=shutil.ignore_patterns("scratch", "runs"))
    shutil.copytree(template.project, tmp_path / "project")
    ledger, catalog = (new_database(database(url)) for url in (template.ledger_url, template.lake_catalog))
    return TinyPlatform(
        replace(
            template,
            project=tmp_path / "project",
            home=tmp_path / "home",
            ledger_url=postgres_server.url(ledger),
            lake_catalog=f"dbname={catalog} {postgres_server.keywords}",
            lake_data=str(tmp_path / "home" / "lake"),
        )
    )


def database(address: str) -> str:
    """The database's name in a URL or in libpq keywords."""
    return psycopg2.extensions.parse_dsn(address)["dbname"]
