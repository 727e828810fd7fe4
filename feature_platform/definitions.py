"""The code location: what `workspace.yaml` points at.

Everything is built from the manifest of the last deploy, when Dagster asks for it. If the declarations are wrong or
nothing is deployed, the location does not load, and the error says every reason and what to do.
"""

from __future__ import annotations

import warnings

import dagster as dg

from feature_platform.declaration import parse_manifest
from feature_platform.declaration.lineage import load_lineage
from feature_platform.declaration.manifest import load_manifest
from feature_platform.orchestration import build_definitions
from feature_platform.orchestration.warm_workers import warm_workers
from feature_platform.reference.assets import build_reference_sources
from feature_platform.settings import Settings


@dg.definitions
def defs() -> dg.Definitions:
    """All definitions of the deployed project."""
    settings = Settings.from_env()
    manifest = load_manifest(settings.manifest_path)
    registry = parse_manifest(manifest)
    warm_workers(expectations=any(view.expectations for view in registry.views.values()))
    with warnings.catch_warnings():
        # Dagster's version is pinned exactly; its notes on beta parameters would head the log of every run
        warnings.simplefilter("ignore", dg.BetaWarning)
        sources = build_reference_sources(settings, registry)
        return build_definitions(
            settings, registry, manifest, sources=sources, lineage=load_lineage(settings.manifest_path)
        )
