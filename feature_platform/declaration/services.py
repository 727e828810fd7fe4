"""dbt exposures of type `ml` → feature services: what one model reads, and what it needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from feature_platform.declaration.findings import Reporter, Section, did_you_mean, show
from feature_platform.declaration.manifest import Manifest, Node, meta_of, parents, yaml_path
from feature_platform.declaration.owners import parse_owner
from feature_platform.declaration.serving_policy import parse_policy
from feature_platform.domain.durations import LATENCY_ALLOWED, parse_latency
from feature_platform.domain.feature_service import FeatureService, OutagePolicy, ViewSelection
from feature_platform.domain.feature_view import FeatureView, Owner
from feature_platform.errors import chosen_from

SECTION = "meta.feature_service"
KEYS = ("batch_size", "features", "freshness", "latency_budget", "outage", "policy")
ALL = "all"


def parse_service(
    node: Node, manifest: Manifest, views: Mapping[str, FeatureView], latest: Mapping[str, int], reporter: Reporter
) -> FeatureService:
    """The service an exposure declares. `views` are by dbt's unique id."""
    reporter = reporter.at(yaml_path(node), f"feature service {node.get('name')}")
    section = Section.read(SECTION, meta_of(node).get("feature_service"), KEYS, reporter)
    owner = parse_owner(node, reporter)
    read = _views_read(node, manifest, views, reporter)
    selections = _selections(section, read, latest)
    batch_size = section.values.get("batch_size")
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        section.report("batch_size", "is no number of entities", allowed="a whole number from 1")
        batch_size = None
    latency = section.values.get("latency_budget")
    latency_budget = parse_latency(latency)
    if latency is not None and latency_budget is None:
        section.report("latency_budget", "is no latency", allowed=LATENCY_ALLOWED)
    _check_use(read, owner, manifest.generated_on, reporter, online=latency is not None)
    return FeatureService(
        name=str(node.get("name")),
        description=str(node.get("description") or "").strip(),
        owner=owner,
        selections=selections,
        latency_budget=latency_budget,
        batch_size=batch_size,
        freshness=section.duration("freshness", positive=True),
        unique_id=str(node.get("unique_id")),
        path=yaml_path(node),
        outage=OutagePolicy(section.choice("outage", OutagePolicy, OutagePolicy.NULL)),
        policy=parse_policy(section, selections, lambda reference: _named(reference, read, latest)),
    )


def _views_read(
    node: Node, manifest: Manifest, views: Mapping[str, FeatureView], reporter: Reporter
) -> tuple[FeatureView, ...]:
    """The views an exposure depends on, in the order it names them."""
    read = []
    for unique_id in dict.fromkeys(parents(node)):
        if unique_id in views:
            read.append(views[unique_id])
        else:
            reporter.report(
                "depends on something that is no feature view",
                found=str(manifest.nodes.get(unique_id, {}).get("name", unique_id)),
                allowed=f"ref() of {chosen_from({view.name for view in views.values()})}",
                hint="an exposure of type `ml` is a feature service; give another consumer another type",
            )
    if not parents(node):
        reporter.report("depends on no feature view", hint="write `depends_on: [ref('<feature view>')]`")
    return tuple(read)


def _selections(
    section: Section, read: tuple[FeatureView, ...], latest: Mapping[str, int]
) -> tuple[ViewSelection, ...]:
    """Features per view: those listed, or all of a view that is not."""
    listed = section.values.get("features")
    if listed is not None and not isinstance(listed, Mapping):
        section.report("features", "is no mapping of views", allowed="`{<view>: [<feature>, …]}` or `{<view>: all}`")
    chosen: dict[str, tuple[str, ...]] = {view.key: view.feature_names for view in read}
    for reference, features in listed.items() if isinstance(listed, Mapping) else ():
        view = _named(str(reference), read, latest)
        if view is None:
            section.reporter.report(
                f"`{section.path('features')}` names a view it does not depend on",
                found=str(reference),
                allowed=chosen_from(view.key for view in read),
                hint=did_you_mean(str(reference), [view.name for view in read])
                or f"add `ref('{reference}')` to `depends_on`",
            )
        elif features != ALL:
            chosen[view.key] = _features(section, view, features)
    return tuple(ViewSelection(view=view.name, version=view.version, features=chosen[view.key]) for view in read)


def _named(reference: str, read: tuple[FeatureView, ...], latest: Mapping[str, int]) -> FeatureView | None:
    """The view that `name`, `name@2` or `name@v2` means among those read; a bare name prefers the latest version."""
    name, _, version = reference.partition("@")
    named = [view for view in read if view.name == name]
    if version:
        return next((view for view in named if str(view.version) == version.removeprefix("v")), None)
    if len(named) == 1:
        return named[0]
    return next((view for view in named if view.version == latest.get(name)), None)


def _features(section: Section, view: FeatureView, features: object) -> tuple[str, ...]:
    place = f"{section.path('features')}.{view.name}"
    if not isinstance(features, list) or not features:
        section.reporter.report(
            f"`{place}` is no list of features", found=show(features), allowed=f"a list of names, or `{ALL}`"
        )
        return ()
    for feature in features:
        if feature not in view.feature_names:
            section.reporter.report(
                f"`{place}` names a feature that {view.key} does not have",
                found=show(feature),
                allowed=chosen_from(view.feature_names),
                hint=did_you_mean(str(feature), view.feature_names),
            )
    return tuple(dict.fromkeys(str(feature) for feature in features))


def _check_use(
    read: tuple[FeatureView, ...], owner: Owner, today: date | None, reporter: Reporter, *, online: bool
) -> None:
    """Whether the service may use its views, and can be answered from them."""
    for view in read:
        if view.deprecation_date is not None and today is not None and view.deprecation_date <= today:
            reporter.report(
                f"uses {view.key}, which is deprecated",
                found=f"deprecated since {view.deprecation_date}",
                allowed="views whose deprecation_date has not come",
                hint="move to a newer version, or agree on a later date with its owner, " + view.owner.email,
            )
        if view.access == "private" and view.owner.email != owner.email:
            reporter.report(
                f"uses {view.key}, which is private to the group {view.group}",
                found=f"owner {owner.email or '(none)'}",
                allowed=f"services owned by {view.owner.email}",
                hint=f"ask {view.owner.email} to write `access: public`",
            )
        if online and not view.is_served:
            reporter.report(
                f"has a latency budget, and {view.key} is not served online",
                allowed="views with `online: valkey`",
                hint=f"write `online: valkey` for {view.name}, or remove `latency_budget`",
            )
