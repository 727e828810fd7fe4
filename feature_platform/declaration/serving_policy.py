"""`meta.feature_service.policy` → what a service wants done about values that are stale, expired or missing.

Rule: whoever asks for defaults gives one for every feature, if only `null`: no model meets a None that nobody wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from feature_platform.declaration.findings import Section, did_you_mean, show
from feature_platform.domain.defaults import parse_default
from feature_platform.domain.feature_service import FLAG_ALL, Remedy, ServingPolicy, ViewSelection
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import chosen_from

STATUSES = ("stale", "expired", "missing")
KEYS = (*STATUSES, "defaults")


def parse_policy(
    service: Section, selections: Iterable[ViewSelection], find_view: Callable[[str], FeatureView | None]
) -> ServingPolicy:
    """The policy of a service.

    Args:
        service: the section `meta.feature_service`.
        selections: the features the service reads.
        find_view: the view a reference means, among those that the service reads.
    """
    if service.values.get("policy") is None:
        return FLAG_ALL
    section = service.inner("policy", KEYS)
    remedies = {status: Remedy(section.choice(status, Remedy, Remedy.FLAG)) for status in STATUSES}
    chosen = {selection.key: selection for selection in selections}
    defaults = _defaults(section, chosen, find_view)
    uses = [status for status, remedy in remedies.items() if remedy is Remedy.DEFAULT]
    if defaults and not uses:
        section.report("defaults", "are used by no status", allowed=f"`<status>: {Remedy.DEFAULT}` beside them")
    if uses and "defaults" not in section.values:
        section.report("defaults", "is missing", allowed=_FORM, hint="write a default for every feature, or `null`")
    for selection in chosen.values() if uses and "defaults" in section.values else ():
        if absent := [name for name in selection.features if name not in defaults.get(selection.key, {})]:
            section.reporter.report(
                f"`{section.path('defaults')}.{selection.view}` lacks features that the service reads",
                found=chosen_from(defaults.get(selection.key, {})),
                allowed=chosen_from(selection.features),
                hint=f"write a default for {chosen_from(absent)}; `null` serves None",
            )
    return ServingPolicy(**remedies, defaults=defaults)


_FORM = "`{<view>: {<feature>: <value>}}`"


def _defaults(
    section: Section, chosen: Mapping[str, ViewSelection], find_view: Callable[[str], FeatureView | None]
) -> dict[str, dict[str, Any]]:
    declared = section.values.get("defaults")
    if declared is None:
        return {}
    if not isinstance(declared, Mapping):
        section.report("defaults", "is no mapping of views", allowed=_FORM)
        return {}
    found: dict[str, dict[str, Any]] = {}
    for reference, values in declared.items():
        view = find_view(str(reference))
        if view is None:
            section.reporter.report(
                f"`{section.path('defaults')}` names a view that the service does not read",
                found=str(reference),
                allowed=chosen_from(chosen),
                hint=did_you_mean(str(reference), [selection.view for selection in chosen.values()]),
            )
        elif not isinstance(values, Mapping):
            section.reporter.report(
                f"`{section.path('defaults')}.{reference}` is no mapping of features", found=show(values), allowed=_FORM
            )
        else:
            found[view.key] = _of_view(section, view, chosen[view.key].features, values)
    return found


def _of_view(section: Section, view: FeatureView, features: Iterable[str], values: Mapping[Any, Any]) -> dict[str, Any]:
    types = {column.name: column.type for column in view.features}
    kept: dict[str, Any] = {}
    for feature, value in values.items():
        place = f"`{section.path('defaults')}.{view.name}.{feature}`"
        if feature not in features:
            section.reporter.report(
                f"{place} is no feature that the service reads",
                found=str(feature),
                allowed=chosen_from(features),
                hint=did_you_mean(str(feature), features),
            )
            continue
        try:
            if value is not None:
                parse_default(types[feature], value)
        except (ValueError, OverflowError) as error:
            section.reporter.report(
                f"{place} is no value of its type", found=show(value), allowed=f"{types[feature].value}: {error}"
            )
        kept[feature] = value
    return kept
