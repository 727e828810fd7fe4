"""The embedded Postgres of one home: started, attached to, stopped.

Rule: it listens on a Unix socket in a directory nobody else can enter, and there it trusts whoever connects. It is
found through its own `postmaster.pid`, and believed only after it has told its data directory over that socket.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2

from feature_platform.errors import ServiceStartError
from feature_platform.local.accounts import MAJOR, SHARED, Installation, installation, instance_id
from feature_platform.local.places import Places
from feature_platform.local.processes import excerpt, identity, reap, spawn, wait_until

DATABASES = ("ledger", "lake", "dagster")
_START_SECONDS = 60.0  # recovery after a crash included
_STOP_SECONDS = 20.0
_PORT = "5432"  # part of the socket's name, nothing listens on it
_SETTINGS = (
    "listen_addresses=",
    f"port={_PORT}",
    "unix_socket_permissions=0700",
    "max_connections=200",
    "shared_buffers=128MB",
    "max_wal_size=512MB",
    # nothing replicates from it: less is written
    "wal_level=minimal",
    "max_wal_senders=0",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_checkpoints=off",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """A running server."""

    socket_dir: Path
    pid: int
    data: Path

    @property
    def keywords(self) -> str:
        """Keywords for libpq, without a database. The port is there because PGPORT would be used otherwise."""
        return f"user=postgres host={self.socket_dir} port={_PORT}"

    def url(self, database: str, *, driver: str = "") -> str:
        """URL of a database."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres@/{database}?host={self.socket_dir}&port={_PORT}"


def start_postgres(
    places: Places, databases: Sequence[str] = DATABASES, *, settings: Sequence[str] = ()
) -> PostgresServer:
    """Attach to the server of this home, or start it. The caller holds the lock of `places`.

    Args:
        places: the home's places.
        databases: made if they do not exist.
        settings: further `name=value` settings of a server that is started.

    Raises:
        ServiceStartError: it did not start; with the end of its log.
    """
    target = installation(places.home)
    _refuse_other_major(target.data)
    server = _running(target.data) or _launched(target, places, settings)
    _create_databases(server, databases)
    return server


def find_postgres(places: Places) -> PostgresServer | None:
    """The running server of this home, if there is one."""
    for data in _possible_data(places.home):
        if (server := _running(data)) is not None:
            return server
    return None


def stop_postgres(places: Places) -> bool:
    """Stop it: clients are disconnected, nothing that was committed is lost. False if it did not run."""
    if (server := find_postgres(places)) is None:
        return False
    _end(server.pid)
    return True


def _possible_data(home: Path) -> list[Path]:
    return [home / "postgres", *([SHARED / known / "postgres"] if (known := instance_id(home)) else [])]


def _refuse_other_major(data: Path) -> None:
    version = data / "PG_VERSION"
    if version.exists() and (found := version.read_text(encoding="utf-8").strip()) != MAJOR:
        raise ServiceStartError(
            "the database was made by another version of Postgres",
            found=f"{found} in {data}",
            allowed=MAJOR,
            hint="move the data directory away, and let `feature-platform up` make a new one",
        )


def _launched(target: Installation, places: Places, settings: Sequence[str]) -> PostgresServer:
    sockets = places.sockets() / "pg"
    _make_owned(sockets, target)
    _free_socket(sockets)
    log = places.logs / "postgres.log"
    if not (target.data / "PG_VERSION").exists():
        _initialize(target)
    _remove_stale_lock(target.data)
    options = [part for setting in (*_SETTINGS, *settings) for part in ("-c", setting)]
    process = spawn(
        "postgres",
        [target.binaries / "postgres", "-D", target.data, "-k", sockets, *options],
        log=log,
        cwd=Path("/"),
        environ=target.environ,
        account=target.account,
    )
    server = PostgresServer(socket_dir=sockets, pid=process.pid, data=target.data)
    ready = wait_until(lambda: _answers(server) or not process.is_alive(), seconds=_START_SECONDS)
    if not ready or not process.is_alive():
        with suppress(psutil.NoSuchProcess):
            if process.is_alive():
                psutil.Process(process.pid).send_signal(signal.SIGINT)
        raise ServiceStartError(
            "the embedded Postgres did not start",
            found=excerpt(log),
            hint="if the log does not explain it: `feature-platform down`, then `feature-platform up`",
        )
    return server


