"""What dbt says when a run fails → the platform's errors."""

from __future__ import annotations

import re
from pathlib import Path

from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import (
    BatchRejectedError,
    ComputationError,
    FeaturePlatformError,
    NotDeployedError,
)
from feature_platform.lake.failures import known_failure
from feature_platform.materialization.dbt_run import Invocation

# what the package's macros raise begins like this (feature_platform/dbt)
_REJECTED = re.compile(r"feature_platform: batch rejected: (.*)", re.DOTALL)
_NOT_DEPLOYED = re.compile(r"feature_platform: not deployed: (.*)", re.DOTALL)


def explain(view: FeatureView, outcome: Invocation, directory: Path) -> FeaturePlatformError:
    """The error that a failed invocation of dbt amounts to."""
    failed = next((result for result in outcome.results if result.status not in {"success", "pass", "warn"}), None)
    message = (failed.message if failed else "") or "\n".join(outcome.errors) or "dbt gave no reason"
    message = message.partition("\nTraceback (most recent call last)")[0].strip()  # frames of dbt's own code
    hint = f"the SQL as dbt ran it: {failed.compiled_path}" if failed and failed.compiled_path else f"see {directory}"
    if match := _NOT_DEPLOYED.search(message):
        return NotDeployedError(f"{view.key} is not deployed", found=match[1], hint="run `feature-platform deploy`")
    if match := _REJECTED.search(message):
        return BatchRejectedError(f"the rows of {view.key} were rejected", found=match[1], hint=hint)
    if "enforced contract that failed" in message:
        return BatchRejectedError(
            f"{view.key} returns other columns than its contract says", found=message, hint=f"correct {view.sql_path}"
        )
    if known := known_failure(message, doing=f"computing {view.key}"):
        return known
    return ComputationError(f"the SQL of {view.key} failed", found=message, hint=hint)
