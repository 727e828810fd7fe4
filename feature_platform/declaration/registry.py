"""The frozen registry: every feature view, service and source of a project, and how names resolve to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from feature_platform.declaration.findings import did_you_mean
from feature_platform.domain.feature_service import FeatureService, ViewSelection
from feature_platform.domain.feature_view import FeatureView, Owner, Source
from feature_platform.domain.training_set import DeclaredTrainingSet
from feature_platform.errors import RequestError, UnknownNameError, chosen_from

_REFERENCE = re.compile(r"(?P<view>[^@:\s]+)(?:@v?(?P<version>\d+))?(?::(?P<feature>[^@:\s]+))?")
REFERENCE_FORMS = "`view`, `view:feature`, `view@2` or `view@2:feature`"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRegistry:
    """All declarations of a project. Build it with `load_registry` or `parse_manifest`."""

    views: Mapping[str, FeatureView]
    """By key, `name@version`."""
    services: Mapping[str, FeatureService]
    """By name."""
    sources: Mapping[str, Source]
    """By dbt's unique id; those that feature views read."""
    latest: Mapping[str, int]
    """Latest version per view name: what a reference without a version means."""
    training_sets: Mapping[str, DeclaredTrainingSet] = field(default_factory=dict)
    """By name."""
    platform: Owner = field(default_factory=lambda: Owner(name="platform", email=""))
    """Who answers for what belongs to no view, and is told where an owner has no route."""

    def __post_init__(self) -> None:
        for name in ("views", "services", "sources", "latest", "training_sets"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def view(self, reference: str) -> FeatureView:
        """The view named by `name` (its latest version), `name@2` or `name@v2`.

        Raises:
            UnknownNameError: there is none.
        """
        name, version, feature = _parse(reference)
        if feature is not None:
            raise UnknownNameError(
                f"{reference!r} names a feature, not a feature view", allowed="`view` or `view@2`", hint=f"use `{name}`"
            )
        if name not in self.latest:
            raise UnknownNameError(
                f"no feature view {name!r}",
                found=reference,
                allowed=chosen_from(self.latest),
                hint=did_you_mean(name, self.latest)
                or "declare it as a dbt model with `meta.feature_view`; if it is declared: `feature-platform deploy`",
            )
        key = f"{name}@{self.latest[name] if version is None else version}"
        if key not in self.views:
            raise UnknownNameError(
                f"feature view {name!r} has no version {version}",
                found=reference,
                allowed=chosen_from(view.key for view in self.versions(name)),
            )
        return self.views[key]

    def versions(self, name: str) -> tuple[FeatureView, ...]:
        """All versions of a view, oldest first."""
        return tuple(sorted((v for v in self.views.values() if v.name == name), key=lambda view: view.version))

    def views_named(self, references: Iterable[str]) -> tuple[FeatureView, ...]:
        """The views that references name, each once, in their order.

        Raises:
            UnknownNameError: there is none of that name.
        """
        return tuple({view.key: view for view in map(self.view, references)}.values())

    @property
    def served_views(self) -> tuple[FeatureView, ...]:
        """The views whose rows are brought to the online stores."""
        return tuple(view for view in self.views.values() if view.is_served)

    def services_reading(self, view_key: str) -> tuple[FeatureService, ...]:
        """The feature services that read a view (`name@version`)."""
        return tuple(
            service
            for service in self.services.values()
            if any(selection.key == view_key for selection in service.selections)
        )

    def service(self, name: str) -> FeatureService:
        """The feature service of this name.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self.services:
            raise UnknownNameError(
                f"no feature service {name!r}",
                allowed=chosen_from(self.services),
                hint=did_you_mean(name, self.services) or "declare it as a dbt exposure of type `ml`",
            )
        return self.services[name]

    def training_set(self, name: str) -> DeclaredTrainingSet:
        """The declared training set of this name.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self.training_sets:
            raise UnknownNameError(
                f"no training set {name!r} is declared",
                allowed=chosen_from(self.training_sets),
                hint=did_you_mean(name, self.training_sets)
                or "declare it in `meta.training_sets` of an exposure, or pass the labels (--labels)",
            )
        return self.training_sets[name]

    def select(self, service_or_refs: str | FeatureService | Iterable[str]) -> tuple[ViewSelection, ...]:
        """What a request asks for: a service's selections, or those of references.

        Args:
            service_or_refs: a service or its name, or references `view`, `view:feature`, `view@2`, `view@2:feature`.
                References to one view are joined; a feature asked for twice is returned once.

        Raises:
            UnknownNameError: a service, view or feature does not exist.
            RequestError: nothing is asked for.
        """
        if isinstance(service_or_refs, FeatureService):
            return service_or_refs.selections
        if isinstance(service_or_refs, str):
            if service_or_refs in self.services:
                return self.services[service_or_refs].selections
            if _parse(service_or_refs)[0] not in self.latest:
                raise self._unknown(service_or_refs)
            service_or_refs = (service_or_refs,)
        chosen: dict[str, dict[str, None]] = {}
        for reference in service_or_refs:
            view, features = self._resolve(reference)
            chosen.setdefault(view.key, {}).update(dict.fromkeys(features))
        if not chosen:
            raise RequestError(
                "no features are asked for", allowed=f"a feature service, or references: {REFERENCE_FORMS}"
            )
        return tuple(
            ViewSelection(view=self.views[key].name, version=self.views[key].version, features=tuple(features))
            for key, features in chosen.items()
        )

    def _resolve(self, reference: str) -> tuple[FeatureView, tuple[str, ...]]:
        """The view a reference names, and the features of it."""
        if reference in self.services:
            raise UnknownNameError(
                f"{reference!r} is a feature service, not a feature reference",
                allowed=f"references: {REFERENCE_FORMS}",
                hint=f"pass the service alone: {reference!r}, not in a list",
            )
        feature = _parse(reference)[2]
        view = self.view(reference.partition(":")[0])
        if feature is None:
            return view, view.feature_names
        if feature not in view.feature_names:
            raise UnknownNameError(
                f"feature view {view.key} has no feature {feature!r}",
                found=reference,
                allowed=chosen_from(view.feature_names),
                hint=did_you_mean(feature, view.feature_names),
            )
        return view, (feature,)

    def _unknown(self, name: str) -> UnknownNameError:
        names = [*self.services, *self.latest]
        return UnknownNameError(
            f"no feature service or feature view {name!r}",
            allowed=f"services: {chosen_from(self.services)}; views: {chosen_from(self.latest)}",
            hint=did_you_mean(name.partition(":")[0].partition("@")[0], names),
        )


def _parse(reference: str) -> tuple[str, int | None, str | None]:
    """View, version and feature of a reference.

    >>> _parse("carrier_delays@v2:dep_delay_mean_7d")
    ('carrier_delays', 2, 'dep_delay_mean_7d')
    """
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise UnknownNameError(f"{reference!r} is no feature reference", allowed=REFERENCE_FORMS)
    return match["view"], int(match["version"]) if match["version"] else None, match["feature"]
