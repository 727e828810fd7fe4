"""The online store: what lies in Valkey, and the client that reads it.

Rule: light. Standard library, libvalkey, domain, settings and errors, nothing else, so that a serving process pays
for what it uses.
"""

from feature_platform.online.client import FeatureClient
from feature_platform.online.feature_log import FeatureLog, LogCounts, LogSettings
from feature_platform.online.result import OnlineFeatures, OnlineRow
from feature_platform.online.view_values import FeatureStatus, ViewReading

__all__ = [
    "FeatureClient",
    "FeatureLog",
    "FeatureStatus",
    "LogCounts",
    "LogSettings",
    "OnlineFeatures",
    "OnlineRow",
    "ViewReading",
]
