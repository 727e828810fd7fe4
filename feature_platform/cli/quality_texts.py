"""How `feature-platform quality` writes numbers, trends and what checks said. Pure text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.profile import FeatureProfile
from feature_platform.domain.types import ColumnType, FeatureType, ListType

if TYPE_CHECKING:
    from feature_platform.quality import BatchInHistory, FeatureInBatch

_BLOCKS = "▁▂▃▄▅▆▇█"
_MARKS = {"passed": "·", "silent": "·", "warned": "w", "failed": "F"}
_WORSE = " ·wF"
_WIDTH = 30
_SHOWN = 3
_Value = TypeVar("_Value")


def sparkline(values: Sequence[float | None]) -> str:
    """One character per value, from the least to the greatest; a space where there is none. Many values are averaged.

    >>> sparkline([1, 2, None, 8]), sparkline([5, 5]), len(sparkline(range(100)))
    ('▁▂ █', '▄▄', 25)
    """
    values = [fmean(some) if (some := [one for one in group if one is not None]) else None for group in _groups(values)]
    known = [value for value in values if value is not None]
    least, greatest = min(known, default=0.0), max(known, default=0.0)
    if least == greatest:
        return "".join(" " if value is None else "▄" for value in values)
    step = (greatest - least) / (len(_BLOCKS) - 1)
    return "".join(" " if value is None else _BLOCKS[round((value - least) / step)] for value in values)


def _groups(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """At most `_WIDTH` neighbouring groups of one size."""
    size = max(1, -(-len(values) // _WIDTH))
    return (values[start : start + size] for start in range(0, len(values), size))


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


def trend_of(profile: FeatureProfile | None, type_: FeatureType) -> float | None:
    """The number whose trend is drawn: the mean where there is one, else how many different values."""
    if profile is None:
        return None
    if profile.mean is not None or type_ is ColumnType.BOOLEAN:
        return profile.mean
    return profile.distinct or None


def drift_text(found: FeatureInBatch) -> str:
    """The distance, and after a warning what would have been allowed."""
    if found.drift is None:
        return "-"
    return number(found.drift) + (f" > {number(found.drift_allowed)}" if found.drift_allowed is not None else "")


def marks(check: str, history: Sequence[BatchInHistory]) -> str:
    """One character per batch: what a check said, or a space where it did not speak. Of many batches, the worst."""
    from feature_platform.quality import verdict

    said = [next((_MARKS[verdict(found)] for found in one.checks if found.check == check), " ") for one in history]
    return "".join(max(group, key=_WORSE.index) for group in _groups(said))


def last_told(check: str, history: Sequence[BatchInHistory]) -> str:
    """What a check said when it last warned or failed, and of which partition."""
    return next(
        f"{one.judged.batch.partition.key}: {said_of(found)}"
        for one in reversed(history)
        for found in one.checks
        if found.check == check and not found.passed
    )


def said_of(outcome: CheckOutcome) -> str:
    """What a check observed, in one line.

    >>> outcome = CheckOutcome(batch_id="b", check="batch_volume", kind="profile", passed=False, blocking=False,
    ...     detail={"observed_value": 20, "observed": 20, "usual": 101.5, "allowed": 50.75})
    >>> said_of(outcome)
    'observed 20, usual 101.5, allowed 50.75'
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
    text = ", ".join(f"{word} {value}" for word, value in values.items())
    return "; ".join(filter(None, (text, str(detail.get("reason") or detail.get("error") or ""))))
