"""Kept training sets on a real ledger and a real lake: made whole or not at all, and the same bytes ever after."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from offline_platform import CARRIER, ROUTE, Platform, arrow, declare, measured, registry_of

from feature_platform import lake
from feature_platform.cli.training_sets import training_set
from feature_platform.domain.feature_view import Column
from feature_platform.domain.training_set import DeclaredTrainingSet
from feature_platform.domain.types import ColumnType, ListType
from feature_platform.domain.windows import Grain, Partition
from feature_platform.errors import (
    DamagedFileError,
    DiskFullError,
    LedgerUnavailableError,
    LockBusyError,
    NameTakenError,
    RequestError,
    UnknownNameError,
)
from feature_platform.lake.sql import batches_table, build_add_columns
from feature_platform.ledger import Ledger, training_set_lock
from feature_platform.offline.parquet import copy_to_parquet, read_content, writer_for
from feature_platform.offline.point_in_time import Plan
from feature_platform.offline.sets import Manifest, Verdict, reproducing
from feature_platform.offline.sets.candidates import Fate
from feature_platform.offline.sets.declared import create_declared_training_set
from feature_platform.offline.sets.files import hash_file

DAY = datetime(2026, 3, 1, tzinfo=UTC)
SNAPPY = {"format": "parquet", "compression": "snappy"}


def at(days: float, hours: float = 0) -> datetime:
    return DAY + timedelta(days=days, hours=hours)


LABELS = [
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(2, 3), "late": True},
    {"carrier": "UA", "origin": "EWR", "gate": 2, "event_timestamp": at(2, 4), "late": False},
    {"carrier": None, "origin": "JFK", "gate": 1, "event_timestamp": at(5), "late": None},
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(2, 3), "late": True},
]


@pytest.fixture
def platform(settings) -> Platform:
    """Two days of carriers, one hour of routes."""
    built = Platform(settings, registry_of(CARRIER, ROUTE))
    built.deploy()
    built.publish(
        *built.open_all(
            [
                (CARRIER, at(0), [["AA", at(1), 1.0, 10], ["UA", at(1), 2.0, 20]]),
                (CARRIER, at(1), [["AA", at(2), 1.5, 11], ["UA", at(2), None, 21]]),
                (ROUTE, at(1), [["JFK", 1, at(1, 1), 0.5]]),
            ]
        )
    )
    return built


@pytest.fixture
def labels() -> pa.Table:
    return arrow(LABELS)


def test_a_set_is_kept_with_its_labels_and_a_manifest(platform: Platform, labels) -> None:
    said: list[str] = []
    made = platform.store.create_training_set(
        labels, "departure_delay", created_by="ann", progress=said.append, full_feature_names=True
    )
    kept = platform.store.training_set("departure_delay")
    assert made.key == kept.key == "departure_delay@1"
    assert said == ["copying the labels", "joining the features", "writing the set", "hashing"]
    with platform.store.get_historical_features(labels, "departure_delay", full_feature_names=True) as features:
        want = features.to_arrow()
    assert kept.to_arrow().equals(want)
    assert pa.Table.from_batches(kept.to_batches(2)).equals(want)
    assert [*kept.to_pandas().columns] == want.column_names
    directory = Path(kept.directory)
    assert sorted(path.name for path in directory.iterdir()) == ["data.parquet", "labels.parquet", "manifest.json"]
    assert pq.read_table(directory / "labels.parquet").equals(labels.cast(want.select(labels.column_names).schema))

    manifest = kept.manifest
    # the file explains itself without the ledger
    assert Manifest.from_json(json.loads((directory / "manifest.json").read_text())) == manifest
    assert (manifest.created_by, manifest.mode, manifest.row_count) == ("ann", "auto", 4)
    assert manifest.service == platform.registry.services["departure_delay"]
    assert manifest.views == (CARRIER, ROUTE)
    assert manifest.arguments["full_feature_names"] is True
    assert [(one.view, one.feature) for one in manifest.features] == [
        ("carrier_delays@1", "delay"), ("carrier_delays@1", "flights"), ("route_delays@1", "delay"),
    ]  # fmt: skip
    assert {used.view: used.count for used in manifest.batches} == {"carrier_delays@1": 2, "route_delays@1": 1}
    assert manifest.batches[0].code_versions == {"1": 2}
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert manifest.at_sequence <= ledger.sequence()
        assert len(ledger.batches_sets_need("carrier_delays@1")) == 2


def test_a_relative_place_is_the_projects_wherever_it_is_asked_from(platform, labels, tmp_path, monkeypatch) -> None:
    settings = replace(platform.settings, project=tmp_path, training_sets="kept")
    store = replace(platform, settings=settings).store
    monkeypatch.chdir(tmp_path.parent)
    made = store.create_training_set(labels, "departure_delay")
    monkeypatch.chdir("/")
    assert Path(made.path) == tmp_path / "kept" / "departure_delay" / "1" / "data.parquet"
    assert store.training_set("departure_delay").to_arrow().num_rows == len(LABELS)
    assert replace(settings, training_sets="s3://bucket/kept").training_sets_root == "s3://bucket/kept"


def test_versions_of_a_name(platform: Platform, labels) -> None:
    store = platform.store
    for version in (1, 2):
        assert store.create_training_set(labels, ["carrier_delays:delay"], name="mine").key == f"mine@{version}"
    assert store.create_training_set(labels, ["carrier_delays:delay"]).key == "carrier_delays@1"
    assert store.create_training_set(labels, "departure_delay", name="mine@3").key == "mine@3"
    assert store.training_set("mine").key == "mine@3"
    first, second = store.training_set("mine@1").manifest, store.training_set("mine@v2").manifest
    assert first.data == second.data
    assert first.references == ["carrier_delays@1:delay"]
    with pytest.raises(NameTakenError, match=r"mine@2 already[\s\S]*mine@4"):
        store.create_training_set(labels, "departure_delay", name="mine@2")
    with pytest.raises(RequestError, match="next version of mine is 4"):
        store.create_training_set(labels, "departure_delay", name="mine@9")
    with pytest.raises(RequestError, match="no name of a training set"):
        store.create_training_set(labels, "departure_delay", name="../mine")
    with pytest.raises(RequestError, match="no such argument"):
        store.create_training_set(labels, "departure_delay", name="mine", speed="fast")
    with pytest.raises(UnknownNameError, match="yours"):
        store.training_set("yours")


def test_of_two_that_make_one_name_one_wins(platform: Platform, labels) -> None:
    with Ledger.connect(platform.settings.ledger_url) as other, training_set_lock(other.connection, "departure_delay"):
        with pytest.raises(LockBusyError, match="being created by another process"):
            platform.store.create_training_set(labels, "departure_delay")
        platform.store.create_training_set(labels, "departure_delay", name="another")
    assert platform.store.create_training_set(labels, "departure_delay").key == "departure_delay@1"


def test_what_cannot_be_made_leaves_nothing(platform: Platform, labels) -> None:
    root = Path(platform.settings.training_sets_root)
    naive = labels.set_column(3, "event_timestamp", labels["event_timestamp"].cast(pa.timestamp("us")))
    numbered = labels.append_column("file_row_number", labels["gate"])
    for wrong in (naive, labels.drop_columns(["carrier"]), "/nowhere.parquet", numbered):
        with pytest.raises(RequestError):
            platform.store.create_training_set(wrong, "departure_delay")

    def interrupt(line: str) -> None:
        if line == "hashing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        platform.store.create_training_set(labels, "departure_delay", progress=interrupt)
    assert [path for path in root.rglob("*") if path.is_file()] == []
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert ledger.training_sets() == ()


def test_an_altered_or_missing_file_is_not_read(platform: Platform, labels) -> None:
    kept = platform.store.create_training_set(labels, "departure_delay")
    path = Path(kept.path)
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(DamagedFileError, match="not the file that was kept"):
        kept.to_arrow()
    path.unlink()
    with pytest.raises(DamagedFileError, match="missing"):
        kept.to_pandas()


def test_the_same_bytes_whatever_happened_since(platform: Platform, labels, tmp_path) -> None:
    """Later batches, a correction, another declaration, an added column, merged files; more and fewer threads."""
    kept = platform.store.create_training_set(labels, "departure_delay")
    content = Path(kept.path).read_bytes()
    for day in range(2, 6):
        platform.add(CARRIER, at(day), [["AA", at(day + 1), float(day), day]])
    platform.add(CARRIER, at(1), [["AA", at(2), 99.0, 99]])  # a correction of what the labels saw
    platform.add(ROUTE, at(2), [["JFK", 1, at(2, 1), -1.0]])  # newer than the winner
    columns = (*CARRIER.features, Column(name="cancelled", type=ColumnType.BIGINT))
    changed = replace(CARRIER, features=columns, ttl=timedelta(hours=1), availability_delay=timedelta(days=9))
    later = Platform(platform.settings, registry_of(changed, ROUTE))
    with lake.connect(platform.settings) as connection:
        for statement in build_add_columns(changed, dict.fromkeys(("delay", "flights"), "")):
            connection.execute(statement)
        connection.execute("call ducklake_flush_inlined_data('lake')")
        connection.execute("call ducklake_merge_adjacent_files('lake')")
    later.add(changed, at(0), [["AA", at(1), 7.0, 70, 700]])

    now = later.store.create_training_set(labels, "departure_delay")
    assert now.manifest.data.content_hash != kept.manifest.data.content_hash
    for store in (later.store, later.with_memory("100MB").store):
        again = store.reproduce_training_set("departure_delay@1", tmp_path / "again.parquet")
        assert (again.verdict, again.reasons) == (Verdict.IDENTICAL, ())
        assert (tmp_path / "again.parquet").read_bytes() == content
        assert [path.name for path in tmp_path.glob(".*")] == []


def test_many_row_groups_whatever_the_threads_and_the_memory(settings, tmp_path) -> None:
    """Three row groups: the join's plan, the threads and the limit leave the bytes alone."""
    view = declare(
        "users", entities={"user_id": ColumnType.BIGINT}, features={"x": ColumnType.DOUBLE}, ttl=timedelta(days=2)
    )
    platform = Platform(settings, registry_of(view))
    platform.deploy()
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        for day in range(3):
            partition = Partition(start=at(day), end=at(day + 1), grain=Grain.DAY)
            (batch,) = ledger.open_batches(view, [partition], run_id="r")
            connection.execute(
                f"insert into {batches_table(view)} select i, $end - to_seconds(hash(i) % 3600), random(), $id, $start"
                " from range(20000) t(i)",
                {"end": partition.end, "start": partition.start, "id": batch.batch_id},
            )
            ledger.record_computed([measured(batch.batch_id, 20_000)])
            ledger.record_audited([batch.batch_id], passed=True)
            ledger.publish([batch.batch_id])
    labels = tmp_path / "labels.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "copy (select (hash(i) % 25000)::bigint as user_id, timestamptz '2026-03-01' + to_seconds(i % 255000)"
            f" as event_timestamp, md5(i::varchar) as note from range(260000) t(i)) to '{labels}'"
        )
    kept = platform.store.create_training_set(labels, "users")
    assert pq.read_metadata(kept.path).num_row_groups == 3
    hashes = set()
    for plan, memory, threads in (
        (Plan.HASH, "1GB", 1),
        (Plan.ASOF, "1GB", 2),
        (Plan.HASH, "120MB", 2),
        (Plan.ONE_SCAN, "120MB", 2),
    ):
        store = platform.with_memory(memory).store
        with store.get_historical_features(labels, "users", plan=plan) as features:
            features._connection.execute(f"set threads = {threads}")
            hashes.add(hash_file(features.to_parquet(tmp_path / "again.parquet")))
    assert hashes == {kept.manifest.data.sha256}
    # rows in another order, in another compression: the bytes differ, the content does not
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(
            f"copy (from '{kept.path}' order by note) to '{tmp_path}/mixed.parquet' (compression snappy)"
        )
        assert read_content(connection, tmp_path / "mixed.parquet").content_hash == kept.manifest.data.content_hash