def _make_owned(directory: Path, target: Installation) -> None:
    """The socket directory, mode 0700, of the user who runs Postgres. Its parent is ours alone."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if target.account is not None:
        os.chown(directory, target.account.uid, target.account.gid)
    directory.chmod(0o700)


def _initialize(target: Installation) -> None:
    """Make the database beside its place and move it there, so that a half-made one is never taken for whole."""
    draft = target.data.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if target.account is not None:
        os.chown(draft, target.account.uid, target.account.gid)
    done = subprocess.run(
        [
            str(target.binaries / "initdb"),
            *("--auth=trust", "--username=postgres", "--encoding=UTF8"),
            # orders and compares text the same way on every machine
            *("--locale-provider=builtin", "--locale=C.UTF-8", "--lc-messages=C", "--lc-collate=C", "--lc-ctype=C"),
            *("--pgdata", str(draft)),
        ],
        capture_output=True,
        check=False,
        text=True,
        cwd="/",
        env=target.environ,
        start_new_session=True,
        **(target.account.as_popen_arguments() if target.account else {}),
    )
    if done.returncode:
        raise ServiceStartError(
            "the embedded Postgres could not make its database",
            found=(done.stderr or done.stdout).strip(),
            hint=f"is there space left, and is {target.data.parent} writable?",
        )
    draft.rename(target.data)


def _remove_stale_lock(data: Path) -> None:
    """Remove a `postmaster.pid` whose process is gone: Postgres believes any process with that pid to be itself."""
    if (pid := _pid_in(data / "postmaster.pid")) is None:
        return
    if _is_postgres_of(pid, data):
        raise ServiceStartError(
            "a Postgres runs on this data already but does not answer",
            found=f"process {pid} on {data}",
            hint=f"look into its log; end it with `kill -INT {pid}`",
        )
    (data / "postmaster.pid").unlink(missing_ok=True)


def _free_socket(sockets: Path) -> None:
    """End a server that still holds our socket although its data directory was deleted; remove a lock left behind.

    Postgres would believe any living process with the lock's pid, also one not yet reaped, to hold the socket.
    """
    lock = sockets / f".s.PGSQL.{_PORT}.lock"
    pid = _pid_in(lock)
    if pid is not None and _is_postgres_of(pid, sockets):
        _end(pid)
    lock.unlink(missing_ok=True)


def _pid_in(path: Path) -> int | None:
    try:
        return abs(int(path.read_text(encoding="utf-8").split("\n", 1)[0]))
    except (FileNotFoundError, ValueError):
        return None


def _is_postgres_of(pid: int, directory: Path) -> bool:
    """Whether it is a server that was started with this directory, of data or of sockets."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or process.name() != "postgres":
            return False
        return str(directory) in process.cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _running(data: Path) -> PostgresServer | None:
    """The server on this data, if it runs and answers (one that is just starting is waited for)."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        pid, socket_dir = int(lines[0]), Path(lines[4])
    except (FileNotFoundError, NotADirectoryError, ValueError, IndexError):
        return None
    except PermissionError:
        return None  # another user's; `installation` has more to say
    server = PostgresServer(socket_dir=socket_dir, pid=pid, data=data)
    wait_until(lambda: _answers(server) or not _is_postgres_of(pid, data), seconds=_START_SECONDS)
    return server if _answers(server) else None


def _answers(server: PostgresServer) -> bool:
    """Whether it accepts connections and is the one on this data."""
    try:
        opened = psycopg2.connect(f"dbname=postgres connect_timeout=5 {server.keywords}")
        with closing(opened) as connection, connection.cursor() as cursor:
            cursor.execute("select current_setting('data_directory')")
            return bool(cursor.fetchone() == (str(server.data),))
    except psycopg2.OperationalError:
        return False


def _create_databases(server: PostgresServer, names: Sequence[str]) -> None:
    with closing(psycopg2.connect(f"dbname=postgres {server.keywords}")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select datname from pg_database")
            existing = {name for (name,) in cursor.fetchall()}
            for name in names:
                if name not in existing:
                    cursor.execute(f'create database "{name}"')


def _end(pid: int) -> None:
    """Fast shutdown; an immediate one (recovery at next start) if it takes too long."""
    known = identity(pid)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: _gone(pid, known), seconds=_STOP_SECONDS):
            return


def _gone(pid: int, known: str | None) -> bool:
    reap()
    return identity(pid) != known
