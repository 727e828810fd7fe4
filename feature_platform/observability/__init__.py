"""Observability: is the data that is served fresh, is anything left undone, and who is told.

Rule: judged by the ledger's facts and a clock, so it speaks even if nothing ever runs again.
"""

from __future__ import annotations

from feature_platform.observability.canaries import CanaryState, canary_states, find_dead_canaries
from feature_platform.observability.canaries import said_of as said_of_canary
from feature_platform.observability.clocks import find_wrong_clocks
from feature_platform.observability.freshness import Freshness, FreshnessState, ServedFacts, judge_freshness
from feature_platform.observability.frontiers import Frontiers, frontiers_of
from feature_platform.observability.incidents import WATCH, WatchReport, watch
from feature_platform.observability.kinds import KINDS, Problem, known_to_watch, problem_of_platform, problem_of_view
from feature_platform.observability.missing import cut_off_partitions, loaded_for, missing_partitions
from feature_platform.observability.problems import all_problems, find_problems, freshness_of, freshness_of_view
from feature_platform.observability.stores import StoreReport, find_unreachable, look_at_store

__all__ = [
    "KINDS",
    "WATCH",
    "CanaryState",
    "Freshness",
    "FreshnessState",
    "Frontiers",
    "Problem",
    "ServedFacts",
    "StoreReport",
    "WatchReport",
    "all_problems",
    "canary_states",
    "cut_off_partitions",
    "find_dead_canaries",
    "find_problems",
    "find_unreachable",
    "find_wrong_clocks",
    "freshness_of",
    "freshness_of_view",
    "frontiers_of",
    "judge_freshness",
    "known_to_watch",
    "loaded_for",
    "look_at_store",
    "missing_partitions",
    "problem_of_platform",
    "problem_of_view",
    "said_of_canary",
    "watch",
]