def test_what_cannot_be_made_again_says_why(platform: Platform, labels, monkeypatch) -> None:
    store = platform.store
    kept = store.create_training_set(labels, "departure_delay")
    monkeypatch.setattr(reproducing, "versions", lambda: kept.manifest.versions | {"duckdb": "9.9.9"})
    again = store.reproduce_training_set("departure_delay")
    assert again.verdict is Verdict.IDENTICAL
    assert again.reasons == (f"made with duckdb {kept.manifest.versions['duckdb']}, and this is 9.9.9",)
    # another writer of Parquet: same rows, other bytes
    monkeypatch.setattr(
        "feature_platform.offline.training_set.copy_to_parquet",
        lambda connection, select, path, **_: copy_to_parquet(connection, select, path, writer=SNAPPY),
    )
    again = store.reproduce_training_set("departure_delay")
    assert again.verdict is Verdict.SAME_CONTENT
    assert again.content_hash == again.expected_content_hash == kept.manifest.data.content_hash
    assert again.sha256 != again.expected_sha256
    # a full disk says nothing about the set
    monkeypatch.setattr(
        "feature_platform.offline.training_set.copy_to_parquet",
        lambda connection, select, path, **_: copy_to_parquet(connection, select, Path("/dev/full")),
    )
    with pytest.raises(DiskFullError, match=r"writing data\.parquet"):
        store.reproduce_training_set("departure_delay")
    monkeypatch.undo()

    Path(kept.path).write_bytes(b"")
    assert "not the file that was kept" in store.reproduce_training_set("departure_delay").reasons[0]
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        second = ledger.active_batches(CARRIER.key)[1].batch_id
    with lake.connect(platform.settings) as connection:
        connection.execute(f"delete from {batches_table(CARRIER)} where _batch_id = ?", [second])
    again = store.reproduce_training_set("departure_delay")
    assert again.verdict is Verdict.DIFFERENT
    assert f"rows of 1 of 2 batches are not in the lake: {second} of 2026-03-02 (0 of 2)" in again.reasons[-1]
    Path(kept.directory, "labels.parquet").unlink()
    again = store.reproduce_training_set("departure_delay")
    assert again.verdict is Verdict.IMPOSSIBLE
    assert "labels.parquet" in again.reasons[-1]


