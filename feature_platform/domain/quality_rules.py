"""What is expected of every batch without being asked: of its volume, of missing values, of how values are distributed.

Rule: a rule compares a batch with batches of earlier partitions, never with later ones. It speaks only when it has
enough of them, and only of a change that is both large in itself (`tolerance`) and large beside the changes those show
among each other: a view that always varies is not told so every day.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from feature_platform.domain.windows import Grain

SEVERITIES = ("error", "warn")
"""Of a rule or an expectation: `error` blocks publishing, `warn` is recorded."""
CONTRACT, VOLUME, NULLS, DRIFT = "batch_contract", "batch_volume", "feature_nulls", "feature_drift"
CHECKS = (CONTRACT, VOLUME, NULLS, DRIFT)
"""The checks of the suite; no test or expectation of a view may have their names."""


class ReferenceKind(enum.StrEnum):
    """Which earlier batches a rule compares with."""

    PREVIOUS = "previous"
    """The one before."""
    RECENT = "recent"
    """The last so many."""
    SAME_WEEKDAY = "same_weekday"
    """The last so many of the same weekday and, of hours, of the same hour."""
    TRAINING_SET = "training_set"
    """Those that a kept training set was made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Which earlier batches, and how many: `at_most` of them, and without `at_least` the rule is silent."""

    kind: ReferenceKind
    at_most: int
    at_least: int
    training_set: str = ""
    """Name, or `name@version`, for that kind."""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.training_set}".strip()


_SIZES: Mapping[ReferenceKind, tuple[int, int]] = {
    ReferenceKind.PREVIOUS: (1, 1),
    ReferenceKind.RECENT: (28, 14),
    ReferenceKind.SAME_WEEKDAY: (8, 4),
    ReferenceKind.TRAINING_SET: (64, 1),
}
_RECENT_MONTHS = (12, 4)


def reference(kind: ReferenceKind, grain: Grain, *, training_set: str = "") -> Reference:
    """The reference of this kind for a view of this grain."""
    months = grain is Grain.MONTH and kind is ReferenceKind.RECENT
    at_most, at_least = _RECENT_MONTHS if months else _SIZES[kind]
    return Reference(kind=kind, at_most=at_most, at_least=at_least, training_set=training_set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the default suite."""

    reference: Reference
    tolerance: float
    """How large a change must be in itself; docs/reference/quality.md says in which unit."""
    severity: str = "warn"

    @property
    def blocks(self) -> bool:
        """Whether a batch that breaks the rule is not published."""
        return self.severity == "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRules:
    """The rules of one feature. None: switched off."""

    nulls: Rule | None = None
    drift: Rule | None = None
    top_values: bool = False
    """Whether its profile may hold its most frequent values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRules:
    """The default suite of a view. None: switched off."""

    volume: Rule | None = None
    allow_empty: bool = False
    """Whether a batch may have no rows although there was something to make rows of."""
    samples: bool = False
    """Whether a check that failed may keep some of the values or rows that failed."""
    features: Mapping[str, FeatureRules] = field(default_factory=dict)
    """By feature, in declared order."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All that are on."""
        of_features = (rule for one in self.features.values() for rule in (one.nulls, one.drift))
        return tuple(rule for rule in (self.volume, *of_features) if rule is not None)
