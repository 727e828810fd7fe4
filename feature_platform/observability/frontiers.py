"""How far each stage has got in data time, and how far it lies behind the stage before it.

Rule: lags are gaps between instants of data, so those of one view in one store add up to the age of what it serves, and
the stage that stands still is the one whose lag grows, though nothing runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.domain.feature_view import FeatureView
from feature_platform.ledger import Ledger
from feature_platform.observability.freshness import newest_event

STAGES = ("arrival", "compute", "publish", "sync")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontiers:
    """The newest instant of data that each stage holds of a view; None where it holds nothing yet."""

    view: str
    store: str | None
    """None for a view that is not served."""
    source: datetime | None
    """Up to this arrival instant nothing is missing of any source the view reads."""
    computed: datetime | None
    """Of batches whose rows are in the lake, published or not."""
    published: datetime | None
    served: datetime | None

    def instants(self) -> dict[str, datetime]:
        """The frontiers that exist, in the order of the stages."""
        named = {
            "source": self.source,
            "computed": self.computed,
            "published": self.published,
            "served": self.served,
        }
        return {name: at for name, at in named.items() if at is not None}

    def lags(self, *, now: datetime) -> Mapping[str, timedelta | None]:
        """Per stage, how far its data lies behind what the stage before it has; None where nothing can be said.

        `arrival` is behind the clock. A stage may lie ahead of the one before it: a source that was loaded further
        than the ledger was told, or a store that holds an event whose batch was superseded by an empty one.
        """
        instants: list[datetime | None] = [now, self.source, self.computed, self.published]
        if self.store is not None:
            instants.append(self.served)
        return {
            stage: earlier - later if earlier is not None and later is not None else None
            for stage, earlier, later in zip(STAGES, instants, instants[1:], strict=False)
        }


def frontiers_of(ledger: Ledger, view: FeatureView, store: str) -> Frontiers:
    """How far each stage of a view has got, towards one store."""
    loaded = [ledger.loaded_through(source.name) for source in view.sources]
    reached = [at for at in loaded if at is not None]
    served = view.is_served
    return Frontiers(
        view=view.key,
        store=store if served else None,
        source=min(reached) if reached and len(reached) == len(loaded) else None,
        computed=ledger.computed_through(view.key),
        published=newest_event(ledger.active_batches(view.key)),
        served=newest_event(ledger.active_batches(view.key, at_position=ledger.synced_position(view.key, store)))
        if served
        else None,
    )
