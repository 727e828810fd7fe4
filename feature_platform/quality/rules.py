"""What may be expected of a batch, and what the platform adds to Great Expectations' own judgement. No input or output.

Three rules on top of the library, each closing a measured trap:

* **An empty batch passes nothing** (not-null and mean are vacuously true of no rows), unless the view says that an
  empty batch is fine: `ExpectTableRowCountToBeBetween: {min_value: 0}`.
* **NaN is no value.** NaN is not NULL to SQL and greater than every number, so a lower bound alone would let it pass.
  A column an expectation judges may hold NULL, never NaN.
* **Bounds on instants are instants.** `max_value: 2026-01-01` on a timestamp would be compared as a date.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, Expectation, FeatureView
from feature_platform.domain.quality_rules import SEVERITIES
from feature_platform.domain.types import ColumnType, FeatureType
from feature_platform.errors import Finding, chosen_from

_ROW_COUNT = "ExpectTableRowCountToBeBetween"
_QUERY = "UnexpectedRowsExpectation"

TABLE_KINDS = frozenset(
    {
        _ROW_COUNT,
        "ExpectTableRowCountToEqual",
        _QUERY,
    }
)
"""Kinds that judge the batch as a whole and name no column."""

SUPPORTED = TABLE_KINDS | frozenset(
    {
        "ExpectColumnDistinctValuesToBeInSet",
        "ExpectColumnDistinctValuesToContainSet",
        "ExpectColumnDistinctValuesToEqualSet",
        "ExpectColumnKLDivergenceToBeLessThan",
        "ExpectColumnMaxToBeBetween",
        "ExpectColumnMeanToBeBetween",
        "ExpectColumnMedianToBeBetween",
        "ExpectColumnMinToBeBetween",
        "ExpectColumnMostCommonValueToBeInSet",
        "ExpectColumnPairValuesAToBeGreaterThanB",
        "ExpectColumnPairValuesToBeEqual",
        "ExpectColumnProportionOfNonNullValuesToBeBetween",
        "ExpectColumnProportionOfUniqueValuesToBeBetween",
        "ExpectColumnQuantileValuesToBeBetween",
        "ExpectColumnStdevToBeBetween",
        "ExpectColumnSumToBeBetween",
        "ExpectColumnUniqueValueCountToBeBetween",
        "ExpectColumnValueLengthsToBeBetween",
        "ExpectColumnValueLengthsToEqual",
        "ExpectColumnValueZScoresToBeLessThan",
        "ExpectColumnValuesToBeBetween",
        "ExpectColumnValuesToBeInSet",
        "ExpectColumnValuesToBeNull",
        "ExpectColumnValuesToBeUnique",
        "ExpectColumnValuesToMatchLikePattern",
        "ExpectColumnValuesToMatchRegex",
        "ExpectColumnValuesToMatchRegexList",
        "ExpectColumnValuesToNotBeInSet",
        "ExpectColumnValuesToNotBeNull",
        "ExpectColumnValuesToNotMatchRegex",
        "ExpectCompoundColumnsToBeUnique",
        "ExpectMulticolumnSumToEqual",
        "ExpectSelectColumnValuesToBeUniqueWithinRecord",
    }
)
"""Kinds with a passing and a failing test on DuckDB. Types and columns are the dbt contract's business."""

_COLUMN_ARGUMENTS = ("column", "column_A", "column_B")
_BOUND_ARGUMENTS = ("min_value", "max_value")
_BOUNDED = frozenset(name for name in SUPPORTED if name.endswith("ToBeBetween")) - {
    "ExpectColumnQuantileValuesToBeBetween"
}
"""Kinds that compare with two bounds, each of which may be absent."""
_FLOATS = (ColumnType.FLOAT, ColumnType.DOUBLE)


def column_types(view: FeatureView) -> dict[str, FeatureType]:
    """Type of every column of the view's model, in the order of the declaration."""
    keys = {column.name: column.type for column in view.entities}
    features = {column.name: column.type for column in view.features}
    return keys | {EVENT_TIMESTAMP: ColumnType.TIMESTAMPTZ} | features


def columns_of(expectation: Expectation) -> tuple[str, ...]:
    """The columns an expectation names."""
    named = [expectation.arguments[name] for name in _COLUMN_ARGUMENTS if name in expectation.arguments]
    listed = expectation.arguments.get("column_list", ())
    return tuple(str(name) for name in (*named, *(listed if isinstance(listed, list | tuple) else ())))


def float_columns_of(expectation: Expectation, view: FeatureView) -> tuple[str, ...]:
    """The columns an expectation names that can hold NaN."""
    types = column_types(view)
    return tuple(name for name in columns_of(expectation) if types.get(name) in _FLOATS)


