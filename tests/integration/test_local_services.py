"""The embedded services under what happens to them: races, kills, reboots, copies, odd paths."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import valkey

from feature_platform import local
from feature_platform.errors import ServiceStartError
from feature_platform.local import accounts, places
from feature_platform.local.places import Places
from feature_platform.local.processes import Recorded, identity, wait_until
from feature_platform.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("initialized_once")


@pytest.fixture
def new_home():
    """Make data directories that root's Postgres user can enter; stopped and deleted at the end."""
    parent = Path(tempfile.mkdtemp(prefix="fp-test-"))
    parent.chmod(0o711)
    homes: list[Path] = []

    def create(*names: str) -> Path:
        homes.append(parent.joinpath(*names))
        return homes[-1]

    yield create
    for home in homes:
        if home.exists():
            if not (home / "connections.json").exists():
                local.start(PROJECT, home)
            local.delete(home)
    shutil.rmtree(parent)


def pids(home: Path) -> dict[str, int | None]:
    return {service.name: service.pid for service in local.status(home)}


def write(connections: dict[str, str], value: str) -> None:
    with closing(psycopg2.connect(connections[PREFIX + "LEDGER_URL"])) as connection, connection.cursor() as cursor:
        cursor.execute("create table if not exists kept (value text)")
        cursor.execute("insert into kept values (%s)", (value,))
        connection.commit()
    with closing(valkey.Valkey.from_url(connections[PREFIX + "VALKEY_URL"])) as client:
        client.set("kept", value)


def read(connections: dict[str, str]) -> tuple[str | None, str | None]:
    with closing(psycopg2.connect(connections[PREFIX + "LEDGER_URL"])) as connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('kept') is not null")
        found = None
        if cursor.fetchone() == (True,):
            cursor.execute("select max(value) from kept")
            ((found,),) = cursor.fetchall()
    with closing(valkey.Valkey.from_url(connections[PREFIX + "VALKEY_URL"])) as client:
        kept = client.get("kept")
    return found, kept.decode() if kept else None


def kill(home: Path) -> None:
    for pid in pids(home).values():
        known = identity(pid)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda pid=pid, known=known: identity(pid) != known, seconds=30)


def test_start_attach_stop_and_start_again(new_home):
    home = new_home("home")
    connections = local.start(PROJECT, home)
    write(connections, "a value")
    running = pids(home)

    assert local.start(PROJECT, home) == connections
    assert pids(home) == running  # attached
    for pid in running.values():
        assert os.getsid(pid) == pid  # not of our terminal: Ctrl-C does not reach it

    assert local.stop(home) == ("valkey", "postgres")
    assert local.stop(home) == ()
    assert not any(service.running for service in local.status(home))
    assert all(identity(pid) is None for pid in running.values())

    assert local.start(PROJECT, home) == connections
    assert read(connections) == ("a value", "a value")


def test_other_processes_find_the_services(new_home):
    home = new_home("home")
    connections = local.start(PROJECT, home)
    settings = Settings.from_env({PREFIX + "HOME": str(home), PREFIX + "PROJECT": str(PROJECT)})
    assert settings.ledger_url == connections[PREFIX + "LEDGER_URL"]
    with closing(psycopg2.connect(settings.lake_catalog)) as connection, connection.cursor() as cursor:
        cursor.execute("select current_database(), current_setting('synchronous_commit'), current_setting('TimeZone')")
        assert cursor.fetchone() == ("lake", "on", "UTC")


def test_racing_starters_share_one_server(new_home):
    home = new_home("home")
    program = (
        "import sys, pathlib, feature_platform.local as local; local.start(*map(pathlib.Path, ('.', sys.argv[1])))"
    )
    starters = [subprocess.Popen([sys.executable, "-c", program, str(home)], cwd=PROJECT) for _ in range(4)]
    assert [starter.wait() for starter in starters] == [0, 0, 0, 0]

    log = (home / "logs" / "postgres.log").read_text()
    assert log.count("ready to accept connections") == 1
    assert (home / "logs" / "valkey.log").read_text().count("Ready to accept connections") == 1


def test_killed_servers_come_back_with_their_data(new_home):
    home = new_home("home")
    write(local.start(PROJECT, home), "before")
    kill(home)
    assert not any(service.running for service in local.status(home))
    assert read(local.start(PROJECT, home)) == ("before", "before")


