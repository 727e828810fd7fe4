"""When a sync of its own is due, by Dagster's own evaluation; and what a range costs in runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from feature_platform.domain.windows import Grain
from feature_platform.orchestration.serving import after_publishing
from feature_platform.orchestration.timetable import PARTITIONS_PER_RUN, backfill_policy, partitions_definition

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def build(store: list[str]) -> dg.Definitions:
    """A partitioned view and what serves it, wired as the factories do."""

    @dg.asset(partitions_def=partitions_definition(Grain.DAY, BEGIN), backfill_policy=backfill_policy(Grain.DAY))
    def view() -> None: ...

    @dg.asset(key=["online", "view"], deps=[view], automation_condition=after_publishing())
    def online() -> None:
        if not store:
            raise ValueError("no store")

    jobs = [
        dg.define_asset_job("both", [view, online]),
        dg.define_asset_job("alone", [view]),
        dg.define_asset_job("sync", [online]),
    ]
    return dg.Definitions(assets=[view, online], jobs=jobs, executor=dg.in_process_executor)


class Daemon:
    """Evaluates the conditions as the daemon would, keeping its cursor, and runs what they ask for."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.store = ["there"]
        self.definitions = build(self.store)
        self.repository = self.definitions.get_repository_def()
        self.instance = instance
        self.cursor = None

    def asks_for_a_sync(self, at: datetime | None = None) -> bool:
        result = dg.evaluate_automation_conditions(
            self.definitions, instance=self.instance, cursor=self.cursor, evaluation_time=at
        )
        self.cursor = result.cursor
        return result.total_requested > 0

    def run(self, job: str, first: str, last: str | None = None) -> None:
        if last is None:
            self.repository.get_job(job).execute_in_process(instance=self.instance, partition_key=first)
            return
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        self.repository.get_job(job).execute_in_process(instance=self.instance, tags=tags)


@pytest.fixture
def daemon(tmp_path: Path):
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        daemon = Daemon(instance)
        assert not daemon.asks_for_a_sync()
        yield daemon


def test_a_publish_that_did_not_sync_is_followed_once(daemon):
    daemon.run("alone", "2026-02-01")
    assert daemon.asks_for_a_sync()
    assert not daemon.asks_for_a_sync()


def test_several_publishes_between_two_looks_are_followed_once(daemon):
    for day in ("2026-02-01", "2026-02-02", "2026-02-03"):
        daemon.run("alone", day)
    daemon.run("alone", "2026-03-01", "2026-03-20")
    assert daemon.asks_for_a_sync()
    assert not daemon.asks_for_a_sync()


def test_a_run_that_synced_is_not_followed(daemon):
    daemon.run("both", "2026-02-01")
    assert not daemon.asks_for_a_sync()
    daemon.run("both", "2026-02-02", "2026-02-20")
    assert not daemon.asks_for_a_sync()


def test_a_sync_that_failed_is_asked_for_again_until_it_has_succeeded(daemon):
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    daemon.store.clear()
    with pytest.raises(ValueError, match="no store"):
        daemon.run("both", "2026-02-01")
    daemon.asks_for_a_sync(hour)  # what was published by the run, once
    for minute, asks in ((6, False), (8, True), (9, False), (38, True)):
        assert daemon.asks_for_a_sync(hour + timedelta(minutes=minute)) is asks
    daemon.store.append("back")
    daemon.repository.get_job("sync").execute_in_process(instance=daemon.instance)
    assert not daemon.asks_for_a_sync(hour + timedelta(minutes=68))


@pytest.mark.parametrize("grain", list(Grain))
def test_a_range_is_cut_into_few_runs(grain):
    policy = backfill_policy(grain)
    assert policy.max_partitions_per_run == PARTITIONS_PER_RUN[grain]
    assert policy.policy_type.value == "MULTI_RUN"
