"""Kept training sets: made once, never changed, made again byte by byte, compared, explained.

Rule: nobody calls what is here but through the methods of `FeatureStore` (`doors`).
"""

from __future__ import annotations

from feature_platform.offline.sets.kept import TrainingSet
from feature_platform.offline.sets.manifest import Manifest
from feature_platform.offline.sets.reproducing import Reproduction, Verdict

__all__ = ["Manifest", "Reproduction", "TrainingSet", "Verdict"]
