"""Syncs of several online stores (regions) at once.

Rule: stores are independent of each other. Each has a thread, a plan and a position of its own; one that is down holds
nobody, and is brought to the ledger's head by the next sync that reaches it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import duckdb

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import FeaturePlatformError, StoreUnavailableError, Transient
from feature_platform.settings import Settings
from feature_platform.sync.outcome import SyncResult
from feature_platform.sync.runner import sync

StoreProgress = Callable[[str, str, int, int], None]
"""Called with store, view, entities sent so far, entities to assert; from several threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOutcome:
    """What became of one view in one store: a result, or why there is none."""

    view: str
    store: str
    result: SyncResult | None = None
    error: FeaturePlatformError | None = None


def sync_stores(
    settings: Settings,
    registry: FeatureRegistry,
    views: Sequence[FeatureView],
    *,
    run_id: str,
    stores: Iterable[str] = (),
    rebuild: bool = False,
    lake: duckdb.DuckDBPyConnection | None = None,
    progress: StoreProgress | None = None,
) -> tuple[StoreOutcome, ...]:
    """Bring stores to the ledger's head for these views. What fails in one store is an outcome, and raises nothing.

    Args:
        settings: addresses.
        registry: declarations.
        views: the views, in this order.
        run_id: who does this, for the ledger.
        stores: names of stores; by default all that the settings know.
        rebuild: write every entity again.
        lake: an open connection; one store reads through it, each other one opens its own.
        progress: told how far each is.

    Raises:
        UnknownNameError: the settings know no such store.
    """
    places = [settings.at_store(store) for store in stores or settings.all_stores]
    lanes = [
        _Lane(place, registry, views, run_id=run_id, rebuild=rebuild, lake=None if i else lake, progress=progress)
        for i, place in enumerate(places)
    ]
    if len(lanes) == 1:
        lanes[0].run()
    else:
        # daemons: Ctrl-C must not wait for a region that does not answer
        threads = [threading.Thread(target=lane.run, name=f"sync-{lane.store}", daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for lane in lanes:
        if lane.broke is not None:
            raise lane.broke
    return tuple(outcome for lane in lanes for outcome in lane.outcomes)


def raise_failures(outcomes: Iterable[StoreOutcome]) -> None:
    """Raise the error of a store, if there is one: what must be repaired before what may succeed by itself.

    Raises:
        FeaturePlatformError: a store was not brought to the ledger's head.
    """
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Transient))


class _Lane:
    """One store: its views, one after the other."""

    def __init__(
        self,
        settings: Settings,
        registry: FeatureRegistry,
        views: Sequence[FeatureView],
        *,
        run_id: str,
        rebuild: bool,
        lake: duckdb.DuckDBPyConnection | None,
        progress: StoreProgress | None,
    ) -> None:
        self.store = settings.store
        self.outcomes: list[StoreOutcome] = []
        self.broke: BaseException | None = None
        self._settings, self._registry, self._views = settings, registry, views
        self._run_id, self._rebuild, self._lake, self._progress = run_id, rebuild, lake, progress

    def run(self) -> None:
        """Sync all views; errors of the platform become outcomes, anything else is kept for the caller to raise."""
        down: StoreUnavailableError | None = None
        try:
            for view in self._views:
                # a store that is down for one view is not waited for once more for each of the others
                down = down or self._sync(view)
                if down is not None:
                    self.outcomes.append(StoreOutcome(view=view.key, store=self.store, error=down))
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self.broke = error

    def _sync(self, view: FeatureView) -> StoreUnavailableError | None:
        progress, store = self._progress, self.store
        try:
            result = sync(
                self._settings,
                self._registry,
                view,
                run_id=self._run_id,
                rebuild=self._rebuild,
                lake=self._lake,
                progress=(lambda done, total: progress(store, view.key, done, total)) if progress else None,
            )
        except StoreUnavailableError as error:
            return error
        except FeaturePlatformError as error:
            self.outcomes.append(StoreOutcome(view=view.key, store=store, error=error))
        else:
            self.outcomes.append(StoreOutcome(view=view.key, store=store, result=result))
        return None
