"""The lake's connection: limits, offline extensions, scratch space, read-only, a moved directory."""

from __future__ import annotations

import multiprocessing
import shutil
import socket
import traceback
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import duckdb
import psycopg2
import pytest

from feature_platform.errors import FeaturePlatformError, LedgerUnavailableError, MemoryLimitError, NotDeployedError
from feature_platform.lake import connect, extension_directory, scratch_directory
from feature_platform.lake.catalog import bytes_per_row, newest_snapshot
from feature_platform.lake.extensions import EXTENSIONS, wheel_file
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.scratch import remove_stale
from feature_platform.settings import Settings


@pytest.fixture
def place(tmp_path, ledger_url, lake_catalog):
    return Settings(
        project=tmp_path,
        home=tmp_path / "a home",
        ledger_url=ledger_url,
        lake_catalog=lake_catalog,
        lake_data=str(tmp_path / "a home" / "the lake's data"),
        valkey_url="",
        store="default",
        duckdb_memory="200MiB",
    )


def test_connection_has_its_limits(place):
    with closing(connect(place, threads=1)) as lake:
        setting = dict(lake.execute("select name, value from duckdb_settings()").fetchall())
    assert setting["memory_limit"] == "200.0 MiB"
    assert setting["TimeZone"] == "UTC"
    assert setting["threads"] == "1"
    assert setting["autoinstall_known_extensions"] == "false"
    assert setting["temp_directory"].startswith(str(place.scratch))


def test_spilling_stays_in_scratch_and_is_removed(place):
    with closing(connect(place)) as lake:
        lake.execute("create temp table wide as select i, hash(i)::varchar as h from range(8000000) as r(i)")
        (files,) = lake.execute("select count(*) from duckdb_temporary_files()").fetchone()
        assert files > 0
        assert list(place.scratch.rglob("duckdb_temp_*"))
    assert not list(place.scratch.rglob("duckdb_temp_*"))


def test_rows_survive_and_readers_cannot_write(place):
    with closing(connect(place)) as lake:
        lake.execute("create schema batches")
        lake.execute("create table batches.t as select range as i from range(100)")
    with closing(connect(place, read_only=True)) as lake:
        assert lake.execute("select sum(i) from lake.batches.t").fetchone() == (4950,)
        with pytest.raises(duckdb.Error, match="read-only"):
            lake.execute("insert into lake.batches.t values (1)")


def test_bytes_of_a_row_are_those_of_the_files_added_since(place):
    with closing(connect(place)) as lake:
        lake.execute("create schema batches")
        lake.execute("create table batches.t as select range as i, hash(range)::varchar as h from range(10000)")
        before, first = newest_snapshot(place.lake_catalog), {*Path(place.lake_data).rglob("*.parquet")}
        assert bytes_per_row(place.lake_catalog, "t", since=before) is None
        lake.execute("insert into batches.t select range, hash(range)::varchar from range(5000)")
    (added,) = {*Path(place.lake_data).rglob("*.parquet")} - first
    assert bytes_per_row(place.lake_catalog, "t", since=before) == added.stat().st_size / 5000


def test_reader_of_a_lake_that_does_not_exist(place):
    with pytest.raises(NotDeployedError, match="no catalog"):
        connect(place, read_only=True)


def test_what_ends_the_catalogs_connections_in_the_middle_is_transient(place):
    with closing(connect(place)) as lake:
        lake.execute("create table t as select range as i from range(100)")
        lake.execute("create table u as select range as i from range(100)")
    with closing(connect(place, read_only=True)) as lake:
        lake.execute("begin")
        lake.execute("select sum(i) from t")
        with closing(psycopg2.connect(place.lake_catalog)) as other, other.cursor() as cursor:
            cursor.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        failed = pytest.raises(LedgerUnavailableError, match="reading u: the lake catalog's Postgres failed")
        with failed, lake_errors("reading u"):
            lake.execute("select sum(i) from u")
        with suppress(duckdb.Error):  # left open, it would end the process when the connection is closed
            lake.execute("rollback")


def test_a_query_that_needs_more_memory_says_what_to_set(place):
    with closing(connect(replace(place, duckdb_memory="20MB"))) as lake:
        lake.execute("set temp_directory = ''")
        with pytest.raises(MemoryLimitError) as caught, lake_errors("reading t"):
            lake.execute("create temp table wide as select i, hash(i)::varchar as h from range(8000000) as r(i)")
    assert "FEATURE_PLATFORM_DUCKDB_MEMORY" in caught.value.hint


def test_any_other_failure_is_not_said_to_pass(place):
    failed = pytest.raises(FeaturePlatformError, match="reading t failed")
    with closing(connect(place)) as lake, failed as caught, lake_errors("reading t"):
        lake.execute("select (select i from range(2) as r(i))")
    assert type(caught.value) is FeaturePlatformError


