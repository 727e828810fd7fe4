"""A deployed platform on the real project, shared by a module's tests: its data, ledger, lake and store are real."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from feature_platform.settings import Settings

PROJECT = Path(__file__).parents[2]


def _execute(server, statement: str) -> None:
    with closing(psycopg2.connect(f"dbname=postgres {server.keywords}")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


@pytest.fixture(scope="module")
def platform(postgres_server, valkey_server: str, service_home: Path) -> Iterator[Settings]:
    """Deployed, with all sources loaded up to now."""
    import valkey

    from feature_platform.lake import connect
    from feature_platform.ledger import Ledger, migrate
    from feature_platform.materialization import deploy
    from feature_platform.reference import SOURCES, fix_clock, load_source, prepare

    names = [f"module_{uuid.uuid4().hex}" for _ in range(2)]
    for name in names:
        _execute(postgres_server, f"create database {name} template template0")
    with closing(valkey.Valkey.from_url(valkey_server)) as client:
        client.flushall()
        client.function_flush("SYNC")
    home = service_home / names[0]
    (home / "lake").mkdir(parents=True)
    settings = Settings(
        project=PROJECT,
        home=home,
        ledger_url=postgres_server.url(names[0]),
        lake_catalog=f"dbname={names[1]} {postgres_server.keywords}",
        lake_data=str(home / "lake"),
        valkey_url=valkey_server,
        store="default",
        duckdb_memory="1GB",
    )
    migrate(settings.ledger_url)
    now = datetime.now(UTC)
    with Ledger.connect(settings.ledger_url) as ledger:
        clock = fix_clock(ledger, now=now)
        with closing(connect(settings)) as lake:
            prepare(lake, ledger)
        deploy(settings, environ=clock.dbt_environment)
        with closing(connect(settings)) as lake:
            for source in SOURCES:
                load_source(lake, ledger, source, home=service_home, through=now - timedelta(seconds=1))
    yield settings
    for name in names:
        _execute(postgres_server, f"drop database if exists {name} with (force)")


@pytest.fixture(scope="module")
def definitions(platform: Settings):
    """Dagster's definitions of the deployed project."""
    import warnings

    import dagster as dg

    from feature_platform.declaration.lineage import load_lineage
    from feature_platform.declaration.manifest import load_manifest
    from feature_platform.declaration.parser import parse_manifest
    from feature_platform.orchestration import build_definitions
    from feature_platform.reference.assets import build_reference_sources

    manifest = load_manifest(platform.manifest_path)
    registry = parse_manifest(manifest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return build_definitions(
            platform,
            registry,
            manifest,
            sources=build_reference_sources(platform, registry),
            lineage=load_lineage(platform.manifest_path),
        )


@pytest.fixture(scope="module")
def registry(platform: Settings):
    from feature_platform.declaration import load_registry

    return load_registry(platform.manifest_path)


@pytest.fixture
def instance() -> Iterator:
    """A Dagster instance of its own."""
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def runner(definitions, instance) -> Callable[..., Any]:
    """Run some assets in this process, as a run of the webserver would: one partition, or a range of them."""
    import dagster as dg

    def run(*keys: str, partition: str | None = None, through: str | None = None, raise_on_error: bool = True):
        selection = dg.AssetSelection.assets(*(dg.AssetKey.from_user_string(key) for key in keys))
        job = dg.define_asset_job("chosen", selection=selection)
        repository = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).get_repository_def()
        tags = {}
        if through is not None:
            tags = {"dagster/asset_partition_range_start": partition, "dagster/asset_partition_range_end": through}
        return repository.get_job("chosen").execute_in_process(
            instance=instance,
            partition_key=partition if through is None else None,
            tags=tags,
            raise_on_error=raise_on_error,
        )

    return run


@pytest.fixture
def run_job(definitions, instance):
    return runner(definitions, instance)


@pytest.fixture
def run_job_of(instance):
    """The same for other definitions."""
    return lambda definitions: runner(definitions, instance)
