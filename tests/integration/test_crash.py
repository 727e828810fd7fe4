"""kill -9 at each step of a run and of a deploy: nothing half done is visible, and the next one completes."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from run_workers import deploy_and_die, materialize_and_die, start
from tiny_platform import TinyPlatform, instant

from feature_platform.lake import connect
from feature_platform.ledger import Ledger
from feature_platform.settings import Settings

DAYS = ("2024-01-02", "2024-01-03")
AFTERWARDS = [(1, instant("2024-01-03"), 1, 10.0), (1, instant("2024-01-04"), 1, 30.0)]

# the step at which the run dies → what the ledger knows of its batches, and the rows it left in the lake
DEATHS = {
    "ready": (None, 0),
    "opened": ("opened", 0),
    "inserted": ("opened", 0),
    "written": ("opened", 2),
    "computed": ("computed", 2),
    "checked": ("computed", 2),
    "audited": ("audited", 2),
    "published": ("published", 2),
}


@pytest.mark.parametrize("step", DEATHS)
def test_killed_run(tiny: TinyPlatform, step: str) -> None:
    tiny.add_events((1, 10.0, "2024-01-02 09:00"), (1, 20.0, "2024-01-03 09:00"))
    tiny.load_through("2024-01-10")
    state, rows_left = DEATHS[step]

    died = start(materialize_and_die, tiny.settings, "user_activity", DAYS, step)
    died.join()
    assert died.exitcode == -signal.SIGKILL

    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        assert [history.state for history in ledger.batches()] == ([state] * 2 if state else [])
        unfinished = ledger.unfinished()
        assert len(unfinished) == (0 if state in (None, "published") else 2)
        assert {one.run_id for one in unfinished} <= {f"dies at {step}"}
        assert tiny.count_rows("user_activity") == rows_left
        assert tiny.visible("user_activity") == (AFTERWARDS if state == "published" else [])

        tiny.materialize("user_activity", *DAYS, run_id="next")
        assert tiny.visible("user_activity") == AFTERWARDS
        assert len(ledger.active_batches("user_activity@1")) == 2
        assert {history.state for history in ledger.batches(run_id="next")} == {"published"}
        # the dead run is still told of, and still invisible
        assert ledger.unfinished() == unfinished or len(ledger.unfinished()) == len(unfinished)
    assert tiny.count_rows("user_activity") == rows_left + 2


@pytest.mark.parametrize("action", ["create schema staging", "create table", "create staging", "record", "replace"])
def test_killed_deploy(settings: Settings, tmp_path, action: str) -> None:
    platform = TinyPlatform.create(replace(settings, valkey_url=""), tmp_path)
    died = start(deploy_and_die, platform.settings, action)
    died.join()
    assert died.exitcode == -signal.SIGKILL

    platform.deploy()
    assert platform.deploy().actions == ()
    platform.add_events((1, 10.0, "2024-01-02 09:00"))
    platform.load_through("2024-01-10")
    assert platform.materialize("user_activity", "2024-01-02").row_count == 1
    with connect(platform.settings, read_only=True) as lake:
        columns = [name for name, *_ in lake.execute("describe lake.batches.user_activity_v1").fetchall()]
    assert columns == ["user_id", "event_timestamp", "events_1d", "amount_3d", "_batch_id", "_partition_start"]
    left = [path.name for path in (platform.settings.home / "dbt").iterdir() if path.name.startswith(".")]
    assert left == []
