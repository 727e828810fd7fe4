"""A declared training set: the labels of a feature service, and how its features are joined to them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_platform.domain.feature_service import FeatureService


class Mode(enum.StrEnum):
    """How "what would have been seen at the label's time" is decided; DESIGN section 2."""

    AUTO = "auto"
    """Served where the view was live at the label's time, modelled before."""
    SERVED = "served"
    """What the online store held."""
    MODELLED = "modelled"
    """What would have been seen, had the view been live."""


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
