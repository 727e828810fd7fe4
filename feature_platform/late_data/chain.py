"""Which rows are to be looked at next: those that arrived between the last look and what is loaded.

Rule: the looks at a source are one chain without gaps, kept in the ledger. It begins where the computed partitions'
own reading ends, so that a first look never reads history.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Arrivals in (after, through]."""

    previous: datetime | None
    """Where the last look ended; None before the first."""
    after: datetime
    through: datetime


def scannable(registry: FeatureRegistry) -> tuple[Source, ...]:
    """The sources whose rows say when they became knowable and when they arrived."""
    return tuple(one for _, one in sorted(registry.sources.items()) if one.event_time and one.loaded_at_field)


def readers(registry: FeatureRegistry, source: Source) -> tuple[FeatureView, ...]:
    """The views that read a source."""
    return tuple(view for view in registry.views.values() if source in view.sources)


def sources_behind(ledger: Ledger, registry: FeatureRegistry) -> dict[str, datetime]:
    """Per source that was loaded further than late rows were looked for: how far it is loaded."""
    intervals = {source.name: next_interval(ledger, registry, source) for source in scannable(registry)}
    return {name: interval.through for name, interval in intervals.items() if interval is not None}


def next_interval(ledger: Ledger, registry: FeatureRegistry, source: Source) -> Interval | None:
    """What is to be looked at of a source; None if there is nothing."""
    through = ledger.loaded_through(source.name)
    previous = ledger.scanned_through(source.name)
    if through is None or (previous is not None and previous >= through):
        return None
    if previous is not None:
        return Interval(previous=previous, after=previous, through=through)
    # what every computed partition has read cannot have come too late for any
    read = [ledger.oldest_reading(view.key, source.name) for view in readers(registry, source)]
    after = min((at for at in read if at is not None), default=None)
    return None if after is None or after >= through else Interval(previous=None, after=after, through=through)
