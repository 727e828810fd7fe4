"""What one label of a set could see of one view, by the set's mode."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView
from feature_platform.ledger import Ledger
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
    return Sight(
        label_time=label_time,
        keys=keys,
        batches=ledger.active_batches(view.key, at_sequence=manifest.at_sequence),
        until=label_time - view.availability_delay,
        ttl=view.ttl,
        basis=f"modelled: the batches active as of ledger sequence {manifest.at_sequence}; a row is available"
        f" {format_duration(view.availability_delay)} after its event_timestamp",
    )
