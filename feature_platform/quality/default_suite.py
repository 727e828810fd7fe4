"""The default suite: what every batch is judged by without being asked, from its profile alone.

Rule: no row is read again. `batch_contract` says what the rows were held to while they were written; the others compare
the profile with those of earlier batches, and are silent, which counts as passed and says so, while there are too few
of them. A declared training set that is not kept is a failure, and so is a batch without rows that had something to be
made of, unless the view allows it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from feature_platform.domain.batch import Batch, CheckOutcome
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.profile import BatchProfile
from feature_platform.domain.quality_rules import CONTRACT, DRIFT, NULLS, VOLUME, Rule
from feature_platform.quality.earlier import Earlier
from feature_platform.quality.rules import allows_empty
from feature_platform.quality.usual import (
    DRIFT_FROM_ROWS,
    Comparison,
    compare_distribution,
    compare_missing,
    compare_volume,
)


def suite_of(view: FeatureView) -> dict[str, tuple[str, bool]]:
    """The suite's checks of a view: what each is about, and whether it may block."""
    kept = "keys are neither null nor repeated, event_timestamp lies in the batch's partition"
    found = {CONTRACT: (kept if allows_empty(view) else f"{kept}; not empty", True)}
    if (volume := view.quality.volume) is not None:
        found[VOLUME] = (f"rows beside earlier batches ({volume.reference})", volume.blocks)
    features = view.quality.features.values()
    for name, about, some in (
        (NULLS, "share of rows without a value per feature, and NaN", [one.nulls for one in features if one.nulls]),
        (DRIFT, "distribution of each feature beside earlier batches", [one.drift for one in features if one.drift]),
    ):
        if some:
            references = ", ".join(sorted({str(rule.reference) for rule in some}))
            found[name] = (f"{about} ({references})", any(rule.blocks for rule in some))
    return found


def judge_profiles(
    view: FeatureView,
    batches: Sequence[Batch],
    profiles: Sequence[BatchProfile],
    earlier: Earlier,
    *,
    with_input: Container[str] = (),
) -> tuple[CheckOutcome, ...]:
    """What the suite says of each batch, batch by batch.

    Args:
        view: their view.
        batches: those of a run.
        profiles: theirs, in the same order.
        earlier: what they are compared with.
        with_input: ids of batches each of whose sources had rows before the partition's end.
    """
    return tuple(
        outcome
        for batch, profile in zip(batches, profiles, strict=True)
        for outcome in (
            _contract(batch, profile, _emptied(view, batch, profile, earlier, with_input)),
            *_compared(view, batch, profile, earlier),
        )
    )


def _compared(view: FeatureView, batch: Batch, profile: BatchProfile, earlier: Earlier) -> Iterator[CheckOutcome]:
    if (volume := view.quality.volume) is not None:
        yield _volume(batch, profile, earlier, volume)
    for check, compare in ((NULLS, _missing), (DRIFT, _moved)):
        findings = _Findings()
        for feature, of_feature in view.quality.features.items():
            rule = of_feature.nulls if check == NULLS else of_feature.drift
            if rule is None:
                continue
            others = earlier.of(rule.reference, batch.partition.start)
            if others is None:
                findings.judged += 1
                findings.fail(feature, rule, {"error": _no_set(rule)})
            else:
                findings.take(feature, rule, compare(feature, rule, profile, others))
        if findings.judged:
            yield findings.outcome(batch, check)


def _emptied(
    view: FeatureView, batch: Batch, profile: BatchProfile, earlier: Earlier, with_input: Container[str]
) -> str:
    """Why a batch without rows is none to publish; nothing if it has rows, or may or must be without."""
    if profile.row_count or allows_empty(view):
        return ""
    if earlier.rows_since is not None and earlier.rows_since < batch.partition.start:
        why = "earlier partitions have rows"
    elif batch.batch_id in with_input:
        why = "each of its sources has rows"
    else:
        return ""
    return f"the batch is empty, and {why}; if that is right, declare `quality: {{allow_empty: true}}`"