def test_a_set_is_written_again_with_its_own_settings(platform: Platform, labels, monkeypatch) -> None:
    store = platform.store
    with monkeypatch.context() as then:
        then.setattr("feature_platform.offline.store.writer_for", lambda _: SNAPPY)
        kept = store.create_training_set(labels, "departure_delay")
    assert kept.manifest.parquet == SNAPPY
    assert store.create_training_set(labels, "departure_delay").manifest.data.sha256 != kept.manifest.data.sha256
    assert store.reproduce_training_set("departure_delay@1").verdict is Verdict.IDENTICAL


def test_rows_of_embeddings_are_written_in_small_groups() -> None:
    assert writer_for([ColumnType.DOUBLE] * 28)["row_group_size"] == 122_880
    assert writer_for([ListType(ColumnType.FLOAT, 768)])["row_group_size"] == 10_240


def test_a_killed_maker_leaves_nothing_that_counts(platform: Platform, labels, settings_in_environ, tmp_path) -> None:
    """SIGKILL at every stage; also between the files' last step and the record."""
    pq.write_table(labels, tmp_path / "labels.parquet")
    program = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from offline_platform import CARRIER, ROUTE, Platform, registry_of
from feature_platform.ledger import Ledger
from feature_platform.settings import Settings
def die(line):
    if line == sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "recording":
    Ledger.record_training_set = lambda *_, **__: die("recording")
