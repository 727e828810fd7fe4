"""The ledger: an append-only record, in Postgres, of batches and of what happened to them.

Rule: rows are facts and are never changed; what can be derived (superseded, active, `online_at`) is derived. Every
append is numbered in the order of commits (`connection`). The tables are in `migrations/`, and in
docs/reference/ledger.md.
"""

from __future__ import annotations

from feature_platform.ledger import locks
from feature_platform.ledger.canaries import CanaryLedger, CanaryRead
from feature_platform.ledger.clocks import ClockLedger, WrongClock
from feature_platform.ledger.gaps import GapLedger
from feature_platform.ledger.held import HeldLedger
from feature_platform.ledger.incidents import IncidentLedger
from feature_platform.ledger.journal import Journal, SyncLedger
from feature_platform.ledger.late import LateLedger
from feature_platform.ledger.locks import (
    canary_lock,
    deployment_lock,
    log_drain_lock,
    push_drain_lock,
    source_lock,
    training_set_lock,
)
from feature_platform.ledger.meters import DrainTotals, MeterLedger, SyncTotals, ViewTotals
from feature_platform.ledger.migrating import migrate
from feature_platform.ledger.parity import ParityLedger, ParityRecord
from feature_platform.ledger.profiles import PastBatch, ProfileLedger
from feature_platform.ledger.pushes import Acknowledged, Push, PushLedger
from feature_platform.ledger.records import (
    BatchHistory,
    Deployment,
    HeldBatch,
    Incident,
    LedgerEvent,
    NoticeTaken,
    SourceLoad,
    UnfinishedBatch,
)
from feature_platform.ledger.retired import RetiredBatch, RetirementLedger
from feature_platform.ledger.silences import Silence, SilenceLedger
from feature_platform.ledger.stores import StoreLedger
from feature_platform.ledger.training_sets import TrainingSetLedger, TrainingSetRecord
from feature_platform.ledger.whoami import whoami


class Ledger(
    HeldLedger,
    GapLedger,
    SyncLedger,
    StoreLedger,
    LateLedger,
    ProfileLedger,
    PushLedger,
    TrainingSetLedger,
    RetirementLedger,
    MeterLedger,
    IncidentLedger,
    SilenceLedger,
    ParityLedger,
    ClockLedger,
    CanaryLedger,
    Journal,
):
    """One connection to the ledger; one per thread. `with Ledger.connect(url) as ledger: …`."""


__all__ = [
    "Acknowledged",
    "BatchHistory",
    "CanaryRead",
    "Deployment",
    "DrainTotals",
    "HeldBatch",
    "Incident",
    "Ledger",
    "LedgerEvent",
    "NoticeTaken",
    "ParityRecord",
    "PastBatch",
    "Push",
    "RetiredBatch",
    "Silence",
    "SourceLoad",
    "SyncTotals",
    "TrainingSetRecord",
    "UnfinishedBatch",
    "ViewTotals",
    "WrongClock",
    "canary_lock",
    "deployment_lock",
    "locks",
    "log_drain_lock",
    "migrate",
    "push_drain_lock",
    "source_lock",
    "training_set_lock",
    "whoami",
]
