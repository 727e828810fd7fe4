"""A manifest → the registry, or every finding at once.

Rule: parsing never stops at a fault; it reports and goes on. A registry exists only if there is no finding at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from feature_platform.declaration import canary
from feature_platform.declaration.findings import Reporter
from feature_platform.declaration.manifest import Manifest, Node, load_manifest, read_manifest
from feature_platform.declaration.owners import parse_groups, parse_platform_owner
from feature_platform.declaration.quality import check_test_names
from feature_platform.declaration.registry import FeatureRegistry
from feature_platform.declaration.services import parse_service
from feature_platform.declaration.singular_tests import check_singular_tests
from feature_platform.declaration.sources import parse_source
from feature_platform.declaration.training_sets import parse_training_sets
from feature_platform.declaration.views import Project, check_undeclared, declared_section, label, parse_view
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.training_set import DeclaredTrainingSet
from feature_platform.errors import InvalidDeclarationsError


def load_registry(manifest_path: Path) -> FeatureRegistry:
    """The registry of a project, from dbt's manifest.

    Raises:
        NotDeployedError: there is no manifest.
        ConfigurationError: it cannot be read, or another version of dbt wrote it.
        InvalidDeclarationsError: declarations are wrong; holds all findings.
    """
    return parse_manifest(load_manifest(manifest_path))


def parse_manifest(content: Mapping[str, Any]) -> FeatureRegistry:
    """The registry of a project, from the content of dbt's manifest.

    Raises:
        ConfigurationError: another version of dbt wrote the manifest.
        InvalidDeclarationsError: declarations are wrong; holds all findings.
    """
    manifest = read_manifest(content)
    reporter = Reporter(file="", node="")
    declared = [model for model in manifest.models if declared_section(model) is not None]
    for model in manifest.models:
        if declared_section(model) is None:
            check_undeclared(model, reporter)
    project = Project(
        manifest=manifest,
        owners=parse_groups(manifest, reporter, frozenset(str(model.get("group")) for model in declared)),
        sources=_sources(manifest, declared, reporter),
        view_names={str(model["unique_id"]): label(model) for model in declared},
    )
    by_id = {str(model["unique_id"]): parse_view(model, project, reporter) for model in declared}
    views = _unique(by_id.values(), reporter)
    latest = _latest(declared, reporter)
    _check_entities(by_id.values(), reporter)
    check_singular_tests(manifest, project.view_names, reporter)
    platform = parse_platform_owner(manifest, reporter)
    check_test_names(manifest, project.view_names, reporter)
    services: dict[str, FeatureService] = {}
    training_sets: dict[str, DeclaredTrainingSet] = {}
    for _, exposure in sorted(manifest.exposures.items()):
        if exposure.get("type") == "ml":
            service = parse_service(exposure, manifest, by_id, latest, reporter)
            _check_service_name(service, services, latest, reporter)
            services[service.name] = service
            for declared_set in parse_training_sets(exposure, service, manifest, reporter):
                _check_set_name(declared_set, training_sets, reporter)
                training_sets[declared_set.name] = declared_set
    if reporter.collected:
        ordered = sorted(dict.fromkeys(reporter.collected), key=lambda finding: (finding.file, finding.node))
        raise InvalidDeclarationsError(tuple(ordered))
    return FeatureRegistry(
        views=views,
        services=services,
        sources=project.sources,
        latest=latest,
        training_sets=training_sets,
        platform=platform,
    )


def _sources(manifest: Manifest, models: Iterable[Node], reporter: Reporter) -> dict[str, Source]:
    """The sources upstream of feature views, each checked once."""
    nodes = {
        str(node["unique_id"]): node
        for model in models
        for node, _ in manifest.upstream(model)
        if node.get("resource_type") == "source"
    }
    return {unique_id: parse_source(node, reporter) for unique_id, node in sorted(nodes.items())}


def _unique(parsed: Iterable[FeatureView], reporter: Reporter) -> dict[str, FeatureView]:
    """Views by key; two packages may hold models of one name, which dbt allows and a feature reference cannot."""
    views: dict[str, FeatureView] = {}
    for view in parsed:
        if view.key in views:
            reporter.at(view.yaml_path, f"feature view {view.key}").report(
                "is declared twice", found=f"{views[view.key].sql_path} and {view.sql_path}", hint="rename one of them"
            )
        if view.name == canary.NAME:
            reporter.at(view.yaml_path, f"feature view {view.key}").report(
                "has a name that the platform needs for a view of its own", found=view.name, hint="rename it"
            )
        views[view.key] = view
    return views


def _latest(models: Iterable[Node], reporter: Reporter) -> dict[str, int]:
    """Latest version per name: what is declared, else the greatest (dbt's own rule)."""
    latest: dict[str, int] = {}
    versions: dict[str, list[int]] = {}
    for model in models:
        versions.setdefault(str(model["name"]), [])
        if isinstance(version := model.get("version"), int):
            versions[str(model["name"])].append(version)
    for model in models:
        name, declared = str(model["name"]), model.get("latest_version")
        if declared is not None and declared not in versions[name]:
            reporter.at(str(model.get("original_file_path")), label(model)).report(
                "`latest_version` names no version that exists",
                found=repr(declared),
                allowed=", ".join(map(str, versions[name])) or "(none)",
            )
        latest[name] = declared if isinstance(declared, int) else max(versions[name], default=0)
    return latest


def _check_entities(views: Iterable[FeatureView], reporter: Reporter) -> None:
    """One name, one type: a service asks all its views with the same entity values."""
    first: dict[str, tuple[FeatureView, object]] = {}
    for view in views:
        for entity in view.entities:
            other, type_ = first.setdefault(entity.name, (view, entity.type))
            if type_ != entity.type:
                reporter.at(view.yaml_path, f"feature view {view.key}").report(
                    f"entity {entity.name} has another type than in {other.key}",
                    found=f"{entity.type.value.lower()} here, {str(type_).lower()} there",
                    allowed="one type per entity name",
                    hint="cast one of them, or give it another name if it is another thing",
                )


def _check_set_name(
    declared: DeclaredTrainingSet, training_sets: Mapping[str, DeclaredTrainingSet], reporter: Reporter
) -> None:
    if declared.name in training_sets:
        reporter.at(declared.service.path, f"feature service {declared.service.name}").report(
            "declares a training set under a name that is taken",
            found=f"{declared.name}, also of {training_sets[declared.name].service.name}",
            hint="rename one of them",
        )


def _check_service_name(
    service: FeatureService, services: Mapping[str, FeatureService], latest: Mapping[str, int], reporter: Reporter
) -> None:
    taken = "feature view" if service.name in latest else "feature service" if service.name in services else None
    if taken:
        reporter.at(service.path, f"feature service {service.name}").report(
            f"has the name of another {taken}" if taken == "feature service" else f"has the name of a {taken}",
            found=service.name,
            hint="rename the service: requests name either by its bare name",
        )
