"""`meta.feature_view.quality`: the default suite of a view, tuned or switched off.

Rule: nothing declared is a suite with defaults, not no suite. What a feature says goes before what the view says, and
that before the defaults, key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feature_platform.declaration.findings import Reporter, Section, did_you_mean, show
from feature_platform.declaration.manifest import Manifest
from feature_platform.domain.feature_view import Column
from feature_platform.domain.quality_rules import (
    CHECKS,
    SEVERITIES,
    FeatureRules,
    QualityRules,
    Reference,
    ReferenceKind,
    Rule,
    reference,
)
from feature_platform.domain.types import ColumnType, DecimalType, FeatureType, ListType
from feature_platform.domain.windows import Grain
from feature_platform.errors import chosen_from

KEYS = ("allow_empty", "drift", "features", "nulls", "samples", "volume")
FEATURE_KEYS = ("drift", "nulls", "top_values")
RULE_KEYS = ("reference", "severity", "tolerance")
TOLERANCES = {"volume": 0.5, "nulls": 0.1, "drift": 0.25}
"""Documented in docs/reference/quality.md."""

_FORM = "`{reference: recent, tolerance: 0.25, severity: warn}`, with any of the keys, or `off`"
_WORDS = (ReferenceKind.PREVIOUS, ReferenceKind.RECENT, ReferenceKind.SAME_WEEKDAY)
_REFERENCES = f"{', '.join(f'`{word}`' for word in _WORDS)} or `{{training_set: name@version}}`"


def has_distribution(type_: FeatureType) -> bool:
    """Whether values of a type have a distribution that drift can be judged by: instants move on by themselves."""
    instants = (ColumnType.DATE, ColumnType.TIMESTAMPTZ, ColumnType.BLOB)
    return isinstance(type_, DecimalType) or not (isinstance(type_, ListType) or type_ in instants)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """What is written of a rule; None for what is not."""

    off: bool = False
    reference: Reference | None = None
    tolerance: float | None = None
    severity: str | None = None


def parse_quality(section: Section, features: tuple[Column, ...], grain: Grain) -> QualityRules:
    """The default suite of a view; whatever is malformed is reported, with its default in its place."""
    suite = section.inner("quality", KEYS)
    written = {name: _written(suite, name, grain) for name in ("volume", "nulls", "drift")}
    by_feature = suite.inner("features", (column.name for column in features))
    return QualityRules(
        volume=_rule("volume", grain, written["volume"]),
        allow_empty=suite.switch("allow_empty"),
        samples=suite.switch("samples"),
        features={column.name: _feature(by_feature, column, written, grain) for column in features},
    )


def _feature(section: Section, column: Column, view: Mapping[str, _Written], grain: Grain) -> FeatureRules:
    own = section.inner(column.name, FEATURE_KEYS)
    nulls, drift = (_written(own, name, grain) for name in ("nulls", "drift"))
    if own.values.get("drift") not in (None, False) and not has_distribution(column.type):
        own.report(
            "drift",
            f"cannot be judged of {column.type.value.lower()}",
            allowed="numbers, booleans, texts",
            hint="remove it; a range is an expectation, e.g. `ExpectColumnMaxToBeBetween`",
        )
    top = own.switch("top_values")
    if top and not (column.type in (ColumnType.VARCHAR, ColumnType.BOOLEAN) or _is_integer(column.type)):
        own.report("top_values", f"cannot be kept of {column.type.value.lower()}", allowed="texts, integers, booleans")
    return FeatureRules(
        nulls=_rule("nulls", grain, nulls, view["nulls"]),
        drift=_rule("drift", grain, drift, view["drift"]) if has_distribution(column.type) else None,
        top_values=top,
    )


def _is_integer(type_: FeatureType) -> bool:
    return isinstance(type_, ColumnType) and "INT" in type_.value


def _rule(name: str, grain: Grain, *written: _Written) -> Rule | None:
    """The rule as the first that says something has it, key by key."""
    if next((one.off for one in written if one != _Written()), False):
        return None
    kind = ReferenceKind.SAME_WEEKDAY if name == "volume" and grain is not Grain.MONTH else ReferenceKind.RECENT
    return Rule(
        reference=next((one.reference for one in written if one.reference), reference(kind, grain)),
        tolerance=next((one.tolerance for one in written if one.tolerance), TOLERANCES[name]),
        severity=next((one.severity for one in written if one.severity), "warn"),
    )


def _written(section: Section, name: str, grain: Grain) -> _Written:
    value = section.values.get(name)
    if value is False or value == "off":  # YAML reads a bare `off` as false
        return _Written(off=True)
    if value is not None and not isinstance(value, Mapping):
        section.report(name, "is no rule", allowed=_FORM)
        return _Written()
    rule = section.inner(name, RULE_KEYS)
    return _Written(reference=_reference(rule, grain), tolerance=_tolerance(rule, name), severity=_severity(rule))


def _severity(rule: Section) -> str | None:
    return rule.choice("severity", SEVERITIES, "warn") if "severity" in rule.values else None


def _tolerance(rule: Section, name: str) -> float | None:
    value = rule.values.get("tolerance")
    if value is None:
        return None
    most = 1.0 if name == "nulls" else float("inf")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        allowed = "a share from 0 to 1, more than 0" if name == "nulls" else "a number greater than 0, e.g. 0.5"
        rule.report("tolerance", "is no tolerance", allowed=allowed)
        return None
    return float(value)


def _reference(rule: Section, grain: Grain) -> Reference | None:
    value = rule.values.get("reference")
    if value is None:
        return None
    if isinstance(value, Mapping) and [*value] == ["training_set"] and isinstance(value["training_set"], str):
        return reference(ReferenceKind.TRAINING_SET, grain, training_set=value["training_set"])
    kind = next((word for word in _WORDS if value == word.value), None)
    if kind is None:
        rule.report("reference", "names nothing to compare with", allowed=_REFERENCES, hint=_similar(value))
        return None
    if kind is ReferenceKind.SAME_WEEKDAY and grain is Grain.MONTH:
        rule.report("reference", "means nothing for months", allowed="`previous`, `recent`", hint="write `recent`")
        return None
    return reference(kind, grain)


def _similar(value: object) -> str:
    if value == ReferenceKind.TRAINING_SET.value or (isinstance(value, Mapping) and "training_set" in value):
        return "write `reference: {training_set: name@version}`"
    return did_you_mean(str(value), [word.value for word in _WORDS])


def check_test_names(manifest: Manifest, view_names: Mapping[str, str], reporter: Reporter) -> None:
    """Report dbt tests of feature views that are called like a check of the default suite."""
    for _, node in sorted(manifest.nodes.items()):
        tested = {node.get("attached_node"), *(node.get("depends_on") or {}).get("nodes", ())}
        if node.get("resource_type") == "test" and node.get("name") in CHECKS and tested & {*view_names}:
            reporter.at(str(node.get("original_file_path", "")), f"test {node.get('name')}").report(
                "has the name of a check that every view has",
                found=show(node.get("name")),
                allowed=f"any other name than {chosen_from(CHECKS)}",
                hint="rename it",
            )
