"""The reference project's data: the flights out of New York in 2013, replayed so that they happen now.

Rule: a row exists in the lake only once it could have been known and reported (`ingested_at <= now`). All instants are
moved by one whole number of weeks, fixed once (`clock`); what each instant means is in `transform`.

    prepare(settings)                                        # once, before the first deploy: the empty source tables
    load_source(lake, ledger, "flights", home=…, through=…)  # as often as wanted: what arrived since
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feature_platform.reference.clock import ReferenceClock, fix_clock
    from feature_platform.reference.load import SourceLoaded, load_source, prepare
    from feature_platform.reference.transform import SOURCES, ReferenceSource

_DOORS = {
    "ReferenceClock": "clock",
    "fix_clock": "clock",
    "SourceLoaded": "load",
    "load_source": "load",
    "prepare": "load",
    "SOURCES": "transform",
    "ReferenceSource": "transform",
}

__all__ = ["SOURCES", "ReferenceClock", "ReferenceSource", "SourceLoaded", "fix_clock", "load_source", "prepare"]


def __getattr__(name: str) -> Any:
    """Load what is asked for: Dagster's definitions need `assets` alone, without DuckDB and psycopg2."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_DOORS[name]}"), name)
