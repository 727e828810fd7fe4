"""Maintenance on a real lake: what goes, what stays, that nothing else changes, and that files follow later."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from click.testing import CliRunner
from tiny_platform import TinyPlatform
from used_platform import DAYS, write

from feature_platform.cli.main import main
from feature_platform.domain.retention import Fate
from feature_platform.errors import ConfigurationError, LockBusyError, RowsRetiredError
from feature_platform.lake import connect
from feature_platform.lake import maintenance as upkeep
from feature_platform.lake.maintenance import Table
from feature_platform.lake.slices import read_slices
from feature_platform.ledger import Ledger, deployment_lock
from feature_platform.maintenance import maintain
from feature_platform.offline import FeatureStore

LATER = timedelta(days=400)
NOW = timedelta(seconds=0)


def run(platform: TinyPlatform, *, after: timedelta = LATER, **options):
    return maintain(platform.settings, platform.registry, now=datetime.now(UTC) + after, **options)


def of_view(report, key: str = "user_activity@1"):
    return next(table for table in report.tables if table.table == key)


def test_what_nobody_needs_goes_and_the_rest_is_merged_sorted_and_the_same(used: TinyPlatform) -> None:
    visible, total = used.visible("user_activity"), used.count_rows("user_activity")
    before = used.settings.lake_catalog
    dry = of_view(run(used, dry_run=True))
    assert of_view(run(used, after=NOW, dry_run=True)).retired == {}
    assert used.count_rows("user_activity") == total
    with Ledger.connect(used.settings.ledger_url) as ledger:
        assert ledger.retired("user_activity@1") == ()

    said: list[str] = []
    done = of_view(run(used, progress=said.append))
    assert done.retired == dry.retired == {Fate.SUPERSEDED: 3, Fate.NEVER_PUBLISHED: 1}
    assert done.merged == dry.merged == ("2024-01",)
    assert done.rows_deleted == total - len(visible) == dry.rows_deleted
    assert (done.before.count, done.after.count) == (5, 1)
    assert done.after.bytes < done.before.bytes
    assert used.visible("user_activity") == visible
    assert used.count_rows("user_activity") == len(visible)
    assert any("comparing" in line for line in said)
    (files,) = read_slices(before, "batches", "user_activity_v1").values()
    assert (files.count, files.with_deletions) == (1, 0)
    with closing(connect(used.settings, read_only=True)) as lake:
        ((path,),) = lake.execute(
            "select data_file from ducklake_list_files('lake', 'user_activity_v1', schema => 'batches')"
        ).fetchall()
        keys = lake.execute(
            "select user_id, event_timestamp"
            f" from read_parquet('{path}', file_row_number = true) order by file_row_number"
        ).fetchall()
    assert keys == sorted(keys)

    with Ledger.connect(used.settings.ledger_url) as ledger:
        assert all(one.deleted_at for one in ledger.retired("user_activity@1"))
        assert ledger.unfinished() == ()
    again = of_view(run(used))
    assert (again.retired, again.rows_deleted, again.merged, again.kept) == ({}, 0, (), ())
    write(used, *DAYS[:2])
    assert len(used.visible("user_activity")) == len(visible)


def test_kept_training_sets_stay_reproducible_and_older_states_are_refused(used: TinyPlatform) -> None:
    import pandas as pd

    store = FeatureStore(used.settings, used.registry)
    with Ledger.connect(used.settings.ledger_url) as ledger:
        superseded = [b for b in ledger.published_batches("user_activity@1") if b.position <= 3]
        then = max(batch.ledger_seq for batch in ledger.published_batches("user_activity@1") if batch.position <= 6)
    labels = pd.DataFrame(
        {"user_id": range(1, 21), "event_timestamp": pd.to_datetime(["2024-01-03 12:00"] * 20, utc=True)}
    )
    kept = store.create_training_set(labels, ["user_activity"], name="kept", mode="modelled")
    now = store.get_historical_features(labels, ["user_activity"], mode="modelled").to_arrow()
    old = store.get_historical_features(labels, ["user_activity"], mode="modelled", at_sequence=then).to_arrow()
    assert not old.equals(now)

    # as the set would need them: recorded after the retirement was planned, before it is recorded
    with Ledger.connect(used.settings.ledger_url) as ledger:
        ledger.record_training_set(
            "of_then", 1, at_sequence=then, manifest={}, created_by="me",
            batches={"user_activity@1": [superseded[0].seq]},
        )  # fmt: skip
    report = of_view(run(used))
    (stays,) = report.kept
    assert (stays.why, stays.batches, stays.details) == (Fate.NEEDED, 1, ("of_then@1",))
    assert report.retired == {Fate.SUPERSEDED: 2, Fate.NEVER_PUBLISHED: 1}

    again = store.reproduce_training_set(kept.key)
    assert (again.verdict, again.sha256) == ("identical", kept.manifest.data.sha256)
    with pytest.raises(RowsRetiredError, match="2024-01-0") as error:
        store.get_historical_features(labels, ["user_activity"], mode="modelled", at_sequence=then)
    assert "leave `at_sequence` out" in str(error.value)
    with pytest.raises(RowsRetiredError):
        store.connect(at_sequence=then)
    assert store.get_historical_features(labels, ["user_activity"], mode="modelled").to_arrow().equals(now)
    with closing(store.connect()) as people:
        assert people.execute("select count(*) from features.user_activity").fetchone()[0] > 0


def test_a_rewrite_that_would_change_rows_is_rolled_back(used: TinyPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    view = used.registry.view("user_activity")
    visible, total = used.visible("user_activity"), used.count_rows("user_activity")
    original = upkeep._fingerprint

    def other(lake, name, columns, where):
        if '"lake"' in name:
            lake.execute(f"insert into {name} select * from {name} where {where} limit 1")
        return original(lake, name, columns, where)

    monkeypatch.setattr(upkeep, "_fingerprint", other)
    with pytest.raises(Exception, match="would change rows that were to stay; nothing was changed"):
        run(used)
    assert (used.visible("user_activity"), used.count_rows("user_activity")) == (visible, total)
    monkeypatch.undo()
    assert of_view(run(used)).rows_deleted == total - len(visible)  # retired before, deleted now
    assert Table.of_view(view).keys == 2


def test_files_go_when_they_have_been_out_of_use_for_a_day(used: TinyPlatform) -> None:
    lake_files = Path(used.settings.lake_data)
    orphan = next(lake_files.rglob("*.parquet")).with_name("ducklake-orphan.parquet")
    orphan.write_bytes(b"of a run that died")
    report = run(used)
    kept = set(lake_files.rglob("*.parquet"))
    assert (report.files.unused, report.files.orphans, report.files.snapshots) == (0, 0, 0)
    assert orphan in kept
    with psycopg2.connect(used.settings.lake_catalog) as catalog, catalog.cursor() as cursor:
        cursor.execute("update ducklake_snapshot set snapshot_time = snapshot_time - interval '2 days'")
    os.utime(orphan, (time.time() - 2 * 86_400,) * 2)
    expired = run(used)  # what the old states held is out of use from now on
    assert expired.files.snapshots > 0
    assert expired.files.orphans == 1
    assert expired.files.bytes == len(b"of a run that died")
    with psycopg2.connect(used.settings.lake_catalog) as catalog, catalog.cursor() as cursor:
        cursor.execute(
            "update ducklake_files_scheduled_for_deletion set schedule_start = schedule_start - interval '2 days'"
        )
    removed = run(used)
    assert removed.files.unused >= 5
    assert removed.files.bytes > 0
    assert len(set(lake_files.rglob("*.parquet"))) < len(kept)
    assert used.count_rows("user_activity") == len(used.visible("user_activity"))


def test_an_open_append_is_waited_for(used: TinyPlatform) -> None:
    settings = used.settings
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
        with deployment_lock(ledger.connection, exclusive=False):
            lake.execute("begin")
            lake.execute(
                "insert into lake.batches.user_activity_v1 select * replace ('open' as _batch_id)"
                " from lake.batches.user_activity_v1 limit 15"
            )
            with pytest.raises(LockBusyError, match="not free"):
                run(used, wait=timedelta(milliseconds=50))
            lake.execute("commit")
        assert lake.execute(
            "select count(*) from lake.batches.user_activity_v1 where _batch_id = 'open'"
        ).fetchone() == (15,)
    run(used)
    with closing(connect(settings, read_only=True)) as lake:
        assert lake.execute(
            "select count(*) from lake.batches.user_activity_v1 where _batch_id = 'open'"
        ).fetchone() == (15,)


def test_logged_rows_go_by_the_age_their_view_declares(tiny: TinyPlatform) -> None:
    with closing(connect(tiny.settings)) as lake:
        for view in ("user_activity@1", "other@1"):
            lake.execute(
                "insert into lake.serving.served_features select 'default', i, i,"
                f" timestamptz '2026-01-01' + i * interval 1 day, 'x', '{view}', 0, i, 'ok', 1, null, null"
                " from range(4) as r (i)"
            )
    report = maintain(
        tiny.settings, tiny.registry, now=datetime(2026, 4, 3, tzinfo=UTC)
    )  # the 3rd of January is 90 days before
    log = of_view(report, "serving.served_features")
    assert log.rows_deleted == 2
    with closing(connect(tiny.settings, read_only=True)) as lake:
        left = lake.execute(
            "select view, count(*) from lake.serving.served_features group by all order by all"
        ).fetchall()
    assert left == [("other@1", 4), ("user_activity@1", 2)]


def test_training_sets_among_the_lakes_files_are_refused(used: TinyPlatform) -> None:
    from dataclasses import replace

    inside = replace(used.settings, training_sets=used.settings.lake_data + "/training_sets")
    with pytest.raises(ConfigurationError, match="among the lake's files"):
        maintain(inside, used.registry)


def test_the_command_says_what_would_go_and_why_the_rest_stays(used: TinyPlatform, monkeypatch) -> None:
    for name in ("home", "project", "ledger_url", "lake_catalog", "lake_data"):
        monkeypatch.setenv(f"FEATURE_PLATFORM_{name.upper()}", str(getattr(used.settings, name)))
    monkeypatch.setenv("FEATURE_PLATFORM_VALKEY_URL", "valkey://nowhere")
    total = used.count_rows("user_activity")

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["maintain", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    shown = invoke("--dry-run", "--view", "user_activity")
    assert "2024-01" in shown and "younger than its retention" in shown and "nothing was changed" in shown
    report = json.loads(invoke("--json", "--view", "user_activity"))
    assert (report["tables"][0]["merged"], report["tables"][0]["rows_deleted"], report["files"]) == (
        ["2024-01"],
        0,
        None,
    )
    assert [(one["why"], one["batches"]) for one in report["tables"][0]["kept"]] == [("younger than its retention", 4)]
    assert used.count_rows("user_activity") == total
