"""Values as JSON has them, and samples of those that failed a check.

Rule: values may be personal data, so none is kept unless the view declares `quality: {samples: true}`; and a sample is
small, whatever failed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

SAMPLES = 5
"""Most values or rows of one check and batch that are kept."""
_LONGEST = 200


def plain(value: Any) -> Any:
    """The value as JSON has it: numpy scalars become numbers, what JSON lacks becomes text."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in list(value)[:20]]
    return str(value)


def sample(values: Iterable[Any]) -> list[Any]:
    """The first few of them, long texts cut.

    >>> sample(["a", {"x": float("nan")}, "b" * 300])[:2]
    ['a', {'x': 'nan'}]
    """
    return [_cut(plain(value)) for value in itertools.islice(values, SAMPLES)]


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
    if isinstance(value, dict):
        return {name: _cut(one) for name, one in value.items()}
    return [_cut(one) for one in value] if isinstance(value, list) else value
