"""Where to cut: which partitions to rebuild, and at which instants. Pure, and seeded.

Rule: the partition under audit is rebuilt together with the one after it, as a backfill would. The window macros prune
with the run's own bounds; in a run of one partition those bounds alone would hide what a model reads past its rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Partition, aware_utc, floor, partition_starting, partitions_between
from feature_platform.errors import RequestError

_INSIDE = 2
"""Instants taken from the rows of a partition, besides its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Partitions that are rebuilt together."""

    partitions: tuple[Partition, ...]
    through: datetime
    """The newest event_timestamp under audit."""
    instants: tuple[datetime, ...] = ()
    """Where to cut; empty: where the rows' own stamps lie, and at `through`."""


def runs_at(view: FeatureView, instants: Sequence[datetime]) -> tuple[Run, ...]:
    """One run per instant: the partition that holds it, with its neighbours.

    Raises:
        TimestampError: an instant has no time zone.
        RequestError: an instant lies before the view's first partition.
    """
    found = []
    for instant in sorted({aware_utc(instant, "--at") for instant in instants}):
        if instant <= view.begin:
            raise RequestError(
                f"{instant.isoformat()} lies before the beginning of {view.key}",
                allowed=f"after {view.begin.isoformat()}",
            )
        holding = _holding(instant, view)
        before = (_holding(holding.start, view),) if holding.start > view.begin else ()
        after = partition_starting(holding.end, view.grain)
        found.append(Run(partitions=(*before, holding, after), through=instant, instants=(instant,)))
    return tuple(found)


def sample_runs(view: FeatureView, known: tuple[datetime, datetime], *, count: int, seed: int) -> tuple[Run, ...]:
    """Partitions spread over the history of the sources, one at random out of each of `count` equal stretches.

    Args:
        view: whose partitions.
        known: the first and last event time of its sources. A partition that nothing follows proves nothing.
        count: how many.
        seed: of the choice.
    """
    first, last = known
    candidates = list(partitions_between(max(view.begin, floor(first, view.grain)), last, view.grain))
    # S311: a sample, no secret
    chance = random.Random(f"{seed}:{view.key}")  # noqa: S311
    stretches = min(count, len(candidates))
    chosen = [
        candidates[chance.randrange(i * len(candidates) // stretches, (i + 1) * len(candidates) // stretches)]
        for i in range(stretches)
    ]
    return tuple(
        Run(partitions=(partition, partition_starting(partition.end, view.grain)), through=partition.end)
        for partition in chosen
    )


def choose_instants(run: Run, stamps: Sequence[datetime], *, seed: int) -> tuple[datetime, ...]:
    """The instants of a run: those asked for, else its end and some of the stamps its rows carry, the first included.

    A cut at the end of a partition alone misses rows that are stamped too early.
    """
    if run.instants:
        return run.instants
    inside = sorted(set(stamps) - {run.through})
    chance = random.Random(f"{seed}:{run.through.isoformat()}")  # noqa: S311
    drawn = chance.sample(inside[1:], min(_INSIDE - 1, max(len(inside) - 1, 0)))
    return tuple(sorted({run.through, *inside[:1], *drawn}))


def _holding(instant: datetime, view: FeatureView) -> Partition:
    """The partition (start, end] that holds an instant."""
    return partition_starting(floor(instant - timedelta(microseconds=1), view.grain), view.grain)
