"""Kept training sets: made once, never changed, made again byte by byte, compared, explained.

The doors are methods of `FeatureStore`: `create_training_set`, `training_set`, `reproduce_training_set`,
`diff_training_sets`, `explain_training_set`.
"""

from __future__ import annotations

from feature_platform.offline.sets.creating import create_training_set
from feature_platform.offline.sets.files import SetFiles
from feature_platform.offline.sets.kept import TrainingSet
from feature_platform.offline.sets.manifest import Manifest, parse_name

__all__ = ["Manifest", "SetFiles", "TrainingSet", "create_training_set", "parse_name"]