Platform(Settings.from_env(), registry_of(CARRIER, ROUTE)).store.create_training_set(
    {str(tmp_path / "labels.parquet")!r}, "departure_delay", progress=die)
"""
    for stage in ("joining the features", "hashing", "recording"):
        killed = subprocess.run([sys.executable, "-c", program, stage], capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        with pytest.raises(UnknownNameError):
            platform.store.training_set("departure_delay")
    kept = platform.store.create_training_set(labels, "departure_delay")
    assert kept.key == "departure_delay@1"
    assert [path.name for path in Path(kept.directory).parent.iterdir()] == ["1"]
    assert platform.store.reproduce_training_set("departure_delay").verdict is Verdict.IDENTICAL


def test_a_set_that_was_given_up(platform: Platform, labels) -> None:
    store = platform.store
    store.create_training_set(labels, "departure_delay")
    assert store.release_training_set("departure_delay", reason="retrained", released_by="ann")
    assert not store.release_training_set("departure_delay@1", reason="again")
    kept = store.training_set("departure_delay")
    assert kept.is_released
    assert kept.to_arrow().num_rows == len(LABELS)
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert ledger.batches_sets_need(CARRIER.key) == {}
    assert store.create_training_set(labels, "departure_delay").key == "departure_delay@2"
    assert [one.key for one in store.training_sets("departure_delay")] == ["departure_delay@2", "departure_delay@1"]
    with pytest.raises(RequestError, match=r"2 versions[\s\S]*departure_delay@2, departure_delay@1"):
        store.release_training_set("departure_delay", reason="which?")
    assert not store.training_set("departure_delay@2").is_released


def test_why_a_row_holds_its_values(platform: Platform, labels) -> None:
    """Superseded, published too late for the set, not yet available, dead, never published: each is told."""
    store = platform.store
    wrong = platform.open(CARRIER, at(1), [["AA", at(2), -9.0, 9]])  # opened last, never published
    platform.add(CARRIER, at(2), [["AA", at(3), 3.0, 3]])  # newer than the label
    before = platform.add(CARRIER, at(1), [["AA", at(2), 5.0, 55], ["UA", at(2), 6.0, 66]])  # a correction
    kept = store.create_training_set(labels, "departure_delay", created_by="ann")
    platform.add(CARRIER, at(1), [["AA", at(2), 99.0, 99]])

    found = store.explain_training_set("departure_delay", row=0)
    assert (found.row, found.matching, found.label["carrier"]) == (0, 1, "AA")
    carrier, route = found.views
    assert carrier.values == {"carrier_delays__delay": 5.0, "flights": 55}
    assert carrier.agrees
    assert carrier.chosen.batch_id == before
    assert carrier.chosen.published_at is not None
    fates = {(one.fate, one.values["delay"]) for one in carrier.rows}
    assert fates == {
        (Fate.NOT_YET, 3.0), (Fate.NOT_PUBLISHED_YET, 99.0), (Fate.CHOSEN, 5.0), (Fate.NEVER_PUBLISHED, -9.0),
        (Fate.SUPERSEDED, 1.5), (Fate.OLDER, 1.0),
    }  # fmt: skip
    assert next(one for one in carrier.rows if one.fate is Fate.NEVER_PUBLISHED).batch_id == wrong
    assert route.chosen.values == {"delay": 0.5}

    # by key and time, one feature; a NULL key; a value that has died
    by_key = store.explain_training_set(kept.key, where={"carrier": "AA"}, time=at(2, 3), features=["flights"])
    assert (by_key.row, by_key.matching, [*by_key.views[0].values]) == (0, 2, ["flights"])
    assert len(by_key.views) == 1
    assert store.explain_training_set(kept.key, row=2).views[0].rows == ()
    late = store.create_training_set(arrow([{**LABELS[0], "event_timestamp": at(6)}]), "carrier_delays")
    (dead,) = store.explain_training_set(late.key, row=0).views
    assert dead.chosen is None
    assert dead.rows[0].fate is Fate.EXPIRED
    for wrong_ask, says in (
        ({"row": 99}, "rows 0 to 3"),
        ({}, r"no row is asked[\s\S]*--row 0"),
        ({"row": 1, "where": {"carrier": "AA"}}, "both by its number"),
        ({"where": {"carrier": "ZZ"}, "time": at(2)}, r"carrier=ZZ, at 2026-03-03T00"),
        ({"where": {"x": "1"}}, "column 'x'"),
    ):
        with pytest.raises(RequestError, match=says):
            store.explain_training_set(kept.key, **wrong_ask)
    with pytest.raises(UnknownNameError, match="no feature 'speed'"):
        store.explain_training_set(kept.key, row=0, features=["speed"])


def test_a_lost_postgres_is_told_wherever_it_is_missed(platform: Platform, labels, monkeypatch) -> None:
    """Between the statements that name what they do as well."""
    store = platform.store
    kept = store.create_training_set(labels, "departure_delay")

    def lost(*_: object, **__: object) -> None:
        raise duckdb.TransactionException("Failed to commit: server closed the connection unexpectedly")

    for missed in (
        "feature_platform.offline.store.check_deployed",
        "feature_platform.offline.sets.declared._labels",
        "feature_platform.offline.sets.explaining._find_row",
        "feature_platform.offline.sets.comparing._match",
    ):
        monkeypatch.setattr(missed, lost)
    declared = DeclaredTrainingSet(
        name="x", description="", service=store.registry.services["departure_delay"], labels=("labels", "x"),
        labels_id="", source_ids=(), arguments={},
    )  # fmt: skip
    for ask in (
        lambda: store.get_historical_features(labels, "departure_delay"),
        lambda: store.reproduce_training_set(kept.key),
        lambda: store.explain_training_set(kept.key, row=0),
        lambda: store.diff_training_sets(kept.key, kept.key),
        lambda: create_declared_training_set(store, declared, created_by="me", progress=print),
    ):
        with pytest.raises(LedgerUnavailableError, match="catalog's Postgres failed"):
            ask()


def test_a_row_of_a_hostile_key_is_explained(platform: Platform) -> None:
    """Text that SQL, patterns or the catalog's Postgres have a meaning for."""
    names = ["a\0b", "a'; --", 'a"', "$key_0", "a%", " a ", "ä", "a\u0308", ""]
    platform.add(CARRIER, at(1), [[name, at(2), float(number), number] for number, name in enumerate(names)])
    labels = arrow([{"carrier": name, "event_timestamp": at(2, 3)} for name in names])
    kept = platform.store.create_training_set(labels, "carrier_delays")
    assert kept.to_arrow()["flights"].to_pylist() == [*range(len(names))]
    for number, name in enumerate(names):
        found = platform.store.explain_training_set(kept.key, where={"carrier": name})
        assert (found.row, found.views[0].agrees, found.views[0].values["flights"]) == (number, True, number)


