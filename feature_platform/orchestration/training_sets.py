"""One asset per declared training set: each materialization keeps its next version, made of what is published by then.

Rule: it follows nothing by itself. A training set is made when someone is to train on it, by its own job.
"""

# no `from __future__ import annotations` here: Dagster compares the annotation of `context` with its class

from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.training_set import DeclaredTrainingSet
from feature_platform.orchestration import keys, metadata
from feature_platform.orchestration.failing import dagster_failures
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.offline import TrainingSet

GROUP = "training_sets"


def build_training_set(
    settings: Settings, registry: FeatureRegistry, declared: DeclaredTrainingSet
) -> dg.AssetsDefinition:
    """The asset of a declared training set."""
    service = declared.service

    @dg.asset(
        key=keys.training_set_key(declared),
        description=declared.description or f"Labels of {service.name}, with its features as of each label's time.",
        deps=[
            *(keys.view_key(registry.views[one.key]) for one in service.selections),
            *(keys.source_key_of(unique_id) for unique_id in declared.source_ids),
        ],
        group_name=GROUP,
        owners=metadata.owners(service.owner),
        kinds={"duckdb", "parquet"},
        metadata={"service": service.name, "labels": declared.labels_id, **declared.arguments},
        pool=keys.LAKE_POOL,
    )
    def training_set(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        # imported here: it loads DuckDB and pyarrow, which definitions do not need
        from feature_platform.offline import FeatureStore

        with dagster_failures():
            kept = FeatureStore(settings, registry).create_declared_training_set(
                declared.name, created_by=f"Dagster run {context.run.run_id}", progress=context.log.info
            )
        context.log.info(f"kept as {kept.key}: {kept.manifest.row_count} rows, {kept.path}")
        return dg.MaterializeResult(metadata=_facts(kept))

    return training_set


def build_training_set_job(declared: DeclaredTrainingSet) -> Any:
    """The job that makes a training set; nothing else starts it."""
    return dg.define_asset_job(
        f"make_{declared.name}",
        selection=dg.AssetSelection.assets(keys.training_set_key(declared)),
        description=f"Keeps the next version of training set {declared.name}.",
    )


def _facts(kept: "TrainingSet") -> dict[str, Any]:
    """Metadata of one version: its name, what fixes it, and numbers to plot over versions."""
    manifest = kept.manifest
    return {
        "training_set": kept.key,
        "dagster/row_count": manifest.row_count,
        "bytes": manifest.data.bytes,
        "ledger_sequence": manifest.at_sequence,
        "mode": manifest.mode,
        "sha256": manifest.data.sha256,
        "content_hash": manifest.data.content_hash,
        "batches": sum(used.count for used in manifest.batches),
        "null_shares": dg.MetadataValue.json({feature.name: feature.null_share for feature in manifest.features}),
        "path": dg.MetadataValue.path(str(kept.path)),
    }
