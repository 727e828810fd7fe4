"""The offline store: point-in-time correct training sets, and SQL over published features.

from feature_platform.offline import FeatureStore
FeatureStore.from_env().get_historical_features(labels, "departure_delay").to_parquet("training.parquet")
"""

from __future__ import annotations

from feature_platform.offline.sets import TrainingSet
from feature_platform.offline.store import FeatureStore
from feature_platform.offline.training_set import HistoricalFeatures

__all__ = ["FeatureStore", "HistoricalFeatures", "TrainingSet"]
