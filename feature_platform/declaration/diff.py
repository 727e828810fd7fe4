"""What changed between two registries, and whether data and readers of the older one survive it.

Rule: a change of keys, types, grain or a removed feature breaks a table that exists, so it needs a new version.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from feature_platform.declaration.registry import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView

_SETTINGS = (
    "begin",
    "ttl",
    "availability_delay",
    "late_data",
    "retention",
    "freshness",
    "online",
    "push",
    "owner",
    "group",
    "access",
    "description",
    "tags",
    "deprecation_date",
    "expectations",
)


class ChangeKind(enum.StrEnum):
    """What a change asks of whoever deploys it."""

    ADDED = "added"
    REMOVED = "removed"
    COMPATIBLE = "compatible"
    """Tables and readers stay as they are."""
    VALUES = "values"
    """Same shape, other SQL: partitions computed before hold values of the older code until they are recomputed."""
    BREAKING = "breaking"
    """Must be a new version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of one view or service."""

    name: str
    kind: ChangeKind
    what: str


def compare(before: FeatureRegistry, after: FeatureRegistry) -> tuple[Change, ...]:
    """All changes from one registry to another, by name."""
    changes: list[Change] = []
    for key in sorted(before.views.keys() | after.views.keys()):
        if key not in after.views:
            changes.append(Change(name=key, kind=ChangeKind.REMOVED, what="the feature view is no longer declared"))
        elif key not in before.views:
            changes.append(Change(name=key, kind=ChangeKind.ADDED, what="a new feature view or version"))
        else:
            changes += compare_views(before.views[key], after.views[key])
    for name in sorted(before.services.keys() | after.services.keys()):
        if name not in after.services:
            changes.append(Change(name=name, kind=ChangeKind.REMOVED, what="the service is no longer declared"))
        elif name not in before.services:
            changes.append(Change(name=name, kind=ChangeKind.ADDED, what="a new service"))
        elif before.services[name].selections != after.services[name].selections:
            changes.append(Change(name=name, kind=ChangeKind.COMPATIBLE, what="the service reads other features"))
        elif before.services[name].policy != after.services[name].policy:
            changes.append(Change(name=name, kind=ChangeKind.COMPATIBLE, what="the service's policy changed"))
    return tuple(changes)


def compare_views(before: FeatureView, after: FeatureView) -> list[Change]:
    """All changes of one version of a view."""
    breaking, values, compatible = _breaking(before, after), [], []
    if added := [name for name in after.feature_names if name not in before.feature_names]:
        compatible.append(f"new features: {', '.join(added)} (null in batches computed before)")
    if before.code_version != after.code_version:
        values.append("the code changed: recompute what should have the new values")
    compatible += [f"{name} changed" for name in _SETTINGS if getattr(before, name) != getattr(after, name)]
    kinds = ((ChangeKind.BREAKING, breaking), (ChangeKind.VALUES, values), (ChangeKind.COMPATIBLE, compatible))
    return [Change(name=after.key, kind=kind, what=what) for kind, found in kinds for what in found]


def _breaking(before: FeatureView, after: FeatureView) -> list[str]:
    found = []
    old, new = (tuple((c.name, c.type) for c in view.entities) for view in (before, after))
    if old != new:
        found.append(f"entities {_columns(old)} became {_columns(new)}")
    if before.grain != after.grain:
        found.append(f"partitions of one {before.grain} became partitions of one {after.grain}")
    types = {column.name: column.type for column in after.features}
    for column in before.features:
        if column.name not in types:
            found.append(f"feature {column.name} is gone")
        elif types[column.name] != column.type:
            found.append(f"feature {column.name} changed from {column.type} to {types[column.name]}")
    return found


def _columns(columns: tuple[tuple[str, object], ...]) -> str:
    return "(" + ", ".join(f"{name} {type_}" for name, type_ in columns) + ")"
