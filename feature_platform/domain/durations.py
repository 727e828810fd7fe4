"""Durations as declarations write them: `28 days`, `90 minutes`, or dbt's `{count: 6, period: hour}`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
LATENCY_ALLOWED = "a whole number of milliseconds, e.g. `20 ms`, or of seconds"
ALLOWED = "a whole number and one of second(s), minute(s), hour(s), day(s), week(s), e.g. `90 minutes`"


def parse_duration(value: object) -> timedelta | None:
    """The duration, or None if it is not one.

    >>> parse_duration("90 minutes"), parse_duration({"count": 1, "period": "day"})
    (datetime.timedelta(seconds=5400), datetime.timedelta(days=1))
    >>> parse_duration("soon") is None
    True
    """
    if isinstance(value, dict) and set(value) >= {"count", "period"}:
        value = f"{value['count']} {value['period']}"
    match = re.fullmatch(r"\s*(\d+)\s+([a-z]+?)s?\s*", value) if isinstance(value, str) else None
    if match is None or match[2] not in _UNITS:
        return None
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except (OverflowError, ValueError):  # ValueError: more digits than Python turns into a number
        return None


def parse_latency(value: object) -> timedelta | None:
    """A latency: milliseconds (`20 ms`), or a duration; None if it is neither or not longer than zero.

    >>> parse_latency("20 ms"), parse_latency("0 ms") is None
    (datetime.timedelta(microseconds=20000), True)
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:ms|milliseconds?)\s*", value) if isinstance(value, str) else None
    latency = timedelta(milliseconds=int(match[1])) if match else parse_duration(value)
    return latency if latency is not None and latency > timedelta(0) else None


def format_duration(duration: timedelta) -> str:
    """The duration for people, in its two largest units.

    >>> format_duration(timedelta(days=1, hours=2, minutes=3)), format_duration(timedelta(0))
    ('1 d 2 h', '0 s')
    """
    seconds = int(duration.total_seconds())
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if (count := seconds // size) or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        seconds %= size
    return sign + " ".join(part for part in parts[:2] if not part.startswith("0 ") or len(parts) == 1)
