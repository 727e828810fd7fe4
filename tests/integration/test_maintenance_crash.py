"""kill -9 at each step of maintenance, and maintenance beside everything else: nothing is lost, nothing shown wrong."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from run_workers import maintain_and_die, maintain_repeatedly, start
from tiny_platform import TinyPlatform, instant
from used_platform import DAYS, write

from feature_platform.ledger import Ledger
from feature_platform.maintenance import maintain
from feature_platform.offline import FeatureStore

LATER = datetime.now(UTC) + timedelta(days=400)
KEY = "user_activity@1"

# the step at which maintenance dies → batches retired by then, deletions recorded by then, and whether rows are gone
DEATHS = {
    "batches retired": (4, 0, False),
    "comparing": (4, 0, False),
    "rows deleted": (4, 0, True),
    "removing files out of use": (4, 4, True),
}


@pytest.mark.parametrize("step", DEATHS)
def test_killed_maintenance(used: TinyPlatform, step: str) -> None:
    visible, total = used.visible("user_activity"), used.count_rows("user_activity")
    retired, recorded, gone = DEATHS[step]

    died = start(maintain_and_die, used.settings, LATER, step)
    died.join()
    assert died.exitcode == -signal.SIGKILL

    with Ledger.connect(used.settings.ledger_url) as ledger:
        left = ledger.retired(KEY)
        assert (len(left), sum(one.deleted_at is not None for one in left)) == (retired, recorded)
        assert used.visible("user_activity") == visible
        assert used.count_rows("user_activity") == (len(visible) if gone else total)
        write(used, DAYS[5])  # a run goes on as if nothing had happened
        shown = used.visible("user_activity")

        maintain(used.settings, used.registry, now=LATER)
        assert used.visible("user_activity") == shown
        assert used.count_rows("user_activity") == len(shown)
        assert all(one.deleted_at for one in ledger.retired(KEY))


def test_maintenance_beside_runs_and_training_sets(used: TinyPlatform) -> None:
    """Appends come before, between and after its slices; all stay whole, and what was kept can be made again."""
    store = FeatureStore(used.settings, used.registry)
    labels = pa.table({"user_id": [*range(1, 21)], "event_timestamp": [instant("2024-01-04 12:00")] * 20})
    going = start(maintain_repeatedly, used.settings, LATER, 2)
    expected = {row[0:2] for row in used.visible("user_activity")}
    kept = []
    while going.is_alive() or not kept:
        write(used, DAYS[len(kept) % len(DAYS)])
        kept.append(store.create_training_set(labels, ["user_activity"], name="beside", mode="modelled"))
        assert {row[0:2] for row in used.visible("user_activity")} == expected
    going.join()
    assert going.exitcode == 0
    maintain(used.settings, used.registry, now=LATER)
    for one in (kept[0], kept[-1]):
        assert store.reproduce_training_set(one.key).verdict == "identical"
    for one in kept:
        store.release_training_set(one.key, reason="the test ends", released_by="me")
    maintain(used.settings, used.registry, now=LATER)
    assert used.count_rows("user_activity") == len(used.visible("user_activity")) == len(expected)