def test_commands(platform: Platform, labels, settings_in_environ, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("feature_platform.cli.training_sets.open_store", lambda: platform.store)
    pq.write_table(labels, tmp_path / "labels.parquet")

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(training_set, arguments)
        assert result.exit_code == code, result.output
        return result.stdout

    given = ("departure_delay", "--labels", str(tmp_path / "labels.parquet"))
    assert "not kept" in run("create", *given, "--out", str(tmp_path / "plain.parquet"))
    assert "none is kept" in run("list")
    assert "kept as departure_delay@1: 4 rows" in run("create", *given)
    made = json.loads(run("create", *given, "--name", "mine", "--out", str(tmp_path / "out.parquet"), "--json"))
    assert made["key"] == "mine@1"
    assert hash_file(tmp_path / "out.parquet") == made["sha256"] == hash_file(tmp_path / "plain.parquet")
    assert [one["key"] for one in json.loads(run("list", "--json"))] == ["mine@1", "departure_delay@1"]
    assert "departure_delay@1" in run("list")
    assert "service departure_delay" in run("show", "mine")
    assert json.loads(run("show", "mine", "--json"))["manifest"]["row_count"] == 4
    assert "the same bytes" in run("reproduce", "mine", "--out", str(tmp_path / "again.parquet"))
    assert json.loads(run("reproduce", "mine", "--json"))["verdict"] == "identical"
    explained = run(
        "explain", "mine", "--key", "carrier=AA", "--at", "2026-03-03T03:00:00+00:00", "--feature", "flights"
    )
    assert "2 rows were asked for" in explained
    assert "chosen" in explained
    assert json.loads(run("explain", "mine", "--row", "0", "--json"))["views"][0]["agrees"] is True
    assert "are the same bytes" in run("diff", "mine", "departure_delay")
    platform.add(CARRIER, at(1), [["AA", at(2), 5.0, 11]])
    run("create", *given, "--name", "mine")
    told = run("diff", "mine@1", "mine@2")
    assert "1 partitions were recomputed" in told
    assert "training-set explain mine@2 --row 0 --feature" in told
    assert json.loads(run("diff", "mine@1", "mine@2", "--json"))["views"][0]["replaced"] == 1
    assert "mine@1 is released" in run("release", "mine@1", "--reason", "done")
    assert "released before" in run("release", "mine@1", "--reason", "done")
    assert "released" in run("list", "mine")
    Path(platform.store.training_set("mine@1").directory, "labels.parquet").unlink()
    assert "cannot be made again" in run("reproduce", "mine@1", code=1)


def test_how_two_sets_differ_and_why(platform: Platform, labels) -> None:
    store = platform.store
    first = store.create_training_set(labels, "departure_delay")
    old = first.manifest.batches[0].seqs[-1][1]
    platform.add(replace(CARRIER, code_version="2"), at(1), [["AA", at(2), 5.0, 11], ["UA", at(2), 6.0, None]])
    second = store.create_training_set(
        labels, ["carrier_delays:delay", "carrier_delays:flights"], name="departure_delay"
    )

    found = store.diff_training_sets("departure_delay@1", "departure_delay")
    assert (found.matched_by, found.matched, found.only_in_a, found.only_in_b) == ((), 4, 0, 0)
    assert found.features_only_in_a == ("route_delays__delay",)
    changes = {c.name_b: (c.name_a, c.changed, c.gained, c.lost) for c in found.columns if c.changed}
    assert changes == {"delay": ("carrier_delays__delay", 3, 1, 0), "flights": ("flights", 1, 0, 1)}
    (example, *_) = next(c for c in found.columns if c.name_b == "flights").examples
    assert (example.row_a, example.a, example.b, example.label["carrier"]) == (1, 21, None, "UA")
    assert {"ledger sequence", "service declaration"} <= {cause.what for cause in found.causes}
    (view,) = found.views
    assert (view.replaced, view.other_code, view.only_in_a, view.only_in_b) == (1, 1, 0, 0)
    assert (view.examples[0].partition, view.examples[0].seq_a) == ("2026-03-02", old)
    assert (view.examples[0].code_a, view.examples[0].code_b) == ("1", "2")
    assert store.diff_training_sets(first.key, first.key).identical

    # other labels: matched by key and time, equal ones in their order; NULL keys match
    other = arrow(
        [LABELS[2], {**LABELS[0], "late": False}, LABELS[0], LABELS[0], {**LABELS[1], "event_timestamp": at(9)}]
    )
    third = store.create_training_set(other, "departure_delay", name="third")
    found = store.diff_training_sets(second.key, third.key)
    assert found.matched_by == ("carrier", "origin", "gate", "event_timestamp")
    assert (found.matched, found.only_in_a, found.only_in_b) == (3, 1, 2)
    assert {c.name_b: c.changed for c in found.columns if c.changed} == {"late": 1}
    assert found.causes[0].what == "labels"
    renamed = store.create_training_set(
        labels.rename_columns(["carrier", "origin", "gate", "asked_at", "late"]), "departure_delay", name="renamed",
        timestamp_column="asked_at",
    )  # fmt: skip
    with pytest.raises(RequestError, match="cannot be matched"):
        store.diff_training_sets(first.key, renamed.key)
