"""Where the values of a training set come from, per label and view.

Rule: a value that cannot be vouched for is not given: `unknown` has none.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Provenance(enum.StrEnum):
    """How a label was answered for one view; the column `<view>__provenance`."""

    SERVED_EXACT = "served_exact"
    """What the online store held, also if that was nothing."""
    SERVED_AMBIGUOUS = "served_ambiguous"
    """A sync was in flight and made a difference: the value before it, or already one after it."""
    UNKNOWN = "unknown"
    """The ledger cannot say what the store held: a store incident, or the store was not seen again yet."""
    MODELLED = "modelled"
    """What would have been seen, had the view been live."""
    OUTAGE = "outage"
    """The store was lost then; answered by the service's policy for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceCounts:
    """How many labels were answered in which way for one view."""

    modelled: int
    served_exact: int
    served_ambiguous: int
    unknown: int
    unconfirmed: int
    """Of the unknown ones, those after the store was last seen: answered once it is seen again."""
    outage: int = 0

    def __str__(self) -> str:
        counts = {
            "modelled": self.modelled,
            "served": self.served_exact,
            "served, but a sync was in flight": self.served_ambiguous,
            "unknown": self.unknown,
            "in an outage": self.outage,
        }
        said = ", ".join(f"{count:,} {how}" for how, count in counts.items() if count)
        return (said or "no labels") + (
            f" (the store was not seen since for {self.unconfirmed:,})" * bool(self.unconfirmed)
        )
