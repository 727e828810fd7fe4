"""The history of a view's quality: what its last batches look like and what every check said of them, per feature.

Rule: pure. It arranges what the ledger keeps and judges nothing again: a drift or a verdict is what was found when the
batch was new, by the rules of then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.profile import BatchProfile, FeatureProfile
from feature_platform.domain.quality_rules import DRIFT
from feature_platform.quality.default_suite import suite_of
from feature_platform.quality.rules import check_names, columns_of

if TYPE_CHECKING:
    from feature_platform.ledger import BatchHistory


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
    """One batch: what happened to it, its rows, its features, what the checks said."""

    record: BatchHistory
    profile: BatchProfile
    features: Mapping[str, FeatureInBatch]
    checks: tuple[CheckOutcome, ...]

    def to_json(self) -> dict[str, Any]:
        """Documented in docs/reference/quality.md."""
        return {
            "partition": self.record.batch.partition.key,
            "batch_id": self.record.batch.batch_id,
            "state": self.record.state,
            "rows": self.profile.row_count,
            "computed_at": self.record.computed_at,
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
    records: Iterable[BatchHistory],
    profiles: Mapping[str, BatchProfile],
    checks: Iterable[CheckOutcome],
    *,
    tested: Mapping[str, str],
) -> tuple[BatchInHistory, ...]:
    """What is known of batches, in their order.

    Args:
        view: their view, as declared now.
        records: what happened to each.
        profiles: what their rows look like, by id; a batch without was not computed, and is left out.
        checks: what was said of all of them.
        tested: the column that a data test is about, by the test's name.
    """
    columns: dict[str, tuple[str, ...]] = {name: (column,) for name, column in tested.items()}
    columns |= {name: columns_of(one) for name, one in zip(check_names(view), view.expectations, strict=True)}
    said: defaultdict[str, list[CheckOutcome]] = defaultdict(list)
    for outcome in checks:
        said[outcome.batch_id].append(outcome)

    def of(record: BatchHistory) -> BatchInHistory:
        profile, outcomes = profiles[record.batch.batch_id], said[record.batch.batch_id]
        features = {name: _feature(profile, name, outcomes, columns) for name in view.feature_names}
        return BatchInHistory(record=record, profile=profile, features=features, checks=tuple(outcomes))

    return tuple(of(record) for record in records if record.batch.batch_id in profiles)


def known_checks(view: FeatureView, history: Iterable[BatchInHistory], *, tested: Iterable[str]) -> tuple[str, ...]:
    """Every check of a view by name: those declared now, and those that spoke of its batches."""
    spoken = (outcome.check for one in history for outcome in one.checks)
    return tuple(sorted({*suite_of(view), *check_names(view), *tested, *spoken}))


def _feature(
    profile: BatchProfile, name: str, said: Sequence[CheckOutcome], columns: Mapping[str, Sequence[str]]
) -> FeatureInBatch:
    drift = next((one.detail for one in said if one.check == DRIFT), {})
    silent = (reason for reason, features in (drift.get("silent") or {}).items() if name in features)
    return FeatureInBatch(
        profile=profile.features.get(name),
        null_rate=profile.missing_share(name),
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
