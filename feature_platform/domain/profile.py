"""A profile: what the values of a batch look like, small enough to keep for ever.

Rule: later batches are compared with profiles, never with rows. A profile holds no value of a text unless the
declaration asks for it (`top_values`): values may be personal data, counts and shares are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Where the quantiles of a feature's profile lie."""
BUCKETS = 16
"""Texts are counted by hash into so many buckets: a shift of what they say shows, the values do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureProfile:
    """One feature in one batch. What a type does not have is None or empty."""

    nulls: int
    nans: int = 0
    """NaN; those and infinities are in none of the statistics below."""
    distinct: int | None = None
    """An estimate, NULL not counted."""
    minimum: float | str | None = None
    """A number, or an instant or date in ISO form; of a list, its shortest length."""
    maximum: float | str | None = None
    mean: float | None = None
    """Of a boolean, the share of true."""
    quantiles: tuple[float, ...] = ()
    """At `QUANTILES`; estimates for batches of more than some hundred rows."""
    buckets: tuple[int, ...] = ()
    """Of texts: values per hash bucket."""
    top: tuple[tuple[str, int], ...] = ()
    """The most frequent values and how often each comes, where the declaration asks for them."""

    def to_json(self) -> dict[str, Any]:
        """Without what the type does not have."""
        content: dict[str, Any] = {
            "nulls": self.nulls,
            "nans": self.nans or None,
            "distinct": self.distinct,
            "min": self.minimum,
            "max": self.maximum,
            "mean": self.mean,
            "quantiles": self.quantiles or None,
            "buckets": self.buckets or None,
            "top": self.top or None,
        }
        return {name: value for name, value in content.items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FeatureProfile:
        """Back from what `to_json` wrote; keys it does not know are left out.

        >>> one = FeatureProfile(nulls=2, minimum=1.0, quantiles=(1.0, 2.0), top=(("a", 3),))
        >>> FeatureProfile.from_json(one.to_json()) == one
        True
        """
        return cls(
            nulls=content["nulls"],
            nans=content.get("nans", 0),
            distinct=content.get("distinct"),
            minimum=content.get("min"),
            maximum=content.get("max"),
            mean=content.get("mean"),
            quantiles=tuple(content.get("quantiles", ())),
            buckets=tuple(content.get("buckets", ())),
            top=tuple((str(value), int(count)) for value, count in content.get("top", ())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProfile:
    """All features of one batch."""

    batch_id: str
    row_count: int
    features: Mapping[str, FeatureProfile] = field(default_factory=dict)
    key_nulls: Mapping[str, int] = field(default_factory=dict)
    first_event: datetime | None = None
    last_event: datetime | None = None
    """The least and greatest `event_timestamp`; None without rows."""

    def missing_share(self, feature: str) -> float | None:
        """The share of rows without a value, NaN counted as none; None if that is not known."""
        profile = self.features.get(feature)
        return None if profile is None or not self.row_count else (profile.nulls + profile.nans) / self.row_count
