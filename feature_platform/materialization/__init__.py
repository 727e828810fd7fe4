"""Materialization: open → dbt → audit → publish, and deploy. Knows dbt, does not know Dagster.

Rule: importing this package imports neither dbt nor Great Expectations; the first run does.
"""

from __future__ import annotations

from feature_platform.materialization.deploy import DeployResult, deploy
from feature_platform.materialization.materialize import materialize
from feature_platform.materialization.result import BatchResult, MaterializationResult, OnEvent, RunEvent, Step

__all__ = [
    "BatchResult",
    "DeployResult",
    "MaterializationResult",
    "OnEvent",
    "RunEvent",
    "Step",
    "deploy",
    "materialize",
]
