"""What one label of a set could see of one view, by the set's mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_service import OutagePolicy
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.serving_history import ServedHistory, WindowKind
from feature_platform.domain.training_set import Mode
from feature_platform.ledger import Ledger
from feature_platform.offline.modes import Outages
from feature_platform.offline.served import FOREVER, without_retired
from feature_platform.offline.sets.candidates import Sight
from feature_platform.offline.sets.manifest import Manifest


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
    as_of, said = label_time, ""
    replayed = manifest.arguments.get("outages")
    if (manifest.mode != Mode.MODELLED or replayed) and view.is_served:
        store = manifest.arguments["store"]
        history = ledger.served_history(view.key, store, at_sequence=manifest.at_sequence)
        outage = history.outage_at(label_time) if replayed else None
        if outage is not None and replayed == Outages.AS_RECORDED:
            policy = manifest.service.outage if manifest.service else OutagePolicy.NULL
            if policy is not OutagePolicy.STALE:
                basis = f"in an outage of store {store}: nothing is given"
                return Sight(label_time=label_time, keys=keys, batches=(), until=FOREVER, ttl=view.ttl, basis=basis)
            as_of, said = outage[0], f"in an outage of store {store}, as of the last instant before; "
        live = history.live_since
        is_live = live is not None and live <= label_time and manifest.mode != Mode.MODELLED
        if manifest.mode == Mode.SERVED or (is_live and (outage is None or as_of != label_time)):
            published = ledger.published_batches(view.key, at_sequence=manifest.at_sequence)
            history = without_retired(history, published, view.ttl)
            sight = _served(ledger, view, history, store, keys=keys, label_time=as_of)
            return replace(sight, label_time=label_time, basis=said + sight.basis)
    return Sight(
        label_time=label_time,
        keys=keys,
        batches=ledger.active_batches(view.key, at_sequence=manifest.at_sequence),
        until=as_of - view.availability_delay,
        ttl=view.ttl,
        basis=f"{said}modelled: the batches active as of ledger sequence {manifest.at_sequence}; a row is available"
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
    live, is_known = history.live_since, window is None or window.kind is not WindowKind.UNKNOWN
    return Sight(
        label_time=label_time,
        keys=keys,
        batches=batches,
        until=FOREVER,
        ttl=view.ttl,
        basis=basis,
        # before the first sync nothing says that the store kept what it acknowledged
        asked_at=label_time if is_known and live is not None and live <= label_time else None,
    )
