"""Real services for tests: one embedded Postgres and one Valkey per session, fresh databases per test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from feature_platform import local
from feature_platform.local import postgres
from feature_platform.local.accounts import Installation, installation
from feature_platform.local.places import Places
from feature_platform.local.postgres import start_postgres, stop_postgres
from feature_platform.local.processes import identity
from feature_platform.local.valkey import start_valkey, stop_valkey
from feature_platform.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[1]
_HOME_PREFIX = "fp-test-session-"
_OWNER_FILE = "owner"
# they take a minute to a quarter of one (`--durations=60`); all others less
_LONGEST_FIRST = (
    "test_local_supervision.py",
    "test_crash.py",
    "test_replay_real_data.py",
    "test_honest_scores.py",
    "test_local_services.py",
    "test_reference_views.py",
    "test_late_data_policies.py",
    "test_deploy.py",
    "test_materialize_concurrently.py",
    "test_served_oracle.py",
    "test_runs.py",
    "test_materialize.py",
    "test_late_data.py",
    "test_dbt_macros.py",
    "test_leakage_audit.py",
    "test_feature_store_memory.py",
    "test_quality_memory.py",
    "test_served_mode.py",
    "test_training_sets.py",
    "test_reference_sources.py",
    "test_point_in_time_oracle.py",
)


def pytest_configure() -> None:
    # a developer's own stack must not be what tests talk to
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]


def pytest_sessionstart(session: pytest.Session) -> None:
    """A job that is cancelled (SIGTERM) ends its servers as Ctrl-C does.

    One KeyboardInterrupt does not always get through: DuckDB makes an error of a query of it, which Hypothesis then
    shrinks; one that is raised while Python collects garbage is printed and forgotten. So it is raised again after each
    half second of CPU that the test goes on, and no other test is begun.
    """

    def interrupt(*_: object) -> None:
        session.shouldstop = "SIGTERM"
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGVTALRM, interrupt)


def _stop_interrupting() -> None:
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    _stop_interrupting()


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt() -> None:
    _stop_interrupting()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers take the longest files first: one that is begun last keeps a single worker busy in the end."""
    if hasattr(config, "workerinput"):
        ranks = {name: rank for rank, name in enumerate(_LONGEST_FIRST)}
        items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope="session")
def service_home() -> Iterator[Path]:
    """Data directory of the session's services; not under pytest's, which root's Postgres user cannot enter."""
    _end_services_of_killed_sessions()
    home = Path(tempfile.mkdtemp(prefix=_HOME_PREFIX))
    home.chmod(0o711)
    (home / _OWNER_FILE).write_text(f"{os.getpid()} {identity(os.getpid())}")
    yield home
    Places(home=home).remove_sockets()
    shutil.rmtree(home, ignore_errors=True)


def _end_services_of_killed_sessions() -> None:
    """A session that was killed could not end its servers; the next one does."""
    for owner in Path(tempfile.gettempdir()).glob(f"{_HOME_PREFIX}*/{_OWNER_FILE}"):
        if owner.stat().st_uid == os.geteuid():
            pid, _, known = owner.read_text().partition(" ")
            if known and identity(int(pid)) != known:
                local.stop(owner.parent)
                shutil.rmtree(owner.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(service_home: Path):
    """The running `PostgresServer`: `.url(database)`, `.keywords`."""
    places = Places(home=service_home)
    with places.lock():
        # what a power failure would do to it does not matter here, and every new database would wait for the disk
        server = start_postgres(places, settings=("fsync=off",))
    yield server
    stop_postgres(places)


@pytest.fixture(scope="session")
def valkey_server(service_home: Path):
    """URL of the running Valkey."""
    places = Places(home=service_home)
    with places.lock():
        server = start_valkey(places)
    yield server.url
    stop_valkey(places)


@pytest.fixture(scope="session")
def _initialized(service_home: Path) -> Path:
    """A database directory as initdb makes it, which forces nothing to disk."""
    target = installation(service_home)
    made = replace(target, data=target.data.with_name("initialized"))
    postgres._initialize(made)
    with (made.data / "postgresql.conf").open("a") as config:
        config.write("fsync = off\n")
    return made.data


@pytest.fixture
def initialized_once(_initialized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that this process starts on new data directories get a copy instead of an initdb of their own."""

    def copy(target: Installation) -> None:
        subprocess.run(["cp", "-a", _initialized, target.data], check=True)

    monkeypatch.setattr(postgres, "_initialize", copy)


def _administer(server, *statements: str) -> None:
    with closing(psycopg2.connect(f"dbname=postgres {server.keywords}")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture
def new_database(postgres_server):
    """Make a fresh database, optionally from a template; its name. Dropped at the end, whoever is connected."""
    made: list[str] = []

    def create(template: str = "template0") -> str:
        name = f"test_{uuid.uuid4().hex}"
        _administer(postgres_server, f"create database {name} template {template} strategy file_copy")
        made.append(name)
        return name

    yield create
    _administer(postgres_server, *(f"drop database if exists {name} with (force)" for name in made))


@pytest.fixture(scope="session")
def _migrated_template(postgres_server) -> str:
    from feature_platform.ledger import migrate

    _administer(postgres_server, "create database migrated")
    migrate(postgres_server.url("migrated"))
    return "migrated"


@pytest.fixture
def ledger_url(postgres_server, new_database, _migrated_template: str) -> str:
    """A fresh ledger, migrated."""
    return postgres_server.url(new_database(_migrated_template))


@pytest.fixture
def empty_ledger_url(postgres_server, new_database) -> str:
    """A fresh database for a ledger, not migrated."""
    return postgres_server.url(new_database())


@pytest.fixture
def lake_catalog(postgres_server, new_database) -> str:
    """libpq keywords of a fresh database for DuckLake's catalog."""
    return f"dbname={new_database()} {postgres_server.keywords}"


@pytest.fixture
def lake_catalog_url(lake_catalog: str) -> str:
    return lake_catalog


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    """The session's Valkey, emptied: data, functions, scripts."""
    import valkey

    with closing(valkey.Valkey.from_url(valkey_server)) as client:
        client.flushall()
        client.function_flush("SYNC")
    return valkey_server


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str, lake_catalog: str, valkey_url: str) -> Settings:
    """Settings of a fresh platform: fresh ledger, lake and home, emptied Valkey."""
    home = tmp_path / "home"
    (home / "lake").mkdir(parents=True)
    return Settings(
        project=PROJECT,
        home=home,
        ledger_url=ledger_url,
        lake_catalog=lake_catalog,
        lake_data=str(home / "lake"),
        valkey_url=valkey_url,
        store="default",
        duckdb_memory="1GB",
    )


@pytest.fixture
def settings_in_environ(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same, also in the environment, for code that reads it (and for child processes)."""
    values = {
        "PROJECT": str(settings.project),
        "HOME": str(settings.home),
        "LEDGER_URL": settings.ledger_url,
        "LAKE_CATALOG": settings.lake_catalog,
        "LAKE_DATA": settings.lake_data,
        "VALKEY_URL": settings.valkey_url,
        "STORE": settings.store,
        "DUCKDB_MEMORY": settings.duckdb_memory,
    }
    for name, value in values.items():
        monkeypatch.setenv(PREFIX + name, value)
    return settings
