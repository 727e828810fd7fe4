"""What `materialize` and `backfill` would ask of Dagster, without one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from online_support import make_view

from feature_platform.cli import following, runs
from feature_platform.cli.dagster_client import AssetProgress, BackfillProgress, DagsterClient
from feature_platform.domain.windows import Grain, parse_partition_key
from feature_platform.errors import RequestError, ServiceStartError

NOW = datetime(2026, 3, 10, 1, 0, tzinfo=UTC)
VIEW = replace(
    make_view(), grain=Grain.DAY, begin=datetime(2026, 2, 27, tzinfo=UTC), availability_delay=timedelta(minutes=90)
)


def keys(plan: runs.BackfillPlan) -> list[str]:
    return [partition.key for partition in plan.partitions]


def test_without_bounds_everything_that_is_due():
    plan = runs.plan_backfill(VIEW, first=None, last=None, now=NOW)
    # 9 March ended an hour ago, and its delay has not passed
    assert (keys(plan)[0], keys(plan)[-1]) == ("2026-02-27", "2026-03-08")
    assert plan.ranges == [("2026-02-27", "2026-03-08")]


def test_bounds_are_included_and_cut_to_what_there_is():
    assert keys(runs.plan_backfill(VIEW, first="2026-03-01", last="2026-03-02", now=NOW)) == [
        "2026-03-01",
        "2026-03-02",
    ]
    assert keys(runs.plan_backfill(VIEW, first="2025-01-01", last="2026-02-27", now=NOW)) == ["2026-02-27"]
    assert keys(runs.plan_backfill(VIEW, first="2026-03-09", last="2027-01-01", now=NOW)) == []


def test_a_day_of_an_hourly_view_is_its_24_partitions():
    hourly = replace(VIEW, grain=Grain.HOUR)
    plan = runs.plan_backfill(hourly, first="2026-03-01", last="2026-03-01", now=NOW)
    assert len(plan.partitions) == 24
    assert plan.ranges == [("2026-03-01-00:00", "2026-03-01-23:00")]
    assert len(runs.plan_backfill(hourly, first="2026-03-01-22:00", last="2026-03-02-01:00", now=NOW).partitions) == 4


def test_any_day_of_a_month_names_the_month():
    monthly = replace(VIEW, grain=Grain.MONTH, begin=datetime(2025, 1, 1, tzinfo=UTC))
    assert keys(runs.plan_backfill(monthly, first="2025-12-15", last="2026-01-31", now=NOW)) == [
        "2025-12-01",
        "2026-01-01",
    ]


def test_gaps_make_ranges():
    days = ("2026-03-01", "2026-03-02", "2026-03-04", "2026-03-07", "2026-03-08")
    plan = runs.BackfillPlan(view=VIEW, partitions=tuple(parse_partition_key(day, Grain.DAY) for day in days))
    assert plan.ranges == [("2026-03-01", "2026-03-02"), ("2026-03-04", "2026-03-04"), ("2026-03-07", "2026-03-08")]


def test_what_is_no_date_is_refused():
    with pytest.raises(RequestError, match="is no date"):
        runs.plan_backfill(VIEW, first="yesterday", last=None, now=NOW)


def test_it_says_how_to_start_dagster(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATURE_PLATFORM_HOME", str(tmp_path))
    with pytest.raises(ServiceStartError, match="feature-platform up"):
        DagsterClient.running()
    monkeypatch.setenv("FEATURE_PLATFORM_DAGSTER_UI", "http://127.0.0.1:9")
    with pytest.raises(ServiceStartError, match="nothing answers"):
        DagsterClient.running()


def test_ctrl_c_leaves_the_backfill_and_says_how_to_cancel_it(capsys):
    with pytest.raises(KeyboardInterrupt), following.left_running("Cancel it with `… --cancel abc`."):
        raise KeyboardInterrupt
    assert "--cancel abc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "over", "succeeded"),
    [("REQUESTED", False, False), ("COMPLETED_SUCCESS", True, True), ("COMPLETED_FAILED", True, False)],
)
def test_how_a_backfill_ends(status, over, succeeded):
    progress = BackfillProgress(status=status, assets=(), runs={}, error="")
    assert (progress.is_over, progress.succeeded) == (over, succeeded)


@pytest.mark.parametrize("command", [runs.materialize, runs.backfill])
def test_help_explains(command):
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Dagster" in result.output


def test_how_far_a_backfill_is_in_one_line():
    assets = (
        AssetProgress(asset="carrier_delays", targeted=1270, done=1200, failed=0, running=70),
        AssetProgress(asset="route_delays", targeted=30, done=27, failed=3, running=0),
        AssetProgress(asset="online/carrier_delays", targeted=1, done=0, failed=0, running=0),
    )
    progress = BackfillProgress(status="REQUESTED", assets=assets, runs={}, error="")
    assert following.progress_text(progress) == (
        "1,227 of 1,301 partitions; carrier_delays 1,200/1,270 (70 running); route_delays 27/30 (3 failed)"
    )
    assert following.progress_text(replace(progress, assets=())) == "requested"


def test_a_title_is_as_short_as_dagster_wants_it():
    day = (parse_partition_key("2026-03-01", Grain.DAY),)
    plans = [
        runs.BackfillPlan(view=replace(VIEW, name=f"a_view_with_a_long_name_{n}"), partitions=day) for n in range(5)
    ]
    assert runs.title_of(plans[:1]) == "Backfill of a_view_with_a_long_name_0@1: 1 partitions"
    assert runs.title_of(plans) == "Backfill of 5 views: 5 partitions"
