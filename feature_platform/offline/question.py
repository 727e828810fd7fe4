"""What is asked of one view, and what the ledger says of it.

Rule: everything that decides which rows a label sees is here, as values, before a row is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_service import OutagePolicy
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.serving_history import ServedHistory
from feature_platform.domain.training_set import Mode
from feature_platform.ledger import Acknowledged
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.labels import Labels
from feature_platform.offline.modes import Outages


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the ledger says of a view, as of one sequence."""

    active: tuple[PublishedBatch, ...]
    published: tuple[PublishedBatch, ...] = ()
    """All, superseded ones included; only if the view's history is given."""
    history: ServedHistory | None = None
    """Of the view in the store that is asked about; None: all of it is modelled."""
    acknowledged: tuple[Acknowledged, ...] | None = None
    """When that store had each push, if the view takes any and its history is given."""
    sequence: int = 0
    """The ledger sequence that all of this is as of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of one view."""

    view: FeatureView
    features: tuple[str, ...]
    labels: Labels
    timestamp_column: str
    mode: Mode
    plan: pit.Plan | None
    answer: str
    """Name of the table to make."""
    has_origins: bool
    """Whether the answer must be able to say where its values come from."""
    outages: Outages | None = None
    outage_policy: OutagePolicy = OutagePolicy.NULL