def test_unreachable_catalog_is_transient_and_tells_no_password(place):
    unreachable = replace(place, lake_catalog="dbname=lake host=/nowhere user=u password=secret")
    with pytest.raises(LedgerUnavailableError) as caught:
        connect(unreachable)
    # as Dagster shows it, with all causes
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert "secret" not in repr(unreachable)


def test_moved_directory_still_opens(place, tmp_path):
    with closing(connect(place)) as lake:
        lake.execute("create schema batches")
        lake.execute("create table batches.t as select range as i from range(100)")
    moved = replace(place, home=tmp_path / "moved", lake_data=str(tmp_path / "moved" / "the lake's data"))
    shutil.move(place.home, moved.home)
    with closing(connect(moved)) as lake:
        assert lake.execute("select count(*) from batches.t").fetchone() == (100,)
        lake.execute("insert into batches.t select range from range(50)")
    with closing(connect(moved, read_only=True)) as lake:
        assert lake.execute("select count(*) from batches.t").fetchone() == (150,)
    assert not place.home.exists()


def _without_network(place, queue) -> None:
    """Any attempt to open an internet socket from Python, or to download in DuckDB, fails loudly."""

    class Refused(socket.socket):
        def connect(self, address):
            raise AssertionError(f"network used: {address}")

    socket.socket = Refused
    with closing(connect(place)) as lake:
        lake.execute("set custom_extension_repository = 'http://192.0.2.1:9'")  # RFC 5737: nobody is there
        lake.execute("create schema if not exists batches")
        lake.execute("create table batches.t as select range as i from range(100)")
        loaded = lake.execute("select extension_name, install_path from duckdb_extensions() where loaded").fetchall()
        queue.put((lake.execute("select count(*) from batches.t").fetchone(), dict(loaded)))


def test_nothing_is_downloaded(place, monkeypatch):
    # a home without ~/.duckdb, so that nothing installed there before can help
    monkeypatch.setenv("HOME", str(place.home / "nobody"))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_without_network, args=(place, queue))
    process.start()
    count, loaded = queue.get(timeout=300)
    process.join()
    assert process.exitcode == 0
    assert count == (100,)
    ours = str(extension_directory(place.home))
    for name in ("ducklake", "postgres_scanner"):
        assert loaded[name].startswith(ours)
        assert Path(loaded[name]).resolve() == wheel_file(name).resolve()


def test_unknown_extensions_are_not_fetched(place):
    with closing(connect(place)) as lake:
        with pytest.raises(duckdb.Error):
            lake.execute("load spatial")
        with pytest.raises(duckdb.Error):  # would autoload and autoinstall httpfs by default
            lake.execute("select * from read_parquet('https://192.0.2.1/x.parquet')")


def test_signatures_are_checked_once_per_file_and_no_connection_takes_an_unsigned_one(place, tmp_path, monkeypatch):
    connect(place).close()
    altered = tmp_path / "altered.duckdb_extension"
    content = bytearray(wheel_file("ducklake").read_bytes())
    content[1_000_000] ^= 1
    altered.write_bytes(content)
    with closing(connect(place)) as lake, pytest.raises(duckdb.Error, match="signature"):
        lake.execute(f"load '{altered}'")
    # the file is replaced after the process has seen the right one
    right = wheel_file
    replaced = lambda name: altered if name == "ducklake" else right(name)  # noqa: E731
    monkeypatch.setattr("feature_platform.lake.extensions.wheel_file", replaced)
    for _ in range(2):
        with pytest.raises(duckdb.Error, match="signature"):
            connect(place)


def test_extension_links_follow_a_renewed_environment(tmp_path):
    directory = extension_directory(tmp_path)
    links = sorted(directory.rglob("*.duckdb_extension"))
    assert [link.name.partition(".")[0] for link in links] == sorted(EXTENSIONS)
    links[0].unlink()
    links[0].symlink_to(tmp_path / "an environment that is gone")
    assert extension_directory(tmp_path) == directory
    assert all(link.exists() for link in links)


def _scratch_and_stay(root, queue, end) -> None:
    queue.put(str(scratch_directory(root)))
    end.wait(60)


def test_scratch_of_dead_processes_is_removed(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue, end = context.Queue(), context.Event()
    process = context.Process(target=_scratch_and_stay, args=(tmp_path, queue, end))
    process.start()
    theirs = Path(queue.get(timeout=300))
    (theirs / "spilled").write_text("rows")
    assert remove_stale(tmp_path) == 0
    assert theirs.exists()
    process.kill()
    process.join()
    assert remove_stale(tmp_path) == 1
    assert not theirs.exists()
    assert scratch_directory(tmp_path) != scratch_directory(tmp_path)
