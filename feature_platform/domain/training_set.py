"""A declared training set: the labels of a feature service, and how its features are joined to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_platform.domain.feature_service import FeatureService

MODES = ("auto", "served", "modelled")
"""What may count as seen at a label's time; `offline.point_in_time.Mode` says what they mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTrainingSet:
    """What an exposure's `meta.training_sets` declares under one name; each time it is made, a version is kept."""

    name: str
    description: str
    service: FeatureService
    labels: tuple[str, str]
    """Schema and name of the labels' view in the lake."""
    labels_id: str
    """dbt's unique id of the model that selects the labels."""
    source_ids: tuple[str, ...]
    """dbt's unique ids of the sources that the labels are selected from."""
    arguments: Mapping[str, Any]
    """Arguments of `get_historical_features` as declared; what is not declared keeps its default."""
