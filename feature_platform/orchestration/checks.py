"""Checks in Dagster: the default suite, and one per dbt data test and expectation, said of exactly a run's batches.

Rule: the verdict comes from the audit (`materialization`), which also writes it to the ledger; here it is only said to
Dagster. All checks are emitted before the step ends, also when it is about to fail, so that the UI shows the reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from feature_platform.domain.batch import Batch, CheckOutcome
from feature_platform.domain.feature_view import FeatureView
from feature_platform.orchestration.keys import view_key
from feature_platform.quality import check_names, said_of, suite_of

SHOWN_FAILURES = 20
SAID_FAILURES = 3


def check_specs(manifest: Mapping[str, Any], view: FeatureView) -> tuple[dg.AssetCheckSpec, ...]:
    """The view's checks, as Dagster knows them before anything ran."""
    return (*_suite_specs(view), *_data_test_specs(manifest, view), *_expectation_specs(view))


def _suite_specs(view: FeatureView) -> Iterator[dg.AssetCheckSpec]:
    for name, (about, may_block) in suite_of(view).items():
        yield dg.AssetCheckSpec(
            name=name, asset=view_key(view), description=about, blocking=may_block, metadata={"kind": "default suite"}
        )


def _data_test_specs(manifest: Mapping[str, Any], view: FeatureView) -> Iterator[dg.AssetCheckSpec]:
    for unique_id, node in sorted(manifest["nodes"].items()):
        if node.get("resource_type") != "test" or not _tests(node, view):
            continue
        yield dg.AssetCheckSpec(
            name=check_name(node["name"]),
            asset=view_key(view),
            description=node.get("description") or _described_test(node),
            blocking=node["config"].get("severity", "error").lower() == "error",
            metadata={"kind": "data test", "dbt_unique_id": unique_id, "file": node.get("original_file_path", "")},
        )


def _tests(node: Mapping[str, Any], view: FeatureView) -> bool:
    """Whether a test judges this view: generic tests are attached to it, singular ones read it."""
    if attached := node.get("attached_node"):
        return bool(attached == view.unique_id)
    return view.unique_id in node.get("depends_on", {}).get("nodes", ())


def _expectation_specs(view: FeatureView) -> Iterator[dg.AssetCheckSpec]:
    for name, expectation in zip(check_names(view), view.expectations, strict=True):
        yield dg.AssetCheckSpec(
            name=name,
            asset=view_key(view),
            description=f"{expectation.type}: {_described(expectation.arguments)}",
            blocking=expectation.severity == "error",
            metadata={"kind": "expectation", "arguments": dict(expectation.arguments)},
        )


def _described_test(node: Mapping[str, Any]) -> str:
    generic = node.get("test_metadata")
    if not generic:
        return f"{node.get('original_file_path', 'a singular test')}: returns no row"
    arguments = {
        name: value
        for name, value in generic.get("kwargs", {}).items()
        if name not in ("model", "column_name") and not isinstance(value, dict)
    } | generic.get("kwargs", {}).get("arguments", {})
    subject = node.get("column_name") or "the batch"
    return f"{subject}: {generic['name']} {_described(arguments)}".strip()


def _described(arguments: Mapping[str, Any]) -> str:
    """Arguments for people.

    >>> _described({"min_value": 0, "max_value": 1})
    'min_value 0, max_value 1'
    """
    return ", ".join(f"{name} {value}" for name, value in arguments.items())


def check_name(name: str) -> str:
    """The name as Dagster allows it.

    >>> check_name("in_range_carrier_delays_v1_late_share_1d__1.0__0")
    'in_range_carrier_delays_v1_late_share_1d__1_0__0'
    """
    return re.sub(r"\W", "_", name)


def check_results(
    outcomes: Iterable[CheckOutcome],
    *,
    key: dg.AssetKey,
    specs: Sequence[dg.AssetCheckSpec],
    batches: Iterable[Batch],
) -> Iterator[dg.AssetCheckResult]:
    """One result per check that spoke: over a range of partitions it passes if it passed for each."""
    partition_of = {batch.batch_id: batch.partition.key for batch in batches}
    by_check: defaultdict[str, list[CheckOutcome]] = defaultdict(list)
    for outcome in outcomes:
        by_check[check_name(outcome.check)].append(outcome)
    for spec in specs:
        if said := by_check.get(spec.name):
            yield _result(said, key=key, spec=spec, partition_of=partition_of)


def _result(
    said: Sequence[CheckOutcome], *, key: dg.AssetKey, spec: dg.AssetCheckSpec, partition_of: Mapping[str, str]
) -> dg.AssetCheckResult:
    failed = [outcome for outcome in said if not outcome.passed]
    metadata: dict[str, Any] = {"batches": len(said), "batches_failed": len(failed)}
    if failed:
        metadata["said"] = _said(failed, partition_of)
        metadata["failures"] = dg.MetadataValue.json(
            [
                {"partition": partition_of.get(one.batch_id, ""), "batch_id": one.batch_id, **one.detail}
                for one in failed[:SHOWN_FAILURES]
            ]
        )
    elif len(said) == 1:
        metadata["detail"] = dg.MetadataValue.json(dict(said[0].detail))
        observed = said[0].detail.get("observed_value")
        if isinstance(observed, int | float) and not isinstance(observed, bool):
            metadata["observed_value"] = observed  # a number on its own is what the UI plots
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=spec.name,
        passed=not failed,
        severity=dg.AssetCheckSeverity.ERROR if any(one.blocking for one in failed) else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def _said(failed: Sequence[CheckOutcome], partition_of: Mapping[str, str]) -> str:
    """What the check observed where it failed, for people who do not open JSON."""
    lines = [f"{partition_of.get(one.batch_id, '')}: {said_of(one)}" for one in failed[:SAID_FAILURES]]
    more = len(failed) - len(lines)
    return "; ".join([*lines, *([f"and {more} more batches"] if more else [])])
