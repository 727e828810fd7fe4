"""Errors say what failed, what was found, what is allowed and what to do; the type says whether to retry."""

from __future__ import annotations

import inspect
import re

import pytest

from feature_platform import errors
from feature_platform.errors import (
    FeaturePlatformError,
    Finding,
    InvalidDeclarationsError,
    StoreUnavailableError,
    Transient,
    UnknownNameError,
    chosen_from,
)

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, FeaturePlatformError) and found is not FeaturePlatformError
]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"[├└]── (\w+)(?: .*?(\(Transient\))?$)?", errors.__doc__, flags=re.MULTILINE))
    assert set(drawn) == {found.__name__ for found in CLASSES}
    assert {name for name, mark in drawn.items() if mark} == {c.__name__ for c in CLASSES if issubclass(c, Transient)}


def test_an_error_never_tells_a_password() -> None:
    quoted = """no answer at "postgres:dbname=lake password='a b\\'c' host=h" or postgresql://u:p%40ss@h/ledger"""
    assert str(FeaturePlatformError("failed", found=quoted)).splitlines() == [
        "failed",
        """  found:   no answer at "postgres:dbname=lake password=… host=h" or postgresql://u:…@h/ledger""",
    ]


def test_an_error_prints_only_what_it_knows() -> None:
    error = UnknownNameError("no view 'a'", found="a", allowed="b", hint="ask for b")
    assert str(error).splitlines() == ["no view 'a'", "  found:   a", "  allowed: b", "  next:    ask for b"]
    assert str(UnknownNameError("no view 'a'")) == "no view 'a'"


def test_retry_goes_by_type() -> None:
    with pytest.raises(Transient):
        raise StoreUnavailableError("Valkey did not answer")


def test_all_findings_are_in_the_message() -> None:
    findings = tuple(Finding(file=f"{name}.yml", node="view a", problem="is wrong", hint="mend it") for name in "ab")
    text = str(InvalidDeclarationsError(findings))
    assert text.startswith("2 declaration errors\na.yml: view a: is wrong\n  next:    mend it\nb.yml")
    assert str(InvalidDeclarationsError(findings[:1])).startswith("1 declaration error\n")


def test_names_are_listed_in_a_stable_order() -> None:
    assert (chosen_from({"b", "a"}), chosen_from([])) == ("a, b", "(none)")
