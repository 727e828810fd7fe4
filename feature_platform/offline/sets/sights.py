"""What one label of a set could see of one view, by the set's mode."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView, OnlineTier
from feature_platform.domain.serving_history import ServedHistory, WindowKind
from feature_platform.ledger import Ledger
from feature_platform.offline.point_in_time import Mode
from feature_platform.offline.sets.candidates import Sight
from feature_platform.offline.sets.manifest import Manifest

_FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


def sight_of(
    ledger: Ledger, manifest: Manifest, view: FeatureView, *, keys: Mapping[str, Any], label_time: datetime
) -> Sight:
    """What the label could see.

    Args:
        ledger: to ask for batches.
        manifest: of the set.
        view: as declared when the set was made.
        keys: the label's entity values.
        label_time: the label's time.
    """
    if manifest.mode != Mode.MODELLED and view.online is not OnlineTier.NONE:
        store = manifest.arguments["store"]
        history = ledger.served_history(view.key, store, at_sequence=manifest.at_sequence)
        live = history.live_since
        if manifest.mode == Mode.SERVED or (live is not None and live <= label_time):
            return _served(ledger, view, history, store, keys=keys, label_time=label_time)
    return Sight(
        label_time=label_time,
        keys=keys,
        batches=ledger.active_batches(view.key, at_sequence=manifest.at_sequence),
        until=label_time - view.availability_delay,
        ttl=view.ttl,
        basis=f"modelled: the batches active as of ledger sequence {manifest.at_sequence}; a row is available"
        f" {format_duration(view.availability_delay)} after its event_timestamp",
    )


def _served(
    ledger: Ledger,
    view: FeatureView,
    history: ServedHistory,
    store: str,
    *,
    keys: Mapping[str, Any],
    label_time: datetime,
) -> Sight:
    window = next(iter(history.windows(label_time, label_time)), None)
    position = history.settled_at(label_time)
    if window is not None and window.kind is WindowKind.UNKNOWN:
        batches: tuple[PublishedBatch, ...] = ()
        basis = f"unknown: the ledger cannot say what store {store} held then, so no value is given"
    else:
        batches = ledger.active_batches(view.key, at_position=position)
        basis = f"served: what store {store} held then, the state after the view's first {position} publishes"
        if window is not None:
            asserted = ", ".join(map(str, window.candidates))
            basis += f"; a sync in flight may have brought it to position {asserted} already"
    return Sight(label_time=label_time, keys=keys, batches=batches, until=_FOREVER, ttl=view.ttl, basis=basis)
