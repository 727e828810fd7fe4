"""How `feature-platform quality` draws trends and sums up what checks said. Pure text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TypeVar

from feature_platform.domain.profile import FeatureProfile
from feature_platform.domain.types import ColumnType, FeatureType
from feature_platform.quality import BatchInHistory, said_of, verdict

_BLOCKS = "▁▂▃▄▅▆▇█"
_MARKS = {"passed": "·", "silent": "·", "warned": "w", "failed": "F"}
_WORSE = " ·wF"
_WIDTH = 30
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


def trend_of(profile: FeatureProfile | None, type_: FeatureType) -> float | None:
    """The number whose trend is drawn: the mean where there is one, else how many different values."""
    if profile is None:
        return None
    if profile.mean is not None or type_ is ColumnType.BOOLEAN:
        return profile.mean
    return profile.distinct or None


def marks(check: str, history: Sequence[BatchInHistory]) -> str:
    """One character per batch: what a check said, or a space where it did not speak. Of many batches, the worst."""
    said = [next((_MARKS[verdict(found)] for found in one.checks if found.check == check), " ") for one in history]
    return "".join(max(group, key=_WORSE.index) for group in _groups(said))


def last_told(check: str, history: Sequence[BatchInHistory]) -> str:
    """What a check said when it last warned or failed, and of which partition."""
    return next(
        f"{one.record.batch.partition.key}: {said_of(found)}"
        for one in reversed(history)
        for found in one.checks
        if found.check == check and not found.passed
    )
