"""Leakage audit: does a feature row use facts that were not knowable, or had not arrived, at its `event_timestamp`?

Rule: a view is judged by what happens to its rows when the future is taken away from its sources, never by reading its
SQL and approving of it. What cannot be tried that way is *unknown*, and unknown is not clean.
"""

from __future__ import annotations

from feature_platform.audit.leakage import audit_view
from feature_platform.audit.report import Arrival, Example, FeatureAudit, LeakageReport, Unknown, Verdict

__all__ = ["Arrival", "Example", "FeatureAudit", "LeakageReport", "Unknown", "Verdict", "audit_view"]
