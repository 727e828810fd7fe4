"""Opening the lake: DuckDB in memory with the DuckLake catalog attached as `lake`."""

from __future__ import annotations

from pathlib import Path

import duckdb

from feature_platform.errors import ConfigurationError, LedgerUnavailableError, NotDeployedError
from feature_platform.lake.extensions import are_checked, extension_directory, load_extensions
from feature_platform.lake.scratch import scratch_directory
from feature_platform.lake.sql import quote_identifier, quote_literal
from feature_platform.settings import Settings

CATALOG = "lake"
COMMIT_RETRIES = 10
"""How often DuckLake repeats a commit that met another one. Appends to one table never needed more (measured)."""


def catalog_uri(lake_catalog: str) -> str:
    """What DuckDB attaches, from the libpq keywords of the catalog's database.

    >>> catalog_uri("dbname=lake host=/tmp/pg")
    'ducklake:postgres:dbname=lake host=/tmp/pg'
    """
    return f"ducklake:postgres:{lake_catalog}"


def build_attach(settings: Settings, *, read_only: bool, catalog: str = CATALOG, snapshot: int | None = None) -> str:
    """The ATTACH statement."""
    # the catalog keeps paths relative to the data path, so with the override a moved directory still opens
    options = [f"DATA_PATH {quote_literal(data_path(settings.lake_data))}", "OVERRIDE_DATA_PATH true"]
    if read_only:
        options += ["READ_ONLY", "CREATE_IF_NOT_EXISTS false"]
    if snapshot is not None:
        options.append(f"SNAPSHOT_VERSION {snapshot}")
    uri = quote_literal(catalog_uri(settings.lake_catalog))
    return f"attach {uri} as {quote_identifier(catalog)} ({', '.join(options)})"


def data_path(lake_data: str) -> str:
    """The data path with its final slash, which DuckLake compares."""
    return lake_data if lake_data.endswith("/") else lake_data + "/"


def connect(
    settings: Settings,
    *,
    read_only: bool = False,
    threads: int | None = None,
    memory: str | None = None,
    catalog: str = CATALOG,
    snapshot: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open the lake, with its catalog in use. Close the connection when done.

    Args:
        settings: addresses, memory limit, data directory.
        read_only: refuse writes to the lake; the catalog must exist.
        threads: at most so many threads (default: one per core).
        memory: at most so much memory, beyond which DuckDB spills (default: that of the settings).
        catalog: the name under which the lake is attached.
        snapshot: see the lake as of this snapshot, whatever is committed meanwhile.

    Raises:
        NotDeployedError: `read_only` and the catalog does not exist yet.
        LedgerUnavailableError: the catalog's Postgres cannot be reached.
    """
    extensions = ("ducklake", "postgres_scanner", *(("httpfs",) if "://" in settings.lake_data else ()))
    connection = _open(settings, threads=threads, memory=memory, unsigned=are_checked(extensions))
    try:
        load_extensions(connection, extensions)
        attach = build_attach(settings, read_only=read_only, catalog=catalog, snapshot=snapshot)
        _attach(connection, settings, attach, read_only=read_only)
        connection.execute(f"use {quote_identifier(catalog)}")
    except BaseException:  # an interrupt as well: nobody else has the connection; raised again
        connection.close()
        raise
    return connection


def open_duckdb(settings: Settings, *, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own, in memory, without the lake: with the memory limit, a temp directory and UTC.

    Raises:
        ConfigurationError: DuckDB refused a setting.
    """
    return _open(settings, threads=threads, memory=None, unsigned=False)


def _open(settings: Settings, *, threads: int | None, memory: str | None, unsigned: bool) -> duckdb.DuckDBPyConnection:
    config = {
        "memory_limit": memory or settings.duckdb_memory,
        "temp_directory": str(scratch_directory(settings.scratch)),
        "extension_directory": str(extension_directory(settings.home)),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_unsigned_extensions": str(unsigned).lower(),
    }
    if threads is not None:
        config["threads"] = str(threads)
    try:
        connection = duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise ConfigurationError("DuckDB refused its settings", found=str(error), hint="see settings.py") from error
    connection.execute("set TimeZone = 'UTC'")
    return connection


def _attach(connection: duckdb.DuckDBPyConnection, settings: Settings, attach: str, *, read_only: bool) -> None:
    if "://" not in settings.lake_data and not read_only:
        Path(settings.lake_data).mkdir(parents=True, exist_ok=True)
    connection.execute(f"set ducklake_max_retry_count = {COMMIT_RETRIES}")
    try:
        connection.execute(attach)
    except duckdb.Error as error:
        # the address may hold a password, so the error must not be seen as a cause either
        message = str(error).replace(settings.lake_catalog, "…")
        if "does not exist" in message:
            raise NotDeployedError(
                "the lake has no catalog yet", found=message, hint="run `feature-platform deploy`"
            ) from None
        if "Unable to connect" in message or "connection" in message.lower():
            raise LedgerUnavailableError(
                "cannot connect to the lake catalog's Postgres",
                found=message,
                hint="start it with `feature-platform up`, or check FEATURE_PLATFORM_LAKE_CATALOG",
            ) from None
        raise type(error)(message) from None
