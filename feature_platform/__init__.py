"""A Dagster-orchestrated feature platform.

This module imports nothing, so that a serving process pays only for the part it uses:
`feature_platform.online` to read features, `feature_platform.offline` to build training sets.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
