"""The advisory locks of the ledger's database.

`APPEND` orders the ledger's appends and lives only inside their transactions. `DEPLOYMENT` separates the runs, which
only append to the lake and hold it shared, from deploy and maintenance, which change tables and hold it exclusively:
in DuckLake creating a table, adding a column or deleting rows aborts every open append. Postgres releases both when the
process that holds them dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from zlib import crc32

import psycopg2
import psycopg2.errors
from psycopg2 import extensions

from feature_platform.domain.durations import format_duration
from feature_platform.errors import LockBusyError
from feature_platform.ledger.postgres import translated

# "fplt" in ASCII, then a number: advisory locks share one space per database
APPEND = 0x66706C74_0001
DEPLOYMENT = 0x66706C74_0002
MIGRATION = 0x66706C74_0003
CANARY = 0x66706C74_0004
# "fplg", "fpts", "fpsr": with two keys they lie apart from those above
_DRAINS = 0x66706C67
_TRAINING_SETS = 0x66707473
_SOURCES = 0x66707372
_NAMED = "(%s, hashtext(%s))"

DEFAULT_WAIT = timedelta(seconds=60)
_SOURCE_WAIT = timedelta(minutes=2)


@contextmanager
def deployment_lock(
    connection: extensions.connection, *, exclusive: bool, wait: timedelta = DEFAULT_WAIT
) -> Iterator[None]:
    """Hold the DEPLOYMENT lock for the block, on a connection in autocommit mode.

    A waiting exclusive request is served before later shared ones, so a stream of runs cannot starve a deploy.

    Raises:
        LockBusyError: the lock was not free within `wait`.
    """
    busy = LockBusyError(
        f"the {'exclusive' if exclusive else 'shared'} deployment lock was not free within {wait}",
        found="runs are going on" if exclusive else "a deploy or maintenance is going on",
        hint="try again when they have ended; `feature-platform ledger unfinished` lists their batches",
    )
    with _within(connection, "(%s)", (DEPLOYMENT,), wait=wait, busy=busy, shared=not exclusive):
        yield


@contextmanager
def source_lock(connection: extensions.connection, source: str) -> Iterator[None]:
    """Hold the right to load a source, on a connection in autocommit mode.

    Raises:
        LockBusyError: another load did not end in time.
    """
    busy = LockBusyError(
        f"another load of {source} did not end within {format_duration(_SOURCE_WAIT)}", hint="try again when it has"
    )
    key = (_SOURCES, crc32(source.encode()) & 0x7FFF_FFFF)
    with _within(connection, "(%s, %s)", key, wait=_SOURCE_WAIT, busy=busy):
        yield


@contextmanager
def log_drain_lock(connection: extensions.connection, store: str) -> Iterator[None]:
    """Hold the right to drain a store's feature log.

    Raises:
        LockBusyError: another process drains it.
    """
    busy = LockBusyError(f"the feature log of store {store!r} is being drained by another process", hint="wait for it")
    with _at_once(connection, _NAMED, (_DRAINS, store), busy=busy):
        yield


@contextmanager
def push_drain_lock(connection: extensions.connection, view: str) -> Iterator[None]:
    """Hold the right to drain what was pushed to a view.

    Raises:
        LockBusyError: another process drains it.
    """
    busy = LockBusyError(f"what was pushed to {view} is being drained by another process", hint="wait for it")
    with _at_once(connection, _NAMED, (_DRAINS, f"pushes of {view}"), busy=busy):
        yield


@contextmanager
def training_set_lock(connection: extensions.connection, name: str) -> Iterator[None]:
    """Hold the right to make the next training set of this name.

    Raises:
        LockBusyError: another process is making one.
    """
    busy = LockBusyError(
        f"a training set {name!r} is being created by another process",
        hint="wait for it and create the next version, or choose another name",
    )
    with _at_once(connection, _NAMED, (_TRAINING_SETS, name), busy=busy):
        yield


@contextmanager
def canary_lock(connection: extensions.connection) -> Iterator[None]:
    """Hold the right to a round of the canary: of two at once, each would read what the other wrote.

    Raises:
        LockBusyError: another round is going on.
    """
    busy = LockBusyError("another round of the canary is going on", hint="wait for it")
    with _at_once(connection, "(%s)", (CANARY,), busy=busy):
        yield


@contextmanager
def _within(
    connection: extensions.connection,
    key: str,
    parameters: tuple[int, ...],
    *,
    wait: timedelta,
    busy: LockBusyError,
    shared: bool = False,
) -> Iterator[None]:
    """Hold a lock that is waited for."""
    suffix = "_shared" if shared else ""
    with translated(), connection.cursor() as cursor:
        cursor.execute("begin")
        try:
            cursor.execute(
                "select set_config('lock_timeout', %s, true)", (f"{int(wait.total_seconds() * 1000) or 1}ms",)
            )
            cursor.execute(f"select pg_advisory_lock{suffix}{key}", parameters)
            cursor.execute("commit")
        except psycopg2.errors.LockNotAvailable as error:
            cursor.execute("rollback")
            raise busy from error
    with _freeing(connection, f"pg_advisory_unlock{suffix}{key}", parameters):
        yield


@contextmanager
def _at_once(
    connection: extensions.connection, key: str, parameters: tuple[int | str, ...], *, busy: LockBusyError
) -> Iterator[None]:
    """Hold a lock that nobody waits for."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(f"select pg_try_advisory_lock{key}", parameters)
        if cursor.fetchone() != (True,):
            raise busy
    with _freeing(connection, f"pg_advisory_unlock{key}", parameters):
        yield


@contextmanager
def _freeing(connection: extensions.connection, call: str, parameters: tuple[int | str, ...]) -> Iterator[None]:
    try:
        yield
    finally:
        # a broken connection has released the lock already
        with suppress(psycopg2.Error), connection.cursor() as cursor:
            cursor.execute(f"select {call}", parameters)
