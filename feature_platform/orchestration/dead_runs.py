"""Batches of runs that are over: given up, so that `unfinished` names only what is being computed.

Rule: Dagster says that a run is over, the ledger decides. Should a worker that was taken for dead still live, its batch
cannot be published any more, and the run says so.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import dagster as dg

from feature_platform.errors import LedgerConflictError

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger


def give_up_batches_of_dead_runs(ledger: Ledger, instance: dg.DagsterInstance) -> int:
    """Give up the unfinished batches of runs that have ended; how many. Runs that Dagster does not know are left."""
    by_run: defaultdict[str, list[str]] = defaultdict(list)
    for one in ledger.unfinished():
        by_run[one.run_id].append(one.batch.batch_id)
    given_up = 0
    for run_id, batch_ids in by_run.items():
        run = instance.get_run_by_id(run_id)
        if run is None or not run.is_finished:
            continue
        try:
            reason = f"its run ended as {run.status.value.lower()} and left it unfinished"
            ledger.record_failed(batch_ids, reason, interrupted=run.status is not dg.DagsterRunStatus.CANCELED)
        except LedgerConflictError:  # one was published since: the next look sees what is left
            continue
        given_up += len(batch_ids)
    return given_up
