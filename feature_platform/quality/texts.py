"""Profiles and verdicts in words, for terminals and for Dagster's pages. Pure text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.profile import QUANTILES, FeatureProfile
from feature_platform.domain.types import ColumnType, FeatureType, ListType

if TYPE_CHECKING:
    from feature_platform.quality.history import FeatureInBatch

_SHOWN = 3
_DECLARED_CHARACTERS = 200


def number(value: float | str | None) -> str:
    """A number with four digits that count; instants and dates as they are.

    >>> number(1234567.8), number(0.123456), number(3.0), number(None), number("2026-01-01")
    ('1,235,000', '0.1235', '3', '-', '2026-01-01')
    """
    if value is None or isinstance(value, str):
        return value or "-"
    short = float(f"{value:.4g}")
    if short and not 1e-4 <= abs(short) < 1e15:  # noqa: PLR2004 - what people read without an exponent
        return f"{short:g}"
    text = f"{short:,.10f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def percent(share: float | None) -> str:
    """A share for people; what is not nothing never reads 0 %.

    >>> percent(0.125), percent(0.0), percent(0.00004), percent(None)
    ('12.5 %', '0 %', '<0.1 %', '-')
    """
    if share is None:
        return "-"
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f}".removesuffix(".0") + " %"  # noqa: PLR2004


def missing_text(found: FeatureInBatch) -> str:
    """The share of rows without a value, and NaN if there are any."""
    nans = found.profile.nans if found.profile else 0
    return percent(found.null_rate) + (f", {nans:,} NaN" if nans else "")


def value_of(profile: FeatureProfile | None, type_: FeatureType) -> str:
    """What stands for the values: the mean, the share of true, the most frequent text, the newest instant."""
    if profile is None or (profile.distinct == 0 and not profile.nans):
        return "-"
    if type_ is ColumnType.BOOLEAN and profile.mean is not None:
        return f"true {percent(profile.mean)}"
    if profile.top:
        value, count = profile.top[0]
        return f"{value}, {count:,} times"
    if profile.mean is not None:
        return f"mean {number(profile.mean)}"
    if isinstance(type_, ListType):
        return f"length {number(profile.minimum)} to {number(profile.maximum)}"
    return f"up to {profile.maximum}" if isinstance(profile.maximum, str) else f"{profile.distinct or 0:,} different"


def range_text(profile: FeatureProfile | None) -> str:
    """Where nine tenths of the values lie."""
    if profile is None or not profile.quantiles:
        return "-"
    low, high = (profile.quantiles[QUANTILES.index(point)] for point in (0.05, 0.95))
    return f"{number(low)} to {number(high)}"


def drift_text(found: FeatureInBatch) -> str:
    """The distance, and after a warning what would have been allowed."""
    if found.drift is None:
        return "-"
    return number(found.drift) + (f" > {number(found.drift_allowed)}" if found.drift_allowed is not None else "")


def said_of(outcome: CheckOutcome) -> str:
    """What a check observed, in one line.

    >>> outcome = CheckOutcome(batch_id="b", check="batch_volume", kind="profile", passed=False, blocking=False,
    ...     detail={"observed_value": 20, "observed": 20, "usual": 101.5, "allowed": 50.75})
    >>> said_of(outcome)
    'observed 20, usual 101.5, allowed 50.75'
    >>> outcome = CheckOutcome(batch_id="b", check="c", kind="expectation", passed=False, blocking=True,
    ...     detail={"observed_value": 77.36, "declared": {"min_value": 80, "max_value": 90}})
    >>> said_of(outcome)
    'observed 77.36, declared min_value 80 and max_value 90'
    """
    detail = outcome.detail
    if failed := detail.get("failed"):
        texts = [f"{name} {_compared(one)}" for name, one in list(failed.items())[:_SHOWN]]
        return "; ".join([*texts, *([f"and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else [])])
    if text := detail.get("message") or detail.get("error"):
        return " ".join(str(text).split())
    silent = detail.get("silent")
    if isinstance(silent, str):
        return silent
    if silent and not detail.get("observed"):
        return "; ".join(f"{reason} ({len(features)} features)" for reason, features in silent.items())
    return _compared(detail)


def _compared(detail: Mapping[str, Any]) -> str:
    names = {
        "observed_value": "observed",
        "observed": "observed",
        "usual": "usual",
        "allowed": "allowed",
        "unexpected_count": "unexpected",
        "failing_rows": "failing rows",
        "rows": "rows",
    }
    values: dict[str, str] = {}
    for key, word in names.items():
        value = detail.get(key)
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            values[word] = value if isinstance(value, str) else number(value)
    if declared := detail.get("declared"):
        values["declared"] = " and ".join(f"{name} {value}" for name, value in declared.items())[:_DECLARED_CHARACTERS]
    text = ", ".join(f"{word} {value}" for word, value in values.items())
    return "; ".join(filter(None, (text, str(detail.get("reason") or detail.get("error") or ""))))
