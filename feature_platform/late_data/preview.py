"""What is late now, what is going to be done about it, what that costs and whom it concerns; from the ledger alone.

Rule: pure numbers under stable names, so that the command line, the UI and an exporter say the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.late_data import Lags, LatePartition, LateState, judge_late
from feature_platform.domain.windows import Partition, adjacent
from feature_platform.late_data.chain import scannable
from feature_platform.ledger import Ledger

_SPANS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLateness:
    """How rows of a source arrive, as the last look saw it."""

    source: str
    reporting_lag: timedelta
    loaded_through: datetime | None
    scanned_through: datetime | None
    """Up to which arrival instant late rows were looked for."""
    rows: int
    """Rows of the last look."""
    overdue_rows: int
    lags: Lags | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LateEntry:
    """The late partitions of one view that are in one state."""

    view: str
    owner: str
    policy: str
    window: timedelta
    state: LateState
    partitions: tuple[LatePartition, ...]
    services: tuple[str, ...]
    """Consumers that read the view."""
    training_sets: tuple[str, ...]
    """Kept training sets that were made of the batches without the rows."""

    @property
    def late_rows(self) -> int:
        """Rows, counted once per partition that missed them."""
        return sum(one.row_count for one in self.partitions)

    @property
    def longest_lag(self) -> timedelta:
        """The longest time from event time to arrival."""
        return max(one.longest_lag for one in self.partitions)

    @property
    def compute_seconds(self) -> float:
        """What computing the partitions took when they were computed last."""
        return sum(one.compute_seconds for one in self.partitions)

    @property
    def rows_to_compute(self) -> int:
        """Rows of the batches as they are."""
        return sum(one.active_rows for one in self.partitions)

    @property
    def next_step(self) -> str:
        """What happens by itself, or what to do."""
        by_hand = "`, `".join(self._backfills())
        return {
            LateState.DUE: f"the sensor recompute_late_partitions asks for it; by hand: `{by_hand}`",
            LateState.RUNNING: "wait for its run, or see `feature-platform ledger unfinished`",
            LateState.FAILED: f"see `feature-platform ledger batches {self.view}`, correct, then `{by_hand}`",
            LateState.HELD: f"`feature-platform late diff {self.view}`, then `late approve` or `late reject`",
            LateState.REJECTED: f"nothing; to compute it all the same: `{by_hand}`",
            LateState.BEYOND: f"widen `late_data.window`, or `{by_hand}`",
            LateState.IGNORED: f"nothing; to compute it all the same: `{by_hand}`",
        }[self.state]

    def _backfills(self) -> Iterator[str]:
        """What computes the partitions and no others; all between the first and the last if they are very scattered."""
        partitions = tuple(one.partition for one in self.partitions)
        spans = adjacent(partitions)
        for span in spans if len(spans) <= _SPANS else (partitions,):
            yield f"feature-platform backfill {self.view} --from {span[0].key} --to {span[-1].key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LateReport:
    """Everything about late data at one moment."""

    sources: tuple[SourceLateness, ...]
    entries: tuple[LateEntry, ...]
    not_looked_at: tuple[str, ...]
    """Sources whose rows do not say when they became knowable, or when they arrived."""


def partitions_by_state(ledger: Ledger, view: FeatureView) -> dict[str, int]:
    """How many late partitions of a view are in which state; none that is zero."""
    found = Counter(judge_late(late, view.late_data) for late in ledger.late_partitions(view.key))
    return {state.value: found[state] for state in LateState if found[state]}


def preview(ledger: Ledger, registry: FeatureRegistry, views: Sequence[FeatureView] | None = None) -> LateReport:
    """What is late of these views, or of all."""
    chosen = tuple(registry.views.values()) if views is None else tuple(views)
    named = {source.name for view in chosen for source in view.sources}
    return LateReport(
        sources=tuple(source for source in _sources(ledger, registry) if source.source in named),
        entries=tuple(entry for view in chosen for entry in _entries(ledger, registry, view)),
        not_looked_at=tuple(sorted(named - {source.name for source in scannable(registry)})),
    )


def _sources(ledger: Ledger, registry: FeatureRegistry) -> tuple[SourceLateness, ...]:
    found = []
    for source in scannable(registry):
        last = next(iter(ledger.scans(source.name, limit=1)), None)
        found.append(
            SourceLateness(
                source=source.name,
                reporting_lag=source.reporting_lag,
                loaded_through=ledger.loaded_through(source.name),
                scanned_through=last.arrived_through if last else None,
                rows=last.row_count if last else 0,
                overdue_rows=last.overdue_rows if last else 0,
                lags=last.lags if last else None,
            )
        )
    return tuple(found)


def _entries(ledger: Ledger, registry: FeatureRegistry, view: FeatureView) -> tuple[LateEntry, ...]:
    by_state: defaultdict[LateState, list[LatePartition]] = defaultdict(list)
    for late in ledger.late_partitions(view.key):
        by_state[judge_late(late, view.late_data)].append(late)
    if not by_state:
        return ()
    affected = _affected_sets(ledger, view)
    services = tuple(service.name for service in registry.services_reading(view.key))
    return tuple(
        LateEntry(
            view=view.key,
            owner=view.owner.email,
            policy=view.late_data.policy.value,
            window=view.late_data.window,
            state=state,
            partitions=tuple(by_state[state]),
            services=services,
            training_sets=tuple(sorted({one for late in by_state[state] for one in affected[late.partition]})),
        )
        for state in LateState
        if state in by_state
    )


def _affected_sets(ledger: Ledger, view: FeatureView) -> defaultdict[Partition, set[str]]:
    """The kept sets that were made of a partition without its late rows: of its active batch, or of an older one."""
    needed = ledger.batches_sets_need(view.key)
    active = {batch.partition: batch.seq for batch in ledger.active_batches(view.key)} if needed else {}
    affected: defaultdict[Partition, set[str]] = defaultdict(set)
    for batch in ledger.published_batches(view.key) if needed else ():
        # what was opened before the active batch had not read more than that one
        if batch.seq <= active.get(batch.partition, -1):
            affected[batch.partition].update(needed.get(batch.batch_id, ()))
    return affected
