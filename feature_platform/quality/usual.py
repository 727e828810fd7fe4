"""What is usual: one batch beside earlier ones. Pure numbers, no input or output.

A change is told if it is larger than `tolerance`, and twice as large as the greatest change among the earlier batches
themselves, each measured from their median. Small batches vary by chance alone, so `tolerance` counts for them
`1 + 10 / √rows` times: 2 times at 100 rows, 1.1 times at 10,000.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from feature_platform.domain.profile import QUANTILES, FeatureProfile

TIMES_THE_GREATEST = 2.0
DRIFT_FROM_ROWS = 10
"""Fewer rows have no distribution to speak of."""

_INNER = range(QUANTILES.index(0.05), QUANTILES.index(0.95) + 1)
"""The quantiles that are compared: extremes are what outliers make of them."""
_MOSTLY = 0.9
_SPAN = QUANTILES[_INNER[-1]] - QUANTILES[_INNER[0]]


def _quantile_weights() -> tuple[float, ...]:
    """The share of the distribution that each inner quantile stands for."""
    points = [QUANTILES[place] for place in _INNER]
    gaps = [later - earlier for earlier, later in itertools.pairwise(points)]
    return tuple((left + right) / 2 / _SPAN for left, right in zip([0.0, *gaps], [*gaps, 0.0], strict=True))


_WEIGHTS = _quantile_weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One number of a batch, what is usual, and how far from that it may be."""

    observed: float
    usual: float
    allowed: float
    """The greatest distance from `usual` that is not told."""
    told: bool
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the ledger."""
        content: dict[str, Any] = {name: _short(getattr(self, name)) for name in ("observed", "usual", "allowed")}
        return content | ({"reason": self.reason} if self.reason else {})


def compare_volume(rows: int, earlier: Sequence[int], tolerance: float) -> Comparison:
    """Rows of a batch beside those of earlier ones, in either direction; `tolerance` is a share of what is usual.

    >>> compare_volume(40, [100, 102, 98, 101], 0.5).told, compare_volume(40, [100, 102, 30, 101], 0.5).told
    (True, False)
    """
    usual = float(median(earlier))
    # the last: what chance does to a count
    allowed = max(tolerance * usual, _greatest(earlier, usual), 3 * math.sqrt(usual))
    emptied = rows == 0 and min(earlier) > 0
    return Comparison(
        observed=rows,
        usual=usual,
        allowed=allowed,
        told=emptied or abs(rows - usual) > allowed,
        reason="empty, and none of the earlier batches was" if emptied else "",
    )


def compare_missing(share: float, earlier: Sequence[float], tolerance: float, *, rows: int) -> Comparison:
    """The share of rows without a value; only more than usual is told. `tolerance` is a share of the rows.

    >>> compare_missing(0.3, [0.0, 0.01, 0.0, 0.02], 0.1, rows=1000).told
    True
    """
    usual = median(earlier)
    allowed = max(tolerance * _by_chance(rows), _greatest(earlier, usual))
    return Comparison(observed=share, usual=usual, allowed=allowed, told=share > usual + allowed)


def compare_distribution(
    profile: FeatureProfile, earlier: Sequence[FeatureProfile], tolerance: float, *, rows: int
) -> Comparison | None:
    """How far values have moved, as a share of the range in which nine tenths of them usually lie; None: not judged.

    Numbers are compared by their quantiles (the mean distance, Wasserstein's, between 5 % and 95 %), texts by the share
    that lies in another hash bucket, booleans by their share of true.
    """
    now = _shape(profile)
    shapes = [shape for one in earlier if (shape := _shape(one)) is not None and now and len(shape) == len(now)]
    if not now or not shapes:
        return None
    usual = [sorted(column)[len(shapes) // 2] for column in zip(*shapes, strict=True)]
    extent = usual[-1] - usual[0] if profile.quantiles else 1.0
    if extent <= 0:
        return None
    weights = _WEIGHTS if profile.quantiles else (0.5,) * len(now) if len(now) > 1 else (1.0,)

    def moved(shape: Sequence[float]) -> float:
        return math.fsum(w * abs(a - b) for w, a, b in zip(weights, shape, usual, strict=True)) / extent

    observed = moved(now)
    allowed = max(tolerance * _by_chance(rows), TIMES_THE_GREATEST * max(map(moved, shapes)))
    collapsed = _is_one_value(profile) and _is_mixed(usual) and not any(map(_is_one_value, earlier))
    return Comparison(
        observed=observed,
        usual=0.0,
        allowed=allowed,
        told=collapsed or observed > allowed,
        reason="nine tenths of the values are alike, and in no earlier batch were they" if collapsed else "",
    )


def _shape(profile: FeatureProfile) -> tuple[float, ...] | None:
    """What of a profile is compared."""
    if profile.quantiles:
        return tuple(profile.quantiles[place] for place in _INNER)
    if profile.buckets:
        total = sum(profile.buckets)
        return tuple(count / total for count in profile.buckets)
    return None if profile.mean is None else (profile.mean,)


def _is_one_value(profile: FeatureProfile) -> bool:
    if profile.quantiles:
        return profile.quantiles[_INNER[0]] == profile.quantiles[_INNER[-1]]
    return profile.distinct == 1


def _is_mixed(usual: Sequence[float]) -> bool:
    """Whether one value alone would be strange: a share that is usually 0.2 % is 0 by chance, now and then."""
    if len(usual) == len(_INNER):
        return all(lower < higher for lower, higher in itertools.pairwise(usual))
    return max(usual) <= _MOSTLY and (len(usual) > 1 or usual[0] >= 1 - _MOSTLY)


def _greatest(earlier: Sequence[float], usual: float) -> float:
    return TIMES_THE_GREATEST * max(abs(one - usual) for one in earlier)


def _by_chance(rows: int) -> float:
    return 1 + 10 / math.sqrt(rows)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
