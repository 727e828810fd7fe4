"""Keys that are asked for again and again: a short-lived cache of their values, and a sample of which they are.

Rule: both are bounded whatever is asked for, and off the path of a request as far as can be. The cache is off unless
asked for: a value from it may be as old as `cache_seconds` says, and is judged by its event time like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

SAMPLE_EVERY: Final = 61
"""One key in so many is counted. A prime, so that requests of a round number of entities are not always met at one."""
COUNTED: Final = 256
"""Keys with a counter of their own. A new key takes the place and the count of the least seen one (Space-Saving), so a
key's count is too great by at most what the report calls `error`, and no key with a greater share can be missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HotKey:
    """A key that is asked for often."""

    view: str
    """`name@version`."""
    entity: str
    """The entity key as it stands in Valkey, e.g. `EWR,SFO`."""
    share: float
    """Part of all sampled keys."""
    error: float
    """The share may be too great by this."""


class HotKeys:
    """Which keys are asked for most."""

    def __init__(self) -> None:
        self._next = 0
        self._counts: dict[bytes, int] = {}
        self._errors: dict[bytes, int] = {}
        self._sampled = 0
        # keys that were among the least seen when last looked for, and how often those were seen
        self._least: list[bytes] = []
        self._least_count = 0

    def observe(self, keys: Sequence[bytes]) -> None:
        """Count some of these keys."""
        first, count = self._next, len(keys)
        if first < count:
            for key in keys[first::SAMPLE_EVERY]:
                self._count(key)
            self._next = (first - count) % SAMPLE_EVERY
        else:
            self._next = first - count

    def report(self, view: str | None = None) -> tuple[HotKey, ...]:
        """The keys by share, greatest first; those that are certainly hot (share above its error) only."""
        total = self._sampled or 1
        found = []
        for key, count in list(self._counts.items()):
            name, _, entity = key.decode("utf-8", "replace").partition(":{")
            error = self._errors.get(key, 0)
            if count > error + 1 and view in (None, name):
                found.append(
                    HotKey(view=name, entity=entity.removesuffix("}"), share=count / total, error=error / total)
                )
        return tuple(sorted(found, key=lambda hot: (-hot.share, hot.view, hot.entity)))

    def _count(self, key: bytes) -> None:
        counts = self._counts
        self._sampled += 1
        if key in counts:
            counts[key] += 1
        elif len(counts) < COUNTED:
            counts[key] = 1
        else:
            try:
                least = self._least_seen()
                taken = counts.pop(least)
            except (KeyError, IndexError, RuntimeError, ValueError):  # another thread was at it: one sample less
                return
            self._errors.pop(least, None)
            counts[key], self._errors[key] = taken + 1, taken

    def _least_seen(self) -> bytes:
        """A key that no other was seen less often than. Counts only grow, so one search serves many new keys."""
        counts = self._counts
        while True:
            while self._least:
                if counts.get(key := self._least.pop()) == self._least_count:
                    return key
            self._least_count = least = min(counts.values())
            self._least = [key for key, count in counts.items() if count == least]


class ValueCache:
    """Values for a short time, at most so many."""

    def __init__(self, seconds: float, entries: int) -> None:
        self._seconds = seconds
        self._entries = entries
        self._held: dict[bytes, tuple[float, bytes | None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def get(self, keys: Sequence[bytes], now: float) -> dict[bytes, bytes | None]:
        """Those of the keys that are held and not too old."""
        held = self._held
        return {key: entry[1] for key in keys if (entry := held.get(key)) is not None and now < entry[0]}

    def put(self, values: Mapping[bytes, bytes | None], now: float) -> None:
        """Hold values that were read at this time or later; the oldest go when there are too many."""
        held, until = self._held, now + self._seconds
        for key, value in values.items():
            held.pop(key, None)  # to the end: the order of the dict is the order of age
            held[key] = (until, value)
        surplus = len(held) - self._entries
        if surplus > 0:
            try:
                oldest = list(islice(held, surplus))
            except RuntimeError:  # another thread is putting; it will see to it
                return
            for key in oldest:
                held.pop(key, None)
