"""Batches of runs that Dagster knows to be over are given up; those of others are left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.test_utils import create_run_for_test

from feature_platform.domain.windows import Grain, partition_starting
from feature_platform.ledger import Ledger
from feature_platform.orchestration.dead_runs import give_up_batches_of_dead_runs
from feature_platform.settings import Settings

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


def test_only_batches_of_runs_that_are_over_are_given_up(platform: Settings, registry):
    view = registry.view("route_delays")
    with Ledger.connect(platform.ledger_url) as ledger, dg.DagsterInstance.ephemeral() as instance:
        runs = {
            status: create_run_for_test(instance, status=status).run_id
            for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED)
        }
        days = iter(partition_starting(BEGIN + timedelta(days=n), Grain.DAY) for n in range(4))
        dead = ledger.open_batches(view, [next(days), next(days)], run_id=runs[dg.DagsterRunStatus.FAILURE])
        alive = ledger.open_batches(view, [next(days)], run_id=runs[dg.DagsterRunStatus.STARTED])
        unknown = ledger.open_batches(view, [next(days)], run_id="by hand")
        assert give_up_batches_of_dead_runs(ledger, instance) == 2
        assert give_up_batches_of_dead_runs(ledger, instance) == 0
        assert {one.batch.batch_id for one in ledger.unfinished()} == {b.batch_id for b in (*alive, *unknown)}
        (first, _) = ledger.batches(view.key, run_id=runs[dg.DagsterRunStatus.FAILURE])
        assert first.failure == "its run ended as failure and left it unfinished"
        assert first.batch.batch_id in {batch.batch_id for batch in dead}
        ledger.record_failed([b.batch_id for b in (*alive, *unknown)], "end of the test")
