"""kill -9 at each step of maintenance, and maintenance beside everything else: nothing is lost, nothing shown wrong."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

import pytest
from run_workers import maintain_and_die, maintain_repeatedly, start
from tiny_platform import TinyPlatform
from used_platform import DAYS, write

from feature_platform.ledger import Ledger
from feature_platform.maintenance import maintain

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


def test_maintenance_beside_runs(used: TinyPlatform) -> None:
    """Appends come before, between and after its slices; each of them stays whole, and each reader sees one state."""
    going = start(maintain_repeatedly, used.settings, LATER, 2)
    expected = {row[0:2] for row in used.visible("user_activity")}
    seen = 0
    while going.is_alive() or not seen:
        write(used, DAYS[seen % len(DAYS)])
        assert {row[0:2] for row in used.visible("user_activity")} == expected
        seen += 1
    going.join()
    assert going.exitcode == 0
    maintain(used.settings, used.registry, now=LATER)
    assert used.count_rows("user_activity") == len(used.visible("user_activity")) == len(expected)
