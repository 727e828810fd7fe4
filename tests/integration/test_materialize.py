"""Open → dbt → audit → publish on real services."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tiny_platform import TinyPlatform, instant

from feature_platform.errors import (
    BatchRejectedError,
    CheckFailedError,
    ComputationError,
    LockBusyError,
    NotDeployedError,
    RequestError,
    SourceNotReadyError,
)
from feature_platform.lake import connect
from feature_platform.ledger import Ledger, deployment_lock
from feature_platform.materialization import Step, dbt_run

DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")


@pytest.fixture
def platform(tiny) -> TinyPlatform:
    tiny.add_events(
        (1, 10.0, "2024-01-02 09:00"),
        (1, 20.0, "2024-01-03 09:00"),
        (2, 5.0, "2024-01-03 10:00"),
        (1, 1.0, "2024-01-05 00:00"),
    )
    tiny.load_through("2024-01-10")
    return tiny


@pytest.fixture
def ledger(platform):
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        yield ledger


def test_range_is_published_as_one_batch_per_partition(platform, ledger):
    steps = []
    result = platform.materialize("user_activity", *DAYS, on_event=lambda event: steps.append(event.step))
    assert [step for step in steps if step is not Step.DBT] == [
        Step.READY, Step.OPENED, Step.WRITTEN, Step.COMPUTED, Step.CHECKED, Step.AUDITED, Step.PUBLISHED,
    ]  # fmt: skip
    assert platform.visible("user_activity") == [
        (1, instant("2024-01-03"), 1, 10.0),
        (1, instant("2024-01-04"), 1, 30.0),
        (1, instant("2024-01-05"), 0, 30.0),
        (2, instant("2024-01-04"), 1, 5.0),
        (2, instant("2024-01-05"), 0, 5.0),
    ]
    assert [one.batch.row_count for one in result.batches] == [1, 2, 2]
    assert [one.batch.position for one in result.batches] == [1, 2, 3]
    assert [one.batch.source_watermark for one in result.batches] == [
        instant("2024-01-02 09:05"),
        instant("2024-01-03 10:05"),
        instant("2024-01-03 10:05"),
    ]
    assert ledger.unfinished() == ()
    assert {outcome.check for outcome in ledger.checks(result.batches[0].batch.batch_id)} == {
        "not_null_user_activity_v1_user_id",
        "in_range_user_activity_v1_events_1d__0",
        "in_range_user_activity_v1_amount_3d__1000",
        "amount_is_usual",
        "batch_contract",
        "batch_volume",
        "feature_nulls",
        "feature_drift",
    }
    assert result.warnings == ()
    for one in result.batches:
        assert one.batch.partition.end < one.batch.opened_at < one.batch.computed_at < one.batch.published_at
        assert one.measured.byte_count > 0
        assert one.measured.peak_memory_bytes > 0
    # divided by rows: 1, 2 and 2
    last, middle, first = (history.cpu_seconds for history in ledger.batches())
    assert last == middle == pytest.approx(2 * first)
    assert first > 0


def test_recomputation_supersedes_and_keeps_what_was(platform, ledger):
    platform.materialize("user_activity", "2024-01-02")
    before = ledger.sequence()
    platform.add_events((1, 7.0, "2024-01-02 23:00"), late=timedelta(days=1))
    again = platform.materialize("user_activity", "2024-01-02")
    assert platform.visible("user_activity") == [(1, instant("2024-01-03"), 2, 17.0)]
    assert platform.count_rows("user_activity") == 2
    assert again.batches[0].batch.source_watermark == instant("2024-01-03 23:00")
    (then,) = ledger.active_batches("user_activity@1", at_sequence=before)
    (now,) = ledger.active_batches("user_activity@1")
    assert then.batch_id != now.batch_id
    assert ledger.superseded_between("user_activity@1", 1, 2) == (then,)


def test_watermark_counts_old_rows_that_arrived_late(platform):
    platform.add_events((3, 1.0, "2023-12-30 12:00"), late=timedelta(days=6))
    result = platform.materialize("user_activity", "2024-01-02", "2024-01-04")
    late = instant("2024-01-05 12:00")
    assert [one.batch.source_watermark for one in result.batches] == [late, late]


def test_a_partition_without_rows_is_a_batch_without_rows(platform, ledger):
    result = platform.materialize("user_activity", "2024-01-08")
    assert result.row_count == 0
    assert len(ledger.active_batches("user_activity@1")) == 1


def test_a_partition_without_rows_is_not_published_unless_that_is_declared(platform, ledger):
    platform.edit("user_activity.yml", "quality: {allow_empty: true}", "quality: {allow_empty: false}")
    platform.deploy()
    # before the first row of its source there is nothing to make rows of
    assert platform.materialize("user_activity", "2024-01-01").row_count == 0
    with pytest.raises(CheckFailedError, match=r"batch_contract on 2024-01-08: .* each of its sources has rows"):
        platform.materialize("user_activity", "2024-01-08", run_id="bad")
    assert [history.state for history in ledger.batches(run_id="bad")] == ["failed"]
    with pytest.raises(CheckFailedError, match="earlier partitions have rows; if that is right, declare"):
        platform.materialize("user_activity", "2024-01-04", "2024-01-08")
    assert [batch.partition.key for batch in ledger.active_batches("user_activity@1")] == ["2024-01-01"]


def test_hourly_view(platform):
    platform.materialize("user_pulse", "2024-01-03-09:00", "2024-01-03-10:00")
    assert platform.visible("user_pulse") == [
        (1, instant("2024-01-03 10:00"), 1, 20.0),
        (1, instant("2024-01-03 11:00"), 0, 20.0),
        (2, instant("2024-01-03 11:00"), 1, 5.0),
    ]


def test_failing_check_publishes_nothing_and_keeps_what_was(platform, ledger):
    platform.materialize("user_activity", "2024-01-03")
    visible = platform.visible("user_activity")
    platform.add_events((1, 5000.0, "2024-01-03 12:00"))
    with pytest.raises(CheckFailedError) as caught:
        platform.materialize("user_activity", "2024-01-02", "2024-01-03", run_id="bad")
    assert platform.visible("user_activity") == visible
    assert "in_range_user_activity_v1_amount_3d__1000 on 2024-01-03" in str(caught.value)
    failed = [outcome for outcome in caught.value.outcomes if not outcome.passed]
    assert {(outcome.check, outcome.blocking) for outcome in failed} == {
        ("in_range_user_activity_v1_amount_3d__1000", True),
        ("amount_is_usual", False),
    }
    histories = ledger.batches(run_id="bad")
    assert [history.state for history in histories] == ["failed", "failed"]
    assert all(history.audit_passed is False for history in histories)
    assert all(history.cpu_seconds > 0 for history in histories), "what failed costs, too"
    # attributed to the one partition whose rows failed
    verdicts = {
        history.batch.partition.key: all(check.passed for check in ledger.checks(history.batch.batch_id))
        for history in histories
    }
    assert verdicts == {"2024-01-02": True, "2024-01-03": False}


@pytest.mark.parametrize("bound", ["min_value: 0", "max_value: 1000", "min_value: 0, max_value: 1000"])
def test_nan_is_in_no_range(platform, bound):
    platform.edit("user_activity.yml", "{max_value: 1000}", f"{{{bound}}}")
    platform.deploy()
    platform.add_events((1, float("nan"), "2024-01-03 12:00"))
    with pytest.raises(CheckFailedError, match=r"in_range_user_activity_v1_amount_3d_\S+ on 2024-01-03"):
        platform.materialize("user_activity", "2024-01-03")


def test_rows_that_failed_a_data_test_are_kept_only_where_that_is_declared(platform, ledger):
    platform.add_events(*((user, 5000.0, "2024-01-03 12:00") for user in range(10, 18)))

    def kept(run_id: str) -> list:
        with pytest.raises(CheckFailedError):
            platform.materialize("user_activity", "2024-01-02", "2024-01-03", run_id=run_id)
        checks = {
            (one.batch.partition.key, check.check): check.detail
            for one in ledger.batches(run_id=run_id)
            for check in ledger.checks(one.batch.batch_id)
        }
        assert checks["2024-01-03", "in_range_user_activity_v1_amount_3d__1000"]["failing_rows"] == 8
        assert "samples" not in checks["2024-01-02", "in_range_user_activity_v1_amount_3d__1000"]
        return checks["2024-01-03", "in_range_user_activity_v1_amount_3d__1000"].get("samples", [])

    assert kept("silent") == []
    platform.edit("user_activity.yml", "allow_empty: true", "allow_empty: true, samples: true")
    platform.deploy()
    rows = kept("samples")
    assert len(rows) == 5
    assert {frozenset(row) for row in rows} == {frozenset(("user_id", "event_timestamp", "events_1d", "amount_3d"))}
    assert {row["amount_3d"] for row in rows} == {5000.0} and {row["user_id"] for row in rows} <= {*range(10, 18)}


def test_warning_does_not_block(platform, ledger):
    platform.add_events((1, 700.0, "2024-01-03 12:00"))
    result = platform.materialize("user_activity", "2024-01-03")
    assert [outcome.check for outcome in result.warnings] == ["amount_is_usual"]
    assert ledger.head("user_activity@1") == 1


def test_tests_speak_whatever_the_environment_says(platform, ledger, monkeypatch):
    monkeypatch.setenv("DBT_INDIRECT_SELECTION", "empty")
    platform.add_events((1, 5000.0, "2024-01-03 12:00"))
    with pytest.raises(CheckFailedError, match="amount_3d"):
        platform.materialize("user_activity", "2024-01-03")


def test_a_test_that_dbt_leaves_out_has_failed(platform, ledger, monkeypatch):
    invoke = dbt_run.invoke
    monkeypatch.setattr(
        dbt_run, "invoke", lambda *args, **options: replace(invoke(*args, **options), results=()) if "test" in args[1]
        else invoke(*args, **options)
    )  # fmt: skip
    with pytest.raises(CheckFailedError, match="dbt did not run this test"):
        platform.materialize("user_activity", "2024-01-03")
    assert platform.visible("user_activity") == []


def test_a_run_in_which_dbt_ran_no_model_is_no_success(platform, ledger, monkeypatch):
    monkeypatch.setattr(dbt_run, "invoke", lambda *_, **__: dbt_run.Invocation(success=True, results=(), errors=()))
    with pytest.raises(ComputationError, match="ran nothing"):
        platform.materialize("user_activity", "2024-01-03")
    assert ledger.head("user_activity@1") == 0


def test_sources_must_reach_far_enough(platform, ledger):
    # loaded through 2024-01-10 00:00; the partition ends there, and 10 minutes of reporting lag are declared
    with pytest.raises(SourceNotReadyError) as caught:
        platform.materialize("user_activity", "2024-01-09")
    message = str(caught.value)
    assert "tiny.events" in message
    assert "2024-01-10T00:00:00+00:00" in message
    assert "2024-01-10T00:10:00+00:00" in message
    assert ledger.batches() == ()
    platform.load_through("2024-01-10 00:10")
    platform.materialize("user_activity", "2024-01-09")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ((), "no partitions"),
        (("2024-01-02", "2024-01-02"), "twice"),
        (("2023-12-31",), "before the beginning"),
        (("today",), "not ended"),
    ],
)
def test_partitions_that_cannot_be_computed(platform, ledger, keys, reason):
    # not when tests are collected: workers that collect on two sides of midnight do not agree
    keys = [f"{datetime.now(UTC):%Y-%m-%d}" if key == "today" else key for key in keys]
    with pytest.raises(RequestError, match=reason):
        platform.materialize("user_activity", *keys)
    assert ledger.batches() == ()


def test_duplicate_keys_are_rejected(platform, ledger):
    platform.edit("user_activity.sql", "group by user_id, event_timestamp", "group by user_id, event_timestamp, amount")
    platform.deploy()
    with pytest.raises(BatchRejectedError, match=r"more than one row|keys"):
        platform.materialize("user_activity", "2024-01-04")
    (history,) = ledger.batches()
    assert history.state == "failed"
    assert "BatchRejectedError" in history.failure
    assert platform.count_rows("user_activity") == 0


def test_rows_outside_the_partitions_are_rejected(platform):
    platform.edit(
        "user_activity.sql", "    event_timestamp,", "    event_timestamp + interval 1 day as event_timestamp,"
    )
    platform.edit("user_activity.sql", "group by user_id, event_timestamp", "group by all")
    platform.deploy()
    with pytest.raises(BatchRejectedError, match="outside"):
        platform.materialize("user_activity", "2024-01-03")
    assert platform.count_rows("user_activity") == 0


def test_failing_sql_names_the_compiled_file(platform, ledger):
    platform.edit(
        "user_activity.sql", "    user_id,", "    user_id + strftime(event_timestamp, 'boom')::bigint as user_id,"
    )
    platform.edit("user_activity.sql", "group by user_id, event_timestamp", "group by all")
    platform.deploy()
    with pytest.raises(ComputationError, match="boom") as caught:
        platform.materialize("user_activity", "2024-01-03", run_id="broken")
    compiled = caught.value.hint.rpartition(": ")[2]
    assert "'boom'" in open(compiled).read()  # noqa: PTH123, SIM115
    assert ledger.unfinished() == ()


def test_a_process_with_older_declarations_is_refused(platform):
    older = platform.registry
    platform.edit("user_activity.sql", "'1 day'", "'2 days'")
    platform.deploy()
    from feature_platform.materialization import materialize

    with pytest.raises(NotDeployedError, match="restarted"):
        materialize(
            platform.settings, older, "user_activity", platform.partitions("user_activity", "2024-01-03"), run_id="old"
        )
    assert platform.materialize("user_activity", "2024-01-03").row_count == 2


def test_a_run_waits_for_deploy_only_so_long(platform):
    with (
        Ledger.connect(platform.settings.ledger_url) as other,
        deployment_lock(other.connection, exclusive=True),
        pytest.raises(LockBusyError),
    ):
        platform.materialize("user_activity", "2024-01-03", lock_wait=timedelta(milliseconds=50))


def test_listener_that_raises_stops_the_run(platform, ledger):
    def stop(event):
        if event.step is Step.CHECKED:
            raise RuntimeError("stopped by the listener")

    with pytest.raises(RuntimeError, match="listener"):
        platform.materialize("user_activity", "2024-01-03", on_event=stop)
    (history,) = ledger.batches()
    assert history.state == "failed"
    assert platform.visible("user_activity") == []


def test_dbt_says_nothing_on_the_terminal(platform, capfd):
    platform.materialize("user_activity", "2024-01-03")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_run_leaves_no_directories(platform):
    platform.materialize("user_activity", "2024-01-03")
    runs = platform.settings.home / "dbt" / "runs"
    assert not runs.exists() or list(runs.iterdir()) == []


def test_unpublished_rows_are_in_the_lake_and_invisible(platform):
    def stop(event):
        if event.step is Step.AUDITED:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        platform.materialize("user_activity", "2024-01-03", on_event=stop)
    with closing(connect(platform.settings, read_only=True)) as lake:
        assert lake.execute("select count(*) from lake.batches.user_activity_v1").fetchone() == (2,)
    assert platform.visible("user_activity") == []
