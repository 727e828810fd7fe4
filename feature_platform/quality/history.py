"""The history of a view's quality: what its last batches look like and what every check said of them, per feature.

Rule: pure. It arranges what the ledger keeps and judges nothing again: a drift or a verdict is what was found when the
batch was new, by the rules of then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.profile import FeatureProfile
from feature_platform.quality.default_suite import DRIFT, suite_of
from feature_platform.quality.rules import check_names, columns_of

if TYPE_CHECKING:
    from feature_platform.ledger import JudgedBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureInBatch:
    """One feature in one batch."""

    profile: FeatureProfile | None
    """None: no profile of it is kept."""
    null_rate: float | None
    """Share of rows without a value, NaN among them; None without rows or profile."""
    drift: float | None
    """Distance from the reference; None if it was not judged."""
    drift_allowed: float | None
    """The greatest distance that would not have been told; None if it was not told."""
    silent: str
    """Why drift was not judged; empty if it was, or if the feature has no such rule."""
    told: tuple[CheckOutcome, ...]
    """Checks that warned or failed because of this feature."""

    def to_json(self) -> dict[str, Any]:
        """Documented in docs/reference/quality.md."""
        content: dict[str, Any] = {"null_rate": self.null_rate, "drift": self.drift}
        content |= {"drift_allowed": self.drift_allowed} if self.drift_allowed is not None else {}
        content |= {"drift_silent": self.silent} if self.silent else {}
        content |= {"warned_or_failed": [one.check for one in self.told]}
        return content | (self.profile.to_json() if self.profile else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInHistory:
    """One batch: its rows, its features, what the checks said."""

    judged: JudgedBatch
    features: Mapping[str, FeatureInBatch]
    checks: tuple[CheckOutcome, ...]

    def to_json(self) -> dict[str, Any]:
        """Documented in docs/reference/quality.md."""
        return {
            "partition": self.judged.batch.partition.key,
            "batch_id": self.judged.batch.batch_id,
            "state": self.judged.state,
            "rows": self.judged.profile.row_count,
            "computed_at": self.judged.computed_at,
            "features": {name: one.to_json() for name, one in self.features.items()},
            "checks": [
                {
                    "check": one.check,
                    "kind": one.kind,
                    "verdict": verdict(one),
                    "blocking": one.blocking,
                    "detail": dict(one.detail),
                }
                for one in self.checks
            ],
        }


def verdict(outcome: CheckOutcome) -> str:
    """`passed`, `silent` (passed, because there was too little to compare with), `warned` or `failed`."""
    if not outcome.passed:
        return "failed" if outcome.blocking else "warned"
    return "silent" if outcome.detail.get("silent") and not outcome.detail.get("observed") else "passed"


def history_of(
    view: FeatureView,
    judged: Sequence[JudgedBatch],
    checks: Iterable[CheckOutcome],
    *,
    tested: Mapping[str, str],
) -> tuple[BatchInHistory, ...]:
    """What is known of batches, in their order.

    Args:
        view: their view, as declared now.
        judged: batches with their profiles.
        checks: what was said of all of them.
        tested: the column that a data test is about, by the test's name.
    """
    columns: dict[str, tuple[str, ...]] = {name: (column,) for name, column in tested.items()}
    columns |= {name: columns_of(one) for name, one in zip(check_names(view), view.expectations, strict=True)}
    said: dict[str, list[CheckOutcome]] = {one.batch.batch_id: [] for one in judged}
    for outcome in checks:
        said[outcome.batch_id].append(outcome)
    return tuple(
        BatchInHistory(
            judged=one,
            checks=tuple(said[one.batch.batch_id]),
            features={name: _feature(one, name, said[one.batch.batch_id], columns) for name in view.feature_names},
        )
        for one in judged
    )


def known_checks(view: FeatureView, history: Iterable[BatchInHistory], *, tested: Iterable[str]) -> tuple[str, ...]:
    """Every check of a view by name: those declared now, and those that spoke of its batches."""
    spoken = (outcome.check for one in history for outcome in one.checks)
    return tuple(sorted({*suite_of(view), *check_names(view), *tested, *spoken}))


def _feature(
    judged: JudgedBatch, name: str, said: Sequence[CheckOutcome], columns: Mapping[str, Sequence[str]]
) -> FeatureInBatch:
    drift = next((one.detail for one in said if one.check == DRIFT), {})
    silent = (reason for reason, features in (drift.get("silent") or {}).items() if name in features)
    return FeatureInBatch(
        profile=judged.profile.features.get(name),
        null_rate=judged.profile.missing_share(name),
        drift=(drift.get("observed") or {}).get(name),
        drift_allowed=(drift.get("failed") or {}).get(name, {}).get("allowed"),
        silent=next(silent, ""),
        told=tuple(
            one
            for one in said
            if not one.passed
            and (name in one.detail.get("failed", {}) if one.kind == "profile" else name in columns.get(one.check, ()))
        ),
    )