def _contract(batch: Batch, profile: BatchProfile, emptied: str) -> CheckOutcome:
    """What dbt's write has refused already (feature_platform/dbt), with what the profile saw of it; and emptiness."""
    start, end = batch.partition.start, batch.partition.end
    first, last = profile.first_event or end, profile.last_event or end
    detail: dict[str, Any] = {"rows": profile.row_count, "null_keys": sum(profile.key_nulls.values())}
    if profile.row_count:
        detail |= {"first_event": first.isoformat(), "last_event": last.isoformat()}
    if emptied:
        detail["message"] = emptied
    passed = not emptied and not detail["null_keys"] and start < first and last <= end
    return CheckOutcome(
        batch_id=batch.batch_id, check=CONTRACT, kind="contract", passed=passed, blocking=True, detail=detail
    )


def _volume(batch: Batch, profile: BatchProfile, earlier: Earlier, rule: Rule) -> CheckOutcome:
    detail: dict[str, Any] = {"observed_value": profile.row_count, "reference": str(rule.reference)}
    others = earlier.of(rule.reference, batch.partition.start)
    passed = True
    if others is None:
        passed, detail = False, detail | {"error": _no_set(rule)}
    elif len(others) < rule.reference.at_least:
        detail |= {"silent": _too_few(len(others), rule)}
    else:
        found = compare_volume(profile.row_count, [one.row_count for one in others], rule.tolerance)
        passed, detail = not found.told, detail | found.to_json() | {"batches": len(others)}
    return CheckOutcome(
        batch_id=batch.batch_id, check=VOLUME, kind="profile", passed=passed, blocking=rule.blocks, detail=detail
    )


@dataclass(slots=True, kw_only=True)
class _Findings:
    """What one check says of the features of a batch."""

    judged: int = 0
    blocks: bool = False
    observed: dict[str, float] = field(default_factory=dict)
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    blocking_failed: bool = False
    silent: dict[str, list[str]] = field(default_factory=dict)

    def take(self, feature: str, rule: Rule, found: Comparison | str) -> None:
        """What is said of one feature; a text says why nothing can be said."""
        self.judged += 1
        self.blocks = self.blocks or rule.blocks
        if isinstance(found, str):
            self.silent.setdefault(found, []).append(feature)
            return
        self.observed[feature] = float(f"{found.observed:.3g}")
        if found.told:
            self.fail(feature, rule, found.to_json())

    def fail(self, feature: str, rule: Rule, detail: dict[str, Any]) -> None:
        self.failed[feature] = detail
        self.blocking_failed = self.blocking_failed or rule.blocks

    def outcome(self, batch: Batch, check: str) -> CheckOutcome:
        """All of it as one verdict; a failure blocks if the rule of a feature that failed does."""
        worst = max(self.observed.values(), default=0.0)
        detail: dict[str, Any] = {"features": self.judged, "observed_value": worst, "observed": self.observed}
        detail |= {name: value for name, value in (("failed", self.failed), ("silent", self.silent)) if value}
        return CheckOutcome(
            batch_id=batch.batch_id,
            check=check,
            kind="profile",
            passed=not self.failed,
            blocking=self.blocking_failed if self.failed else self.blocks,
            detail=detail,
        )


def _missing(feature: str, rule: Rule, batch: BatchProfile, others: Sequence[BatchProfile]) -> Comparison | str:
    share = batch.missing_share(feature)
    if share is None:
        return "no rows"
    if nans := batch.features[feature].nans:
        # as for expectations: NaN is no value, and the way to say so is NULL
        reason = f"{nans} NaN: write NULL where there is no value"
        return Comparison(observed=share, usual=0.0, allowed=0.0, told=True, reason=reason)
    shares = [other for one in others if (other := one.missing_share(feature)) is not None]
    if len(shares) < rule.reference.at_least:
        return _too_few(len(shares), rule)
    return compare_missing(share, shares, rule.tolerance, rows=batch.row_count)


def _moved(feature: str, rule: Rule, batch: BatchProfile, others: Sequence[BatchProfile]) -> Comparison | str:
    if batch.row_count < DRIFT_FROM_ROWS:
        return f"fewer than {DRIFT_FROM_ROWS} rows"
    known = [one.features[feature] for one in others if feature in one.features and one.row_count >= DRIFT_FROM_ROWS]
    if len(known) < rule.reference.at_least:
        return _too_few(len(known), rule)
    found = compare_distribution(batch.features[feature], known, rule.tolerance, rows=batch.row_count)
    return found or "always the same value, or none"


def _too_few(found: int, rule: Rule) -> str:
    return f"{found} earlier batches, {rule.reference.at_least} needed"


def _no_set(rule: Rule) -> str:
    return f"no training set {rule.reference.training_set} is kept: nothing to compare with"
