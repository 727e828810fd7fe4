"""Checking parity of a view against the real ledger, lake and store, and repairing what differs.

Rule: a difference is reported only if ledger and store stood still while it was seen; a store that is being written is
looked at again. A repair writes by the same rules as every sync; it deletes only values that this ledger never wrote.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Final

import duckdb

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.lake import connect
from feature_platform.lake.failures import lake_errors
from feature_platform.ledger import Ledger
from feature_platform.online import catalog
from feature_platform.online.writable import WritableStore, open_store
from feature_platform.settings import Settings
from feature_platform.sync.parity.comparing import Comparison, Derivation, count_entities
from feature_platform.sync.parity.judging import Cause, Places
from feature_platform.sync.parity.pushed import PushedComparison
from feature_platform.sync.parity.report import ParityReport, Tally
from feature_platform.sync.parity.sampling import Sample
from feature_platform.sync.push.replaying import replay
from feature_platform.sync.refusals import refuse_store_ahead, served_view
from feature_platform.sync.runner import sync
from feature_platform.sync.writing import TIMEOUT_SECONDS

DEFAULT_SAMPLE: Final = 1_000
MAX_LOOKS: Final = 3
_KEYS_PER_CALL: Final = 1_000

Progress = Callable[[int, int], None]
"""Called with the entities compared so far and those of the sample."""


def check_parity(
    settings: Settings,
    registry: FeatureRegistry,
    view: FeatureView | str,
    *,
    sample: int | None = DEFAULT_SAMPLE,
    at_least: float = 0.0,
    seed: str | None = None,
    lake: duckdb.DuckDBPyConnection | None = None,
    progress: Progress | None = None,
) -> ParityReport:
    """Compare a sample of a view's entities in the online store with what the ledger derives for them.

    Args:
        settings: addresses.
        registry: declarations.
        view: the view, or a reference to it.
        sample: about how many entities to compare; None compares all.
        at_least: a fraction of the entities that the sample does not fall below: that of an earlier comparison, whose
            entities are then, with its seed, all compared again, however many entities there are by now.
        seed: chooses the sample; by default another one each time.
        lake: an open connection to read the lake through; by default one of its own.
        progress: told how far it is.

    Raises:
        RequestError: the view is not served online.
        LedgerConflictError: the store is further than this ledger: another ledger wrote to it.
        NotDeployedError: the lake lacks the view's table or a column of it.
        StoreUnavailableError: the store cannot be reached.
    """
    view = served_view(registry, view)
    seed = uuid.uuid4().hex[:8] if seed is None else seed
    opened = closing(connect(settings, read_only=True)) if lake is None else nullcontext(lake)
    with (
        closing(open_store(settings.valkey_url, TIMEOUT_SECONDS)) as online,
        Ledger.connect(settings.ledger_url) as ledger,
        lake_errors(f"comparing {view.key} with the online store"),
        opened as reading,
    ):
        for look in range(MAX_LOOKS):
            look_at = _Look(view, settings.store, ledger, online, reading)
            report = look_at.compare(sample, seed, progress, at_least=at_least)
            # a store or a ledger that moved meanwhile may have been seen half way: not what a difference is reported on
            if not report.differing or not look_at.moved() or look == MAX_LOOKS - 1:
                break
        _record(ledger, report)
    return report


def _record(ledger: Ledger, report: ParityReport) -> None:
    """Keep what was found: an incident hangs on it until the same entities are found equal."""
    ledger.record_parity(
        view=report.view,
        store=report.store,
        compared=report.compared,
        differing=report.differing,
        only_late=bool(report.differing) and report.only_late,
        fraction=report.fraction,
        seed=report.seed,
        outcomes={kind.value: count for kind, count in report.outcomes.items() if count},
        causes={cause.value: count for cause, count in report.causes.items() if count},
        seconds=report.seconds,
    )


def repair(
    settings: Settings,
    registry: FeatureRegistry,
    report: ParityReport,
    *,
    run_id: str,
    lake: duckdb.DuckDBPyConnection | None = None,
) -> ParityReport:
    """Bring the store back to what the ledger derives, and compare the same sample again.

    What is merely late, or lost with the whole store, is synced. Anything else means that more may be wrong than the
    sample shows: every entity is written again, or, of pushed rows, every living push. Values that this ledger never
    wrote are deleted first, because no sync would overwrite them; only those of the sample are known.

    Raises:
        FeaturePlatformError: as `sync` and `check_parity`.
    """
    if not report.differing:
        return report
    if report.stray:
        with closing(open_store(settings.valkey_url, TIMEOUT_SECONDS)) as online:
            for first in range(0, len(report.stray), _KEYS_PER_CALL):
                online.remove(report.stray[first : first + _KEYS_PER_CALL])
    settled_by_sync = {Cause.LATE_SYNC, Cause.STORE_LOST}
    of_batches = Counter(report.causes) - Counter(report.pushed_causes)
    rebuild = any(cause not in settled_by_sync for cause in of_batches)
    sync(settings, registry, report.view, run_id=run_id, rebuild=rebuild, lake=lake)
    if any(cause not in settled_by_sync for cause in report.pushed_causes):
        with (
            closing(open_store(settings.valkey_url, TIMEOUT_SECONDS)) as online,
            Ledger.connect(settings.ledger_url) as ledger,
        ):
            replay(online, ledger, registry.view(report.view), report.store, again=True)
    # the same fraction and seed choose the same entities, and a greater fraction these and more
    return check_parity(
        settings,
        registry,
        report.view,
        sample=None if report.fraction >= 1 else round(report.fraction * report.entities),
        at_least=report.fraction,
        seed=report.seed,
        lake=lake,
    )


class _Look:
    """One comparison, and whether anything moved during it."""

    def __init__(
        self,
        view: FeatureView,
        store: str,
        ledger: Ledger,
        online: WritableStore,
        lake: duckdb.DuckDBPyConnection,
    ) -> None:
        self._view, self._store = view, store
        self._ledger, self._online, self._lake = ledger, online, lake
        # the store first: what it says it holds, the ledger knows already
        self._seen = online.probe([view.key])
        self._published = ledger.published_batches(view.key)

    def compare(self, sample: int | None, seed: str, progress: Progress | None, *, at_least: float) -> ParityReport:
        """Compare a sample."""
        started = time.monotonic()
        view, held = self._view, self._seen.positions[self._view.key]
        head = self._published[-1].position if self._published else 0
        position = held[1] if held else 0
        refuse_store_ahead(view, position, head)
        places = Places(store=position, synced=self._ledger.synced_position(view.key, self._store), head=head)
        derivation = Derivation(published=self._published)
        entities = count_entities(self._lake, view, derivation, head)
        fraction = 1.0 if sample is None or sample >= entities else max(sample / entities, at_least)
        chosen = Sample(fraction=fraction, seed=seed)
        layouts = catalog.load(self._online).layouts
        layouts_of_view = {number: layout for (key, number), layout in layouts.items() if key == view.key}
        of_batches = Comparison(
            lake=self._lake,
            online=self._online,
            view=view,
            derivation=derivation,
            places=places,
            layouts=layouts_of_view,
            clock=self._ledger.now,
            progress=progress,
        ).run(chosen)
        pushed = Tally()
        if view.push:
            pushed = PushedComparison(
                lake=self._lake,
                ledger=self._ledger,
                online=self._online,
                view=view,
                store=self._store,
                layouts=layouts_of_view,
            ).run(chosen)
        tally = of_batches + pushed
        return ParityReport(
            view=view.key,
            store=self._store,
            places=places,
            entities=entities,
            fraction=fraction,
            seed=seed,
            outcomes=dict(tally.outcomes),
            causes=dict(tally.causes),
            pushed_outcomes=dict(pushed.outcomes),
            pushed_causes=dict(pushed.causes),
            examples=tuple(tally.examples),
            stray=tuple(tally.stray),
            seconds=time.monotonic() - started,
        )

    def moved(self) -> bool:
        """Whether a sync ended, a batch was published or the store changed since the look began."""
        head = self._published[-1].position if self._published else 0
        return self._online.probe([self._view.key]) != self._seen or (self._ledger.head(self._view.key) != head)
