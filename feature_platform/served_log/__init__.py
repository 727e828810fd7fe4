"""The log of served features: from the online store into the lake, and compared with what the lake says of it.

Rule: what a client logged is evidence and is kept as it came; nothing here corrects it.
"""

from __future__ import annotations

from feature_platform.served_log.draining import DrainResult, drain, drain_stores
from feature_platform.served_log.skew import SkewReport, measure_skew

__all__ = ["DrainResult", "SkewReport", "drain", "drain_stores", "measure_skew"]
