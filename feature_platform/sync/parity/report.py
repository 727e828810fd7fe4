"""What a comparison found, per view and store.

Rule: counts are complete for the sample; examples are the first few differences, enough to look one up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from feature_platform.sync.parity.judging import DIFFERENCES, Cause, Outcome, Places

MAX_EXAMPLES: Final = 20
MAX_STRAY: Final = 100_000
"""Keys that no sync would ever overwrite, kept for a repair; a store with more of them is better emptied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row that differs."""

    entity: str
    """Its encoded key."""
    pushed: bool = False
    """It is the entity's pushed row that differs."""
    outcome: Outcome
    cause: Cause
    why: str
    stored_position: int | None
    stored_event: datetime | None
    expected_event: datetime | None

    @property
    def row(self) -> str:
        """Which row, for people."""
        return f"{self.entity} (pushed)" if self.pushed else self.entity


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts while they grow."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    causes: Counter[Cause] = field(default_factory=Counter)
    examples: list[Difference] = field(default_factory=list)
    stray: list[bytes] = field(default_factory=list)

    def add(self, difference: Difference, *, stray_key: bytes | None) -> None:
        """Count a difference."""
        self.outcomes[difference.outcome] += 1
        self.causes[difference.cause] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(difference)
        if stray_key is not None and len(self.stray) < MAX_STRAY:
            self.stray.append(stray_key)

    def __add__(self, other: Tally) -> Tally:
        """Both."""
        return Tally(
            outcomes=self.outcomes + other.outcomes,
            causes=self.causes + other.causes,
            examples=(self.examples + other.examples)[:MAX_EXAMPLES],
            stray=(self.stray + other.stray)[:MAX_STRAY],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """Store against ledger, for a sample of one view."""

    view: str
    store: str
    places: Places
    entities: int
    """About so many the lake knows."""
    fraction: float
    """Of all keys, by their hash."""
    seed: str
    """The same seed and fraction choose the same entities."""
    outcomes: Mapping[Outcome, int]
    causes: Mapping[Cause, int]
    pushed_outcomes: Mapping[Outcome, int]
    """Of these, those of pushed rows."""
    pushed_causes: Mapping[Cause, int]
    examples: tuple[Difference, ...]
    stray: tuple[bytes, ...] = ()
    """Keys with values that this ledger did not write."""
    seconds: float

    @property
    def differing(self) -> int:
        """Rows that differ: of an entity the batches' and the pushed one."""
        return sum(self.outcomes.get(kind, 0) for kind in DIFFERENCES)

    @property
    def compared(self) -> int:
        """Rows compared: of an entity the batches' and the pushed one."""
        return sum(self.outcomes.values())

    @property
    def pushed(self) -> int:
        """Pushed rows among them."""
        return sum(self.pushed_outcomes.values())

    @property
    def only_late(self) -> bool:
        """Whether a sync alone would settle all of it."""
        return all(cause is Cause.LATE_SYNC for cause, count in self.causes.items() if count)
