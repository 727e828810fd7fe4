"""`meta.training_sets` of an exposure → training sets that are made by a job: whose labels a dbt model selects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from feature_platform.declaration.findings import Reporter, Section, did_you_mean, show
from feature_platform.declaration.manifest import Manifest, Node, config_of, meta_of, yaml_path
from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.training_set import DeclaredTrainingSet, Mode
from feature_platform.errors import chosen_from

SECTION = "meta.training_sets"
KEYS = ("description", "full_feature_names", "labels", "mode", "provenance", "store", "timestamp_column")
# as `offline.sets.manifest.parse_name`, in lower case like every declared name
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


def parse_training_sets(
    node: Node, service: FeatureService, manifest: Manifest, reporter: Reporter
) -> Iterator[DeclaredTrainingSet]:
    """The training sets an exposure declares for its service."""
    declared = meta_of(node).get("training_sets")
    reporter = reporter.at(yaml_path(node), f"feature service {service.name}")
    if declared is not None and not isinstance(declared, Mapping):
        reporter.report(
            f"`{SECTION}` is no mapping of training sets",
            found=show(declared),
            allowed="`{<name>: {labels: <dbt model>, …}}`",
        )
        return
    for name, content in (declared or {}).items():
        if not _NAME.fullmatch(str(name)):
            reporter.report(
                f"`{SECTION}` has a name that no training set can have",
                found=str(name),
                allowed="a lower-case letter, then letters, digits and underscores, at most 100",
            )
        section = Section.read(f"{SECTION}.{name}", content if content is not None else {}, KEYS, reporter)
        yield _parse(str(name), section, service, manifest)


def _parse(name: str, section: Section, service: FeatureService, manifest: Manifest) -> DeclaredTrainingSet:
    labels = _labels(section, manifest)
    sources = [node for node, _ in manifest.upstream(labels) if node.get("resource_type") == "source"]
    return DeclaredTrainingSet(
        name=name,
        description=str(section.values.get("description") or "").strip(),
        service=service,
        labels=(str(labels.get("schema")), str(labels.get("alias"))),
        labels_id=str(labels.get("unique_id")),
        source_ids=tuple(sorted(str(node["unique_id"]) for node in sources)),
        arguments=_arguments(section),
    )


def _labels(section: Section, manifest: Manifest) -> Node:
    """The model that selects the labels; an empty node after a finding."""
    models = {str(model.get("name")): model for model in manifest.models if "feature_view" not in meta_of(model)}
    named = section.values.get("labels")
    if named is None:
        section.report(
            "labels", "is missing", allowed="the name of a dbt model", hint="write `labels: <model that selects them>`"
        )
        return {}
    if not isinstance(named, str) or named not in models:
        section.report(
            "labels",
            "names no dbt model",
            allowed=f"{chosen_from(models)}; not a feature view",
            hint=did_you_mean(str(named), models) or "write a model that selects keys, a time and the target",
        )
        return {}
    read = [str(node.get("name")) for node, _ in manifest.upstream(models[named]) if "feature_view" in meta_of(node)]
    if read:
        section.report(
            "labels",
            "names a model that reads a feature view",
            allowed="labels of sources and staging models: unpublished and superseded rows lie in a view's table",
            hint=f"leave {chosen_from(read)} to the service, which is joined as of each label's time",
        )
    kind = config_of(models[named]).get("materialized")
    if kind != "view":
        section.report(
            "labels",
            f"names a model materialized as {kind}",
            allowed="a model materialized as view: nothing refreshes a table before the set is made",
        )
    return models[named]


def _arguments(section: Section) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if "mode" in section.values:
        arguments["mode"] = section.choice("mode", Mode, Mode.AUTO)
    for key, kind, allowed in (
        ("timestamp_column", str, "the name of the labels' column that holds their time"),
        ("store", str, "the name of an online store"),
        ("full_feature_names", bool, "true or false"),
        ("provenance", bool, "true or false"),
    ):
        value = section.values.get(key)
        if isinstance(value, kind):
            arguments[key] = value
        elif value is not None:
            section.report(key, "has the wrong type", allowed=allowed)
    return arguments
