"""Deploy: what it creates, what it refuses, that it is idempotent."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from click.testing import CliRunner
from tiny_platform import TinyPlatform

from feature_platform.declaration.lineage import load_lineage
from feature_platform.errors import InvalidDeclarationsError, LockBusyError, NotDeployedError
from feature_platform.lake import connect
from feature_platform.ledger import Ledger, deployment_lock
from feature_platform.materialization import deploy
from feature_platform.settings import PREFIX


def test_second_deploy_has_nothing_to_do(tiny: TinyPlatform):
    manifest = tiny.settings.manifest_path.resolve()
    result = tiny.deploy()
    assert result.actions == ()
    assert not result.changed
    assert tiny.settings.manifest_path.resolve() == manifest
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        (deployment,) = ledger.deployments()
    assert set(deployment.views) == {"user_activity@1", "user_pulse@1"}
    assert deployment.views["user_activity@1"]["owner"]["email"] == "tiny@example.com"


def test_a_new_feature_is_appended_and_old_rows_read_as_null(tiny: TinyPlatform):
    tiny.add_events((1, 10.0, "2024-01-02 09:00"))
    tiny.load_through("2024-01-10")
    tiny.materialize("user_activity", "2024-01-02")
    tiny.edit("user_activity.sql", "from events", "    , count(*) as events_all\nfrom events")
    tiny.edit(
        "user_activity.yml",
        "    versions:",
        "      - {name: events_all, data_type: bigint, description: All}\n    versions:",
    )
    result = tiny.deploy()
    assert "add events_all to batches.user_activity_v1" in result.actions
    assert any("new features: events_all" in change.what for change in result.changes)
    tiny.materialize("user_activity", "2024-01-03")
    assert [row[-1] for row in tiny.visible("user_activity")] == [None, 1]


def test_columns_are_traced_to_sources_and_what_cannot_be_traced_is_left_out(tiny: TinyPlatform):
    def traced() -> dict[str, dict[str, dict[str, tuple[str, ...]]]]:
        return {key: dict(one.columns) for key, one in load_lineage(tiny.settings.manifest_path).items()}

    events = "source.tiny.tiny.events"
    before = traced()
    assert before["user_activity@1"] == {
        "user_id": {events: ("user_id",)},
        "events_1d": {events: ("known_at",)},
        "amount_3d": {events: ("amount",)},
    }
    tiny.edit("user_activity.sql", "from events\ngroup", "from events where )\ngroup")
    said: list[str] = []
    deploy(tiny.settings, progress=said.append)
    assert [line.partition(":")[0] for line in said if "lineage" in line] == ["no column lineage of user_activity@1"]
    assert traced() == {"user_pulse@1": before["user_pulse@1"]}
    tiny.edit("user_activity.sql", "from events where )\ngroup", "from events\ngroup")
    tiny.deploy()
    assert traced() == before


def test_incompatible_changes_are_refused_and_nothing_is_changed(tiny: TinyPlatform):
    tiny.edit(
        "user_activity.yml", "name: events_1d\n        data_type: bigint", "name: events_1d\n        data_type: double"
    )
    tiny.edit("user_pulse.yml", "batch_size: hour", "batch_size: day")
    tiny.edit("user_pulse.yml", "ttl: 6 hours", "ttl: 3 days")
    tiny.edit(
        "user_pulse.yml", "{warn_after: 2 hours, error_after: 4 hours}", "{warn_after: 2 days, error_after: 3 days}"
    )
    before = tiny.settings.manifest_path.resolve()
    with pytest.raises(InvalidDeclarationsError) as caught:
        tiny.deploy()
    problems = {finding.node: finding.problem for finding in caught.value.findings}
    assert problems == {
        "user_activity@1": "column events_1d changed its type",
        "user_pulse@1": "batch_size changed",
    }
    assert tiny.settings.manifest_path.resolve() == before
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        assert len(ledger.deployments()) == 1


def test_an_expectation_that_could_not_be_judged_is_refused(tiny: TinyPlatform):
    expectation = "ExpectColumnMeanToBeBetween: {column: amount_3d, min_value: 0, lowest: 0}"
    declared = f"online: valkey\n          expectations: [{{{expectation}}}]"
    tiny.edit("user_activity.yml", "online: valkey", declared)
    with pytest.raises(InvalidDeclarationsError, match="does not take these arguments"):
        tiny.deploy()


def test_missing_source_table_is_named(tiny: TinyPlatform):
    with closing(connect(tiny.settings)) as lake:
        lake.execute("drop view lake.staging.stg_events")
        lake.execute("drop table lake.sources.events")
    with pytest.raises(NotDeployedError, match="source tables are missing") as caught:
        tiny.deploy()
    assert "sources.events" in caught.value.found


def test_waits_for_runs_only_so_long(tiny: TinyPlatform):
    with (
        Ledger.connect(tiny.settings.ledger_url) as run,
        deployment_lock(run.connection, exclusive=False),
        pytest.raises(LockBusyError),
    ):
        deploy(tiny.settings, lock_wait=timedelta(milliseconds=50))


def test_commands(tiny: TinyPlatform, monkeypatch: pytest.MonkeyPatch, valkey_url: str):
    """`deploy` and `ledger` as people and programs call them."""
    from feature_platform.cli.ledger import ledger
    from feature_platform.cli.materialization import deploy as deploy_command

    tiny.settings = replace(tiny.settings, valkey_url=valkey_url)
    for name in ("project", "home", "ledger_url", "lake_catalog", "lake_data", "valkey_url"):
        monkeypatch.setenv(PREFIX + name.upper(), str(getattr(tiny.settings, name)))
    run = CliRunner().invoke
    result = run(deploy_command, ["--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["actions"] == []

    tiny.add_events((1, 10.0, "2024-01-02 09:00"))
    tiny.load_through("2024-01-10")
    tiny.materialize("user_activity", "2024-01-02", run_id="a run")
    (batch,) = json.loads(run(ledger, ["batches", "user_activity", "--json"]).stdout)
    assert (batch["state"], batch["history"]["run_id"]) == ("published", "a run")
    checks = json.loads(run(ledger, ["checks", batch["history"]["batch"]["batch_id"][:10], "--json"]).stdout)
    assert {check["passed"] for check in checks} == {True}
    for command in (["batches"], ["events", "user_activity@1"], ["unfinished"], ["syncs"], ["deployments"]):
        result = run(ledger, command)
        assert result.exit_code == 0, result.output
    assert "published" in run(ledger, ["batches"]).stdout
    assert run(ledger, ["batches", "unheard_of"]).exit_code == 1
