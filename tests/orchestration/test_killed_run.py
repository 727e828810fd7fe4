"""A run that is killed -9 in the middle of a batch: its partition is computed again, asked for by nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from feature_platform.domain.due import due_partition
from feature_platform.ledger import Ledger
from feature_platform.local import abandoned_runs
from feature_platform.observability.missing import BEGUN_AGAIN_AFTER
from feature_platform.orchestration import keys
from feature_platform.orchestration.dead_runs import give_up_batches_of_dead_runs
from feature_platform.orchestration.missing import build_missing_sensor
from feature_platform.orchestration.requests import RANGE_TAGS
from feature_platform.settings import PREFIX

VIEW = "route_delays"
SECONDS = 240


@pytest.fixture
def instance(tmp_path, monkeypatch):
    """On disk, as the runs are other processes."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as kept:
        yield kept


def killed_run(settings, ledger, partition: str) -> None:
    """Dagster runs the asset in a process of its own, which is killed when its batch is open."""
    names = ("PROJECT", "HOME", "LEDGER_URL", "LAKE_CATALOG", "LAKE_DATA", "VALKEY_URL", "STORE", "DUCKDB_MEMORY")
    environ = os.environ | {PREFIX + name: str(getattr(settings, name.lower())) for name in names}
    command = ["-m", "dagster", "asset", "materialize", "-m", "feature_platform.definitions"]
    process = subprocess.Popen(
        [sys.executable, *command, "--select", VIEW, "--partition", partition],
        env=environ,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + SECONDS
    while not ledger.unfinished():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.timeout(SECONDS + 300)
def test_the_partition_of_a_killed_run_is_computed_again(platform, registry, instance, run_job, monkeypatch):
    view = registry.view(VIEW)
    now = datetime.now(UTC)
    partition = due_partition(now - timedelta(days=1), view.grain, view.availability_delay)
    # deployed just before it came due
    monkeypatch.setattr(Ledger, "first_deployed", lambda *_: partition.end + view.availability_delay - timedelta(1))
    with Ledger.connect(platform.ledger_url) as ledger:
        killed_run(platform, ledger, partition.key)
        (left,) = ledger.unfinished()
        assert left.batch.partition == partition
        assert give_up_batches_of_dead_runs(ledger, instance) == 0, "for all that Dagster knows it still runs"

        abandoned_runs.main([run.run_id for run in instance.get_runs()])  # as `up` and the daemon say it
        assert give_up_batches_of_dead_runs(ledger, instance) == 1

        sensor = build_missing_sensor(platform, registry)
        monkeypatch.setattr(Ledger, "now", lambda _: now + BEGUN_AGAIN_AFTER + timedelta(minutes=2))
        said = sensor(dg.build_sensor_context(instance=instance))
        (request,) = (one for one in said.run_requests if keys.view_key(view) in one.asset_selection)
        first, last = (request.tags.get(tag, request.partition_key) for tag in RANGE_TAGS)
        assert first <= partition.key <= last
        monkeypatch.undo()

        names = [asset.to_user_string() for asset in request.asset_selection]
        assert run_job(*names, partition=first, through=last).success
        published = ledger.active_batches(view.key)
        assert partition in {batch.partition for batch in published}
        assert left.batch.batch_id not in {batch.batch_id for batch in published}
        assert ledger.unfinished() == ()
