"""Orchestration: Dagster's definitions, built by factories from the registry.

Rule: no definitions at module level, no environment read at import. What a run does is in the rooms below; here it is
only named, placed in time and shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feature_platform.orchestration.definitions import build_definitions

__all__ = ["build_definitions"]


def __getattr__(name: str) -> Any:
    """Load Dagster (three seconds) only for whoever builds definitions; commands use `names` alone."""
    if name != "build_definitions":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from feature_platform.orchestration import definitions

    return definitions.build_definitions
