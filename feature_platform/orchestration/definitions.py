"""All of Dagster's definitions of a project, from its registry.

Rule: building them reads what the last deploy wrote and imports Dagster, nothing else: no dbt, DuckDB, pandas, Great
Expectations and no connection. Every run of the local stack builds them again in a new process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.declaration.lineage import ColumnLineage
from feature_platform.orchestration import keys
from feature_platform.orchestration.auditing import (
    build_audit_asset,
    build_audit_job,
    build_audit_schedule,
    build_audit_sensor,
)
from feature_platform.orchestration.canary import build_canary_sensor
from feature_platform.orchestration.consumers import build_exposures, build_services
from feature_platform.orchestration.feature_log import build_feature_log, build_feature_log_schedule
from feature_platform.orchestration.feature_views import build_feature_view
from feature_platform.orchestration.freshness import build_freshness_sensor
from feature_platform.orchestration.late_data import build_look_job, build_look_sensor, build_recompute_sensor
from feature_platform.orchestration.maintenance import (
    build_maintenance,
    build_maintenance_job,
    build_maintenance_schedule,
)
from feature_platform.orchestration.missing import build_missing_sensor
from feature_platform.orchestration.parity import build_parity_asset, build_parity_job, build_parity_schedule
from feature_platform.orchestration.pushes import build_pushed_asset, build_pushes_schedule, pushable_views
from feature_platform.orchestration.schedules import build_schedules
from feature_platform.orchestration.sensors import build_incident_sensor, build_store_sensor
from feature_platform.orchestration.serving import build_online_asset, build_sync_sensor
from feature_platform.orchestration.training_sets import build_training_set, build_training_set_job
from feature_platform.settings import Settings


def build_definitions(
    settings: Settings,
    registry: FeatureRegistry,
    manifest: Mapping[str, Any],
    *,
    sources: dg.Definitions | None = None,
    lineage: Mapping[str, ColumnLineage] = MappingProxyType({}),
) -> dg.Definitions:
    """Everything Dagster shows and runs of a project.

    Args:
        settings: addresses, for the runs.
        registry: the declarations.
        manifest: dbt's manifest, for the names of data tests and for consumers that are no feature services.
        sources: assets (and schedules) that load the sources. Without them sources are external assets.
        lineage: which source columns features are computed from, by view key.
    """
    audit_job, parity_job = build_audit_job(registry), build_parity_job(registry)
    maintenance_job = build_maintenance_job()
    is_served = bool(registry.served_views)
    look_job = build_look_job(settings, registry)
    own = dg.Definitions(
        assets=[
            *(
                build_feature_view(settings, registry, view, manifest, lineage=lineage.get(key))
                for key, view in registry.views.items()
            ),
            *(build_online_asset(settings, registry, view) for view in registry.served_views),
            *(build_parity_asset(settings, registry, view) for view in registry.served_views),
            *(build_audit_asset(settings, view) for view in registry.views.values()),
            *([build_feature_log(settings, registry)] if is_served else []),
            *(build_pushed_asset(settings, registry, view) for view in pushable_views(registry)),
            *(build_training_set(settings, registry, declared) for declared in registry.training_sets.values()),
            build_maintenance(settings, registry),
            *build_services(registry),
            *build_exposures(registry, manifest),
        ],
        jobs=[
            look_job,
            audit_job,
            parity_job,
            maintenance_job,
            *(build_training_set_job(declared) for declared in registry.training_sets.values()),
        ],
        schedules=[
            *build_schedules(registry),
            build_audit_schedule(audit_job),
            build_parity_schedule(parity_job),
            build_maintenance_schedule(maintenance_job),
            *([build_feature_log_schedule(settings)] if is_served else []),
            *([build_pushes_schedule(settings, registry)] if pushable_views(registry) else []),
        ],
        sensors=[
            build_sync_sensor(registry),
            build_incident_sensor(settings, registry),
            build_freshness_sensor(settings, registry),
            build_store_sensor(settings, registry),
            *([build_canary_sensor(settings, registry)] if is_served else []),
            build_look_sensor(settings, registry, look_job),
            build_recompute_sensor(settings, registry),
            build_missing_sensor(settings, registry),
            build_audit_sensor(settings, registry, audit_job),
        ],
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(own, sources or dg.Definitions(assets=list(external_sources(registry))))


def external_sources(registry: FeatureRegistry) -> Iterator[dg.AssetSpec]:
    """The sources as assets that something else loads."""
    for source in registry.sources.values():
        yield dg.AssetSpec(keys.source_key(source), group_name="sources")
