"""Earlier batches: which ones a batch is compared with, whether they were published before or belong to the same run.

Rule: the verdict on a partition does not depend on how a backfill was cut: earlier partitions of the same run count
like published ones, later partitions never do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.profile import BatchProfile
from feature_platform.domain.quality_rules import Reference, ReferenceKind
from feature_platform.domain.windows import following

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger

_WEEK = timedelta(weeks=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """Profiles by the start of their partition, and those of training sets."""

    profiles: Mapping[datetime, BatchProfile]
    training_sets: Mapping[str, tuple[BatchProfile, ...] | None] = field(default_factory=dict)
    """None: no such set is kept."""
    starts: Sequence[datetime] = ()
    """Sorted; of `profiles`."""
    rows_since: datetime | None = None
    """The start of the first partition that has rows; None: none has, or no batch of the run is empty."""

    def of(self, reference: Reference, start: datetime) -> tuple[BatchProfile, ...] | None:
        """What the partition that starts then is compared with, newest first; None: its training set does not exist."""
        match reference.kind:
            case ReferenceKind.TRAINING_SET:
                return self.training_sets.get(reference.training_set)
            case ReferenceKind.SAME_WEEKDAY:
                found = (self.profiles.get(at) for at in _same_weekday(start, reference))
                return tuple(one for one in found if one is not None)[: reference.at_most]
            case _:
                place = bisect_left(self.starts, start)
                return tuple(
                    self.profiles[at] for at in reversed(self.starts[max(0, place - reference.at_most) : place])
                )


def load_earlier(
    ledger: Ledger, view: FeatureView, batches: Sequence[Batch], profiles: Iterable[BatchProfile]
) -> Earlier:
    """What the batches of a run are compared with.

    Args:
        ledger: where profiles of earlier batches are.
        view: the view of the batches.
        batches: those of the run.
        profiles: theirs, in the same order.
    """
    own = {batch.partition.start: profile for batch, profile in zip(batches, profiles, strict=True)}
    rules = view.quality.rules
    of_features = [rule.reference for one in view.quality.features.values() for rule in (one.nulls, one.drift) if rule]
    found: dict[datetime, BatchProfile] = {}
    weekly = [rule.reference for rule in rules if rule.reference.kind is ReferenceKind.SAME_WEEKDAY]
    if weekly:
        wanted = {at for start in own for reference in weekly for at in _same_weekday(start, reference)} - own.keys()
        with_features = any(one.kind is ReferenceKind.SAME_WEEKDAY for one in of_features)
        past = ledger.past_at(view.key, wanted, with_features=with_features)
        found |= {one.batch.partition.start: one.profile for one in past}
    last = [rule.reference for rule in rules if rule.reference.kind in (ReferenceKind.PREVIOUS, ReferenceKind.RECENT)]
    if last:
        between = ledger.past_at(view.key, _gaps(view, own), with_features=True)
        before = ledger.past_before(view.key, min(own), limit=max(reference.at_most for reference in last))
        found |= {one.batch.partition.start: one.profile for one in (*between, *before)}
    sets = {rule.reference.training_set: rule.reference for rule in rules if rule.reference.training_set}
    pinned = {
        key: ledger.past_of_training_set(key, view.key, limit=reference.at_most) for key, reference in sets.items()
    }
    found |= own
    return Earlier(
        profiles=found,
        starts=sorted(found),
        rows_since=_rows_since(ledger, view, own),
        training_sets={
            key: None if past is None else tuple(one.profile for one in past) for key, past in pinned.items()
        },
    )


def _rows_since(ledger: Ledger, view: FeatureView, own: Mapping[datetime, BatchProfile]) -> datetime | None:
    """Asked only if it matters: when a batch of the run is empty."""
    if all(profile.row_count for profile in own.values()):
        return None
    known = (ledger.first_with_rows(view.key), *(start for start, profile in own.items() if profile.row_count))
    return min((start for start in known if start is not None), default=None)


def _same_weekday(start: datetime, reference: Reference) -> tuple[datetime, ...]:
    """Where such partitions would start, newest first; a partition in two may be missing."""
    return tuple(start - weeks * _WEEK for weeks in range(1, 2 * reference.at_most + 1))


def _gaps(view: FeatureView, own: Mapping[datetime, BatchProfile]) -> tuple[datetime, ...]:
    """Partitions between the first and the last of a run that are not in it."""
    at, last, gaps = min(own), max(own), []
    while (at := following(at, view.grain)) < last:
        if at not in own:
            gaps.append(at)
    return tuple(gaps)
