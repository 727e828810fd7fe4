"""One asset per dbt exposure: who reads features, downstream of exactly what is read.

Rule: nothing runs here. A feature service (type `ml`) hangs on the rows it is served and on its training sets; any
other consumer, as a dashboard, on the feature views and sources it names, through the models in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_service import FeatureService
from feature_platform.orchestration import keys, metadata

_SERVICE = "ml"


def build_services(registry: FeatureRegistry) -> Iterator[dg.AssetSpec]:
    """The feature services: each with the features that its model is given."""
    served = {view.key for view in registry.served_views}
    for service in registry.services.values():
        views = [registry.views[one.key] for one in service.selections]
        yield dg.AssetSpec(
            keys.service_key(service),
            description=service.description,
            deps=[
                *(keys.online_key(view) if view.key in served else keys.view_key(view) for view in views),
                *(keys.training_set_key(one) for one in registry.training_sets.values() if one.service == service),
            ],
            group_name="services",
            owners=metadata.owners(service.owner),
            kinds={_SERVICE},
            metadata=metadata.service_metadata(service) | _given(registry, service),
        )


def _given(registry: FeatureRegistry, service: FeatureService) -> dict[str, Any]:
    """The features of a service as columns, under their references, each from the one of its view."""
    chosen = [
        (registry.views[one.key], column)
        for one in service.selections
        for column in registry.views[one.key].features
        if column.name in one.features
    ]
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(f"{view.key}:{column.name}", column.type.value.lower(), column.description)
                for view, column in chosen
            ]
        ),
        "dagster/column_lineage": dg.TableColumnLineage(
            {
                f"{view.key}:{column.name}": [dg.TableColumnDep(asset_key=keys.view_key(view), column_name=column.name)]
                for view, column in chosen
            }
        ),
    }


def build_exposures(registry: FeatureRegistry, manifest: Mapping[str, Any]) -> Iterator[dg.AssetSpec]:
    """The exposures of other types."""
    for _, exposure in sorted(manifest.get("exposures", {}).items()):
        if exposure["type"] == _SERVICE:
            continue
        facts = {"type": exposure["type"], "maturity": exposure.get("maturity"), "file": exposure["original_file_path"]}
        if url := exposure.get("url"):
            facts["url"] = dg.MetadataValue.url(url)
        email = (exposure.get("owner") or {}).get("email")
        yield dg.AssetSpec(
            keys.exposure_key(exposure["name"]),
            description=exposure.get("description") or exposure.get("label"),
            deps=_reads(registry, manifest, exposure),
            group_name="exposures",
            owners=[email] if isinstance(email, str) and "@" in email else [],
            kinds={exposure["type"]},
            metadata={name: value for name, value in facts.items() if value},
        )


def _reads(registry: FeatureRegistry, manifest: Mapping[str, Any], node: Mapping[str, Any]) -> list[dg.AssetKey]:
    """The nearest assets upstream of a node of dbt."""
    views = {view.unique_id: view for view in registry.views.values()}
    found: dict[dg.AssetKey, None] = {}
    waiting, seen = [*node.get("depends_on", {}).get("nodes", ())], set()
    while waiting:
        unique_id = waiting.pop()
        if unique_id in seen:
            continue
        seen.add(unique_id)
        if unique_id in views:
            found[keys.view_key(views[unique_id])] = None
        elif unique_id in manifest.get("sources", {}):
            found[keys.source_key_of(unique_id)] = None
        else:
            waiting += manifest["nodes"].get(unique_id, {}).get("depends_on", {}).get("nodes", ())
    return sorted(found)
