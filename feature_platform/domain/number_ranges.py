"""Many whole numbers, most of them neighbours, as the few ranges they form: `5-94, 120`."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""Ordered, disjoint, not adjacent; first and last are both in."""


def to_ranges(numbers: Iterable[int]) -> Ranges:
    """The ranges that hold exactly these numbers.

    >>> to_ranges([5, 6, 7, 12, 9, 8])
    ((5, 9), (12, 12))
    """
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def format_ranges(ranges: Iterable[tuple[int, int]]) -> str:
    """The ranges for people.

    >>> format_ranges([(5, 9), (12, 12)])
    '5-9, 12'
    """
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
