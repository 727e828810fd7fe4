"""What the ledger returns besides the batches and syncs of `domain.batch`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from feature_platform.domain.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHistory:
    """One batch with all that is recorded of it. An instant is None while that has not happened."""

    batch: Batch
    run_id: str
    code_version: str
    opened_at: datetime
    computed_at: datetime | None
    row_count: int | None
    byte_count: int | None
    compute_seconds: float | None
    peak_memory_bytes: int | None
    source_watermark: datetime | None
    audited_at: datetime | None
    audit_passed: bool | None
    failed_at: datetime | None
    failure: str | None
    published_at: datetime | None
    position: int | None
    held_at: datetime | None = None
    rejected_at: datetime | None = None
    rejection: str | None = None
    retired_at: datetime | None = None
    cpu_seconds: float | None = None
    """Processor seconds of its run until the batch was audited or given up."""

    @property
    def state(self) -> str:
        """The last thing that happened.

        `opened`, `computed`, `audited`, `failed`, `held`, `rejected`, `published`, `retired`.
        """
        for state, at in (
            ("retired", self.retired_at),
            ("published", self.published_at),
            ("failed", self.failed_at),
            ("rejected", self.rejected_at),
            ("held", self.held_at),
        ):
            if at is not None:
                return state
        if self.audited_at is not None:
            return "audited"
        return "computed" if self.computed_at is not None else "opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedBatch:
    """An opened batch that was neither published nor given up: its run is alive, or it crashed."""

    batch: Batch
    run_id: str
    opened_at: datetime
    age: timedelta
    """By the database's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBatch:
    """An audited batch that waits for somebody to approve or reject it."""

    batch: Batch
    run_id: str
    row_count: int
    held_at: datetime
    age: timedelta
    """Since it was held, by the database's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLoad:
    """The newest load of one source."""

    source: str
    loaded_through: datetime
    """Up to this arrival instant nothing is missing from the lake."""
    watermark: datetime | None
    loaded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One recorded deploy."""

    ledger_seq: int
    deployed_at: datetime
    platform_version: str
    manifest_hash: str
    views: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that was wrong: opened once, resolved once. Severity and message are the last ones."""

    incident_id: str
    kind: str
    subject: str
    severity: str
    owner: str
    message: str
    opened_at: datetime
    resolved_at: datetime | None
    worse_at: datetime | None = None
    """When it last became an error, having been opened as less."""

    @property
    def view(self) -> str:
        """The view it is about, by its key; the first word of the subject if it is about none."""
        return self.subject.partition(" ")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeTaken:
    """A notice of an incident that a route took."""

    incident_id: str
    event: str
    route: str
    taken_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent:
    """One line of the ledger, for people."""

    ledger_seq: int
    at: datetime
    event: str
    view: str | None
    subject: str
    detail: Mapping[str, Any]
