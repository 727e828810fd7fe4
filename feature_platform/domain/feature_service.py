"""A feature service: a dbt exposure of type `ml`, the features one model is given and what it needs of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # the online client loads services but not views, and pays for what it imports
    from feature_platform.domain.feature_view import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSelection:
    """Features of one view, in the order in which they are returned."""

    view: str
    version: int
    features: tuple[str, ...]

    @property
    def key(self) -> str:
        """`name@version` of the view."""
        return f"{self.view}@{self.version}"


class OutagePolicy(enum.StrEnum):
    """What a model's caller does while the online store is lost, for training sets that replay an outage."""

    NULL = "null"
    """It is given nothing."""
    STALE = "stale"
    """It goes on with the last values from before, until they reach their ttl."""
    EXCLUDE = "exclude"
    """It makes no prediction, so there is no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureService:
    """What one model reads, who owns that model, and the needs it declares."""

    name: str
    description: str
    owner: Owner
    selections: tuple[ViewSelection, ...]
    latency_budget: timedelta | None
    batch_size: int | None
    """Entities the service asks for in one request, as declared."""
    freshness: timedelta | None
    """Oldest value the service can use, as declared."""
    unique_id: str
    path: str
    outage: OutagePolicy = OutagePolicy.NULL
