"""Orchestration: Dagster's definitions, built by factories from the registry.

Rule: no definitions at module level, no environment read at import. What a run does is in the rooms below; here it is
only named, placed in time and shown.
"""

from __future__ import annotations

from feature_platform.orchestration.definitions import build_definitions

__all__ = ["build_definitions"]
