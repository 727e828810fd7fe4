"""Many whole numbers, most of them neighbours, as the few ranges they form: `5-94, 120`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

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


def subtract(ranges: Ranges, others: Ranges) -> Ranges:
    """The numbers of the first that are not in the second, without counting through them.

    >>> subtract(((1, 10),), ((3, 4), (10, 12)))
    ((1, 2), (5, 9))
    """
    left: list[tuple[int, int]] = []
    skipped = 0
    for first, last in ranges:
        while skipped < len(others) and others[skipped][1] < first:
            skipped += 1
        for begin, end in islice(others, skipped, None):
            if begin > last:
                break
            if begin > first:
                left.append((first, begin - 1))
            first = max(first, end + 1)  # noqa: PLW2901 - what is left of this range
        if first <= last:
            left.append((first, last))
    return tuple(left)