@pytest.mark.parametrize("sockets", ["gone", "left"])
def test_after_a_reboot(new_home, sockets):
    """Pid files are there, and their pids given to others, who must not be harmed; /tmp may have been emptied."""
    home = new_home("home")
    write(local.start(PROJECT, home), "before")
    kill(home)
    data = accounts.installation(home).data
    account = accounts.installation(home).account
    other = subprocess.Popen(["sleep", "600"], **(account.as_popen_arguments() if account else {}))
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        (data / "postmaster.pid").write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        recorded = Recorded.read(home / "run", "valkey")
        Recorded(name="valkey", pid=other.pid, identity=recorded.identity, detail=recorded.detail).write(home / "run")
        if sockets == "gone":
            Places(home=home).remove_sockets()
        else:
            lock = Places(home=home).sockets() / "pg" / ".s.PGSQL.5432.lock"
            lock.write_text("\n".join([str(other.pid), *lock.read_text().splitlines()[1:]]) + "\n")

        assert not any(service.running for service in local.status(home))
        assert local.stop(home) == ()
        assert read(local.start(PROJECT, home)) == ("before", "before")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_long_path_with_spaces_beside_another_home(new_home):
    one = new_home("a clone with spaces", *["a" * 60] * 4, "home")
    two = new_home('it\'s "quoted"', "home")
    first, second = local.start(PROJECT, one), local.start(PROJECT, two)
    write(first, "one")
    write(second, "two")
    assert (read(first), read(second)) == (("one", "one"), ("two", "two"))
    local.stop(one)
    assert read(second) == ("two", "two")


def test_where_other_users_cannot_look(new_home):
    home = new_home("private", "home")
    home.parent.mkdir(mode=0o700)
    write(local.start(PROJECT, home), "before")
    assert home.parent.stat().st_mode & 0o777 == 0o700  # untouched
    known = accounts.instance_id(home)
    assert bool(known) == (os.geteuid() == 0)

    # it stays where it is, also if the place becomes reachable
    home.parent.chmod(0o755)
    local.stop(home)
    assert read(local.start(PROJECT, home)) == ("before", "before")

    # a deleted data directory is a fresh start
    local.delete(home)
    assert not known or not (accounts.SHARED / known).exists()
    assert read(local.start(PROJECT, home)) == (None, None)


@pytest.mark.parametrize("private", [False, True])
def test_data_directory_deleted_while_running(new_home, private):
    home = new_home("parent", "home")
    home.parent.mkdir(mode=0o700 if private else 0o755)
    write(local.start(PROJECT, home), "before")
    before, known = pids(home), accounts.instance_id(home)
    shutil.rmtree(home)

    assert read(local.start(PROJECT, home)) == (None, None)
    assert all(identity(pid) is None for pid in before.values())
    if known:  # root: the old database lies elsewhere, under its own id
        shutil.rmtree(accounts.SHARED / known)


def test_a_copied_home_gets_its_own_database(new_home):
    home, copy = new_home("private", "home"), new_home("private", "copy")
    home.parent.mkdir(mode=0o700)
    write(local.start(PROJECT, home), "original")
    local.stop(home)
    shutil.copytree(home, copy)
    if os.geteuid() != 0:
        return  # the database lies in the home and was copied with it
    assert read(local.start(PROJECT, copy))[0] is None
    assert read(local.start(PROJECT, home))[0] == "original"


def test_errors_say_why(new_home):
    home = new_home("home")
    local.start(PROJECT, home)
    local.stop(home)
    data = accounts.installation(home).data

    with (data / "postgresql.conf").open("a") as config:
        config.write("\nno_such_setting = 1\n")
    with pytest.raises(ServiceStartError) as raised:
        local.start(PROJECT, home)
    assert "no_such_setting" in raised.value.found
    assert raised.value.hint

    (data / "PG_VERSION").write_text("12\n")
    with pytest.raises(ServiceStartError, match="another version"):
        local.start(PROJECT, home)


def test_only_data_directories_are_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ServiceStartError):
        local.delete(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_socket_directory_made_by_somebody_else_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_SOCKETS_PARENT", tmp_path)
    expected = Places(home=Path("/some/home")).sockets()
    expected.rmdir()
    (tmp_path / "elsewhere").mkdir()
    expected.symlink_to(tmp_path / "elsewhere")  # a link could lead anywhere
    second = Places(home=Path("/some/home")).sockets()
    assert second != expected
    second.chmod(0o777)  # everybody could put a socket there
    assert Places(home=Path("/some/home")).sockets() not in (expected, second)


def test_connections_file_is_complete_or_absent(new_home):
    home = new_home("home")
    connections = local.start(PROJECT, home)
    assert json.loads((home / "connections.json").read_text()) == connections
    assert not list(home.glob(".connections*"))
