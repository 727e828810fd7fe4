"""A feature service: a dbt exposure of type `ml`, the features one model is given and what it needs of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

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


class Remedy(enum.StrEnum):
    """What a request does about a value that is stale, expired or missing."""

    FLAG = "flag"
    """Serve what there is (a stale value, or None), and say so in the status."""
    DEFAULT = "default"
    """Serve the declared default in its place, or None where none is declared; the status says so."""
    RAISE = "raise"
    """Refuse the whole request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPolicy:
    """What a service wants done about values that are not fresh."""

    stale: Remedy = Remedy.FLAG
    expired: Remedy = Remedy.FLAG
    missing: Remedy = Remedy.FLAG
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    """Per view (`name@version`) and feature the value that stands in, as YAML and JSON have it
    (`domain.defaults.parse_default`)."""


FLAG_ALL = ServingPolicy()


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
    policy: ServingPolicy = FLAG_ALL
