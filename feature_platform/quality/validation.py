"""Names and arguments of expectations, checked against Great Expectations itself.

Rule: costs the library's import, so it is for `validate`, `deploy`, tests and the start of a judging run, never for
definitions; and for views with expectations alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from feature_platform.domain.feature_view import Expectation, FeatureView
from feature_platform.errors import Finding, InvalidDeclarationsError
from feature_platform.quality.rules import prepared_arguments, rule_findings

# The pinned release sends nothing; this keeps it so in case another one would.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


def refuse_unjudgeable(views: Iterable[FeatureView]) -> None:
    """Refuse declarations whose expectations could never be judged.

    Raises:
        InvalidDeclarationsError: an expectation is not supported, names what is not there or has wrong arguments; holds
            all findings.
    """
    if findings := tuple(finding for view in views for finding in validate_expectations(view)):
        raise InvalidDeclarationsError(findings)


def validate_expectations(view: FeatureView) -> tuple[Finding, ...]:
    """Everything wrong in the view's expectations: kinds, columns, bounds, and arguments as the library sees them."""
    return rule_findings(view) or tuple(_argument_findings(view))


def build_expectations(view: FeatureView) -> tuple[Any, ...]:
    """Great Expectations' own objects, in the order of the declaration.

    Raises:
        InvalidDeclarationsError: a kind, a column or an argument is wrong; every reason is in it.
    """
    if findings := validate_expectations(view):
        raise InvalidDeclarationsError(findings)
    return tuple(_build(expectation, view, index) for index, expectation in enumerate(view.expectations))


def _build(expectation: Expectation, view: FeatureView, index: int) -> Any:
    """One of the library's objects; its id is the place in the declaration, so that answers can be told apart."""
    # imported here because it costs seconds of CPU and is needed by runs with expectations only
    import great_expectations.expectations as kinds

    return getattr(kinds, expectation.type)(id=str(index), **prepared_arguments(expectation, view))


def _argument_findings(view: FeatureView) -> Iterator[Finding]:
    for index, expectation in enumerate(view.expectations):
        try:
            _build(expectation, view, index)
        except (TypeError, ValueError) as error:  # pydantic's ValidationError is a ValueError
            yield Finding(
                file=view.yaml_path,
                node=view.key,
                problem=f"{expectation.type} does not take these arguments",
                found=f"{dict(expectation.arguments)}: {' '.join(str(error).split())}",
                allowed="the arguments Great Expectations documents for it",
            )
