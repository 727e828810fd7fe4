"""`meta.feature_view.expectations`: Great Expectations' names and arguments, checked as far as JSON allows.

Rule: whether Great Expectations has a class of that name is checked by `quality`, the only importer of it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from feature_platform.declaration.findings import Reporter, did_you_mean, show
from feature_platform.domain.feature_view import Expectation
from feature_platform.domain.quality_rules import SEVERITIES
from feature_platform.errors import chosen_from

FORM = "`- ExpectColumnMeanToBeBetween: {column: …, min_value: …, severity: warn}`"
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list", "column_set")


def parse_expectations(path: str, value: object, columns: Collection[str], reporter: Reporter) -> Iterator[Expectation]:
    """The expectations of a view; whatever is malformed is reported and left out."""
    if value is None:
        return
    if not isinstance(value, list):
        reporter.report(f"`{path}` is not a list", found=show(value), allowed=f"a list of expectations: {FORM}")
        return
    for index, item in enumerate(value):
        place = f"{path}[{index}]"
        if not isinstance(item, Mapping) or len(item) != 1:
            hint = f"write `- {item}: {{}}`" if isinstance(item, str) else "write one expectation per list item"
            reporter.report(f"`{place}` is no expectation", found=show(item), allowed=FORM, hint=hint)
            continue
        ((name, arguments),) = item.items()
        arguments = {} if arguments is None else arguments
        if not re.fullmatch(r"Expect[A-Z]\w*|UnexpectedRowsExpectation", str(name)):
            camel = "".join(part.capitalize() for part in str(name).split("_"))
            reporter.report(
                f"`{place}` is no expectation of Great Expectations",
                found=str(name),
                allowed="its class name, which starts with `Expect`, e.g. `ExpectColumnMeanToBeBetween`",
                hint=f"write `{camel}`" if camel.startswith("Expect") else "",
            )
        elif not isinstance(arguments, Mapping):
            reporter.report(f"`{place}.{name}` has no arguments", found=show(arguments), allowed=FORM)
        else:
            yield _expectation(f"{place}.{name}", str(name), arguments, columns, reporter)


def _expectation(
    place: str, name: str, arguments: Mapping[str, Any], columns: Collection[str], reporter: Reporter
) -> Expectation:
    severity = arguments.get("severity", "error")
    if severity not in SEVERITIES:
        reporter.report(
            f"`{place}.severity` has no such value",
            found=show(severity),
            allowed="`error` (blocks publishing) or `warn` (is recorded)",
            hint=did_you_mean(str(severity), SEVERITIES),
        )
    for argument in _COLUMN_ARGUMENTS:
        named = arguments.get(argument)
        for column in named if isinstance(named, list) else [named] if named is not None else []:
            if column not in columns:
                reporter.report(
                    f"`{place}.{argument}` names a column the view does not have",
                    found=show(column),
                    allowed=chosen_from(columns),
                    hint=did_you_mean(str(column), columns),
                )
    return Expectation(
        type=name,
        arguments=copy.deepcopy({key: value for key, value in arguments.items() if key != "severity"}),
        severity=str(severity),
    )