def allows_empty(view: FeatureView) -> bool:
    """Whether the view says that a batch without rows is fine: `allow_empty`, or an expectation of 0 rows or more."""
    return view.quality.allow_empty or any(
        expectation.type == _ROW_COUNT and expectation.arguments.get("min_value") == 0
        for expectation in view.expectations
    )


def _snake(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def check_names(view: FeatureView) -> tuple[str, ...]:
    """One name per expectation of the view, in order: the ledger's and Dagster's name of the check.

    Names are unique in the view: the second expectation of one kind on one column ends in `_2`.
    """
    seen: Counter[str] = Counter()
    names = []
    for expectation in view.expectations:
        name = "_".join(_snake(part) for part in (expectation.type, *columns_of(expectation)))
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(names)


def rule_findings(view: FeatureView) -> tuple[Finding, ...]:
    """What is wrong in the view's expectations as far as it shows without Great Expectations."""
    return tuple(
        Finding(file=view.yaml_path, node=view.key, **problem)
        for expectation in view.expectations
        for problem in _problems(expectation, column_types(view))
    )


def _problems(expectation: Expectation, types: Mapping[str, FeatureType]) -> Iterator[dict[str, str]]:
    if expectation.type not in SUPPORTED:
        yield {
            "problem": f"expectation {expectation.type} is not supported",
            "found": expectation.type,
            "allowed": chosen_from(SUPPORTED),
            "hint": "use a dbt data test, or UnexpectedRowsExpectation with SQL over {batch}",
        }
        return
    if expectation.severity not in SEVERITIES:
        yield {
            "problem": f"{expectation.type} has an unknown severity",
            "found": expectation.severity,
            "allowed": chosen_from(SEVERITIES),
        }
    for column in columns_of(expectation):
        if column not in types:
            yield {
                "problem": f"{expectation.type} names a column the view does not have",
                "found": column,
                "allowed": chosen_from(types),
            }
    query = expectation.arguments.get("unexpected_rows_query")
    if expectation.type == _QUERY and query is not None and "{batch}" not in str(query):
        yield {
            "problem": f"{_QUERY} does not look at the batch",
            "found": str(query),
            "allowed": "SQL over {batch}",
        }
    bounds = [expectation.arguments.get(name) for name in _BOUND_ARGUMENTS]
    if expectation.type in _BOUNDED and all(bound is None for bound in bounds):
        yield {
            "problem": f"{expectation.type} bounds nothing: it would always pass",
            "found": ", ".join(expectation.arguments) or "no arguments",
            "allowed": "min_value, max_value or both",
        }
    judged = str(expectation.arguments.get("column"))
    if types.get(judged) is ColumnType.TIMESTAMPTZ:
        for name in _BOUND_ARGUMENTS:
            value = expectation.arguments.get(name)
            if value is not None and parse_instant(value) is None:
                yield {
                    "problem": f"{expectation.type}: {name} of the timestamp {judged} is no instant",
                    "found": repr(value),
                    "allowed": "date, time and offset, e.g. '2026-01-01T00:00:00+00:00'",
                }


def parse_instant(value: object) -> datetime | None:
    """The instant a bound names, or None if it lacks the time of day or the offset.

    >>> parse_instant("2026-01-01") is None, parse_instant("2026-01-01T00:00:00+00:00") is None
    (True, False)
    """
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return None if instant.tzinfo is None else instant


def prepared_arguments(expectation: Expectation, view: FeatureView) -> dict[str, Any]:
    """The arguments as Great Expectations gets them: bounds on instants and dates as such, not as text."""
    arguments = dict(expectation.arguments)
    kind = column_types(view).get(str(arguments.get("column")))
    for name in _BOUND_ARGUMENTS:
        if arguments.get(name) is None:
            continue
        if kind is ColumnType.TIMESTAMPTZ:
            arguments[name] = parse_instant(arguments[name])
        elif kind is ColumnType.DATE:
            arguments[name] = date.fromisoformat(str(arguments[name]))
    return arguments


def objection(
    expectation: Expectation, *, rows: int, nan_counts: Mapping[str, int], empty_allowed: bool, columns: Sequence[str]
) -> dict[str, Any] | None:
    """Why the batch fails an expectation before the library is asked, or None.

    Args:
        expectation: what is expected.
        rows: rows of the batch.
        nan_counts: per floating-point column, how many NaN the batch holds.
        empty_allowed: whether the view accepts an empty batch.
        columns: columns the expectation names that can hold NaN.
    """
    if expectation.type in (_ROW_COUNT, "ExpectTableRowCountToEqual"):
        return None
    if rows == 0 and not empty_allowed:
        return {"error": "the batch is empty, so nothing can be said of its values", "rows": 0}
    if spoiled := {name: nan_counts[name] for name in columns if nan_counts.get(name)}:
        return {"error": "NaN is no value: write NULL where there is none", "nan": spoiled}
    return None
