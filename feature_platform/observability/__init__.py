"""Observability: is the data that is served fresh, is anything left undone, and who is told.

Rule: judged by the ledger's facts and a clock, so it speaks even if nothing ever runs again.
"""

from __future__ import annotations

from feature_platform.observability.freshness import Freshness, FreshnessState, ServedFacts, judge_freshness
from feature_platform.observability.incidents import WatchReport, watch
from feature_platform.observability.problems import Problem, find_problems, freshness_of
from feature_platform.observability.stores import StoreReport, look_at_store

__all__ = [
    "Freshness",
    "FreshnessState",
    "Problem",
    "ServedFacts",
    "StoreReport",
    "WatchReport",
    "find_problems",
    "freshness_of",
    "judge_freshness",
    "look_at_store",
    "watch",
]
