"""Views whose last leakage audit found a leak: as problems, for the watch.

Rule: level, not edge. A leak is told until an audit of the view finds none. An audit that is under way, or that failed
(its run tells so), says nothing for or against the one before; a verdict of *unknown* is a warning on the check alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status

from feature_platform.declaration import FeatureRegistry
from feature_platform.orchestration import keys
from feature_platform.orchestration.auditing import CHECK

if TYPE_CHECKING:
    from feature_platform.observability import Problem

_SAID = {Status.SUCCEEDED, Status.FAILED}


def find_leaks(instance: dg.DagsterInstance, registry: FeatureRegistry) -> Iterator[Problem]:
    """One problem per view of which the last audit that came to an end found that it leaks."""
    from feature_platform.observability import problem_of_view

    for view in registry.views.values():
        check = dg.AssetCheckKey(keys.audit_key(view), CHECK)
        said = instance.event_log_storage.get_asset_check_execution_history(check, limit=1, status=_SAID)
        evaluation = said[0].evaluation if said else None
        if evaluation is None or evaluation.passed or evaluation.severity is not dg.AssetCheckSeverity.ERROR:
            continue
        again = evaluation.metadata.get("again")
        yield problem_of_view(
            "leaks",
            view,
            registry,
            severity="error",
            message=f"{view.key} {evaluation.description}: rows change when facts from after their event_timestamp are"
            " taken away" + (f" ({again.value} shows them)" if again else ""),
        )
