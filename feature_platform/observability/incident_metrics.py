"""What the watch has open, as a metric: for those who are told by Prometheus and not by the sensor's routes.

Rule: an incident that is over is told as 0 for longer than any rule looks back. A series that merely ends is what a
dead exporter leaves, too, and a rule cannot tell the two apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from prometheus_client import Metric

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import Owner
from feature_platform.ledger import Incident, Ledger
from feature_platform.observability.families import gauge

TOLD_AFTER_ITS_END: Final = timedelta(hours=7)
"""The rules look back six."""

_LEVELS: Final = {"warn": 1, "error": 2}
_STORE = re.compile(r"(?:^| in )store (\S+)")


def incident_metric(ledger: Ledger, registry: FeatureRegistry) -> Metric:
    """Every incident that is open, or was until lately."""
    levels: dict[tuple[str, ...], int] = {}
    names = _names(registry)
    for incident in ledger.incidents(resolved_within=TOLD_AFTER_ITS_END):
        labels = _labels(incident, registry, names)
        level = 0 if incident.resolved_at else _LEVELS[incident.severity]
        levels[labels] = max(level, levels.get(labels, 0))
    return gauge(
        "incident_level",
        "2 for an incident that is an error, 1 for a warning, 0 for some hours after its end",
        ("kind", "subject", "view", "store", "owner"),
        levels.items(),
    )


def _labels(incident: Incident, registry: FeatureRegistry, names: dict[str, str]) -> tuple[str, ...]:
    view = registry.views.get(incident.view)
    store = _STORE.search(incident.subject)
    owner = names.get(incident.owner, incident.owner)
    if view is not None and incident.owner in (view.owner.email, view.owner.name):
        owner = view.owner.name  # two groups may share an address
    return (incident.kind, incident.subject, view.key if view else "", store[1] if store else "", owner)


def _names(registry: FeatureRegistry) -> dict[str, str]:
    """Names of owners by their address: the ledger keeps the address, and routes of Alertmanager go by the name."""
    owners: Iterable[Owner] = (
        *(service.owner for service in registry.services.values()),
        *(view.owner for view in registry.views.values()),
        registry.platform,
    )
    return {owner.email: owner.name for owner in owners if owner.email}
