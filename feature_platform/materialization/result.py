"""What a materialization says while it runs and when it is done."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feature_platform.domain.batch import Batch, CheckOutcome, Measured, PublishedBatch
from feature_platform.domain.feature_view import FeatureView


class Step(enum.StrEnum):
    """The steps of a run, in their order. Each is announced when it has happened."""

    READY = "ready"
    """The lock is held and the sources reach far enough; nothing is recorded yet."""
    OPENED = "opened"
    DBT = "dbt"
    """dbt said something; many times, during computing and during the data tests."""
    WRITTEN = "written"
    """The rows are committed in the lake; the ledger does not know yet."""
    COMPUTED = "computed"
    CHECKED = "checked"
    """All checks have spoken and are recorded, with no verdict yet."""
    AUDITED = "audited"
    PUBLISHED = "published"
    HELD = "held"
    """Instead of published, if that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One step of a run."""

    step: Step
    view: str
    batches: tuple[Batch, ...] = ()
    dbt: Any = None
    """dbt's `EventMsg`, for `Step.DBT`."""


OnEvent = Callable[[RunEvent], None]


def ignore(event: RunEvent) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """One published batch with what it cost."""

    batch: PublishedBatch
    measured: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializationResult:
    """What a run published, or held. It did so with everything it was asked for, or it raised."""

    view: FeatureView
    run_id: str
    batches: tuple[BatchResult, ...]
    """Published, in order of partition."""
    held: tuple[Batch, ...] = ()
    """Kept for approval instead, in order of partition."""
    checks: tuple[CheckOutcome, ...]
    seconds: Mapping[str, float]
    """Per phase: `ready`, `open`, `compute`, `measure`, `profile`, `tests`, `expectations`, `publish`."""

    @property
    def row_count(self) -> int:
        """Rows of all batches."""
        return sum(result.batch.row_count for result in self.batches)

    @property
    def warnings(self) -> tuple[CheckOutcome, ...]:
        """Checks that failed without blocking."""
        return tuple(check for check in self.checks if not check.passed)
