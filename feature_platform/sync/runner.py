"""Run a sync: lake → Valkey, streamed, until the store says it is at the ledger's head.

Rule: the store is asked where it is, the ledger records the beginning before the first write and the end after the
store has advanced; between them every write may be repeated, delayed or overtaken by another sync. Nothing is locked,
and nothing that was not published is ever read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Final

import duckdb

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.serving_history import Asked, Sighting
from feature_platform.errors import (
    LedgerConflictError,
    MemoryLimitError,
    StoreChangedError,
)
from feature_platform.lake import connect
from feature_platform.lake.failures import lake_errors
from feature_platform.ledger import Ledger
from feature_platform.online.functions import PositionPart, StorePosition
from feature_platform.online.writable import WritableStore, open_store
from feature_platform.settings import Settings
from feature_platform.sync import plan as plans
from feature_platform.sync.asserting import Assertion, assertions, newest_event
from feature_platform.sync.encoding import layout_of
from feature_platform.sync.outcome import Counts, SyncResult, Written, and_then
from feature_platform.sync.publishing import ensure_published
from feature_platform.sync.push.replaying import replay, still_holds
from feature_platform.sync.reading import first_row_of
from feature_platform.sync.refusals import refuse_older_declarations, refuse_store_ahead, served_view
from feature_platform.sync.resuming import Notes, Unfinished
from feature_platform.sync.writing import TIMEOUT_SECONDS, Writers, open_writer

MAX_PLANS: Final = 5
"""How often a sync plans again when the store changes under it before it gives up."""
LAKE_MEMORY: Final = "96MB"
"""What DuckDB may hold of a sync's own connection; joins that need more are spilled to disk. Where it cannot do with
that (row groups of wide rows in files that were written in larger ones), the sync begins again with what the settings
allow."""
LAKE_THREADS: Final = 1
"""What DuckDB needs grows with its threads, and one reads faster than a server takes rows."""

Progress = Callable[[int, int], None]
"""Called with the entities sent so far and the entities to assert."""


def sync(
    settings: Settings,
    registry: FeatureRegistry,
    view: FeatureView | str,
    *,
    run_id: str,
    rebuild: bool = False,
    lake: duckdb.DuckDBPyConnection | None = None,
    progress: Progress | None = None,
) -> SyncResult:
    """Bring the online store to the ledger's head for one view. Safe to repeat, and beside others of its kind.

    Args:
        settings: addresses.
        registry: declarations; published to the store if it lost them.
        view: the view, or a reference to it.
        run_id: who does this, for the ledger.
        rebuild: write every entity again, not only those that events since the last sync touch.
        lake: an open connection to read the lake through; by default one of its own.
        progress: told how far it is.

    Raises:
        RequestError: the view is not served online.
        NotDeployedError: the lake lacks the view's table or a column of it, or this process has older declarations.
        LedgerConflictError: the store is further than this ledger: another ledger wrote to it.
        StoreChangedError: the store kept losing its data while it was written.
        StoreUnavailableError: it cannot be reached.
        MemoryLimitError: DuckDB cannot read the view with the memory that the settings allow.
        ClockSkewError: this machine's clock, by which rows are dead or alive, is wrong.
    """
    view = served_view(registry, view)
    with (
        closing(open_store(settings.valkey_url, TIMEOUT_SECONDS)) as online,
        Ledger.connect(settings.ledger_url) as ledger,
    ):
        ledger.check_clock()
        resumed: SyncResult | None = None
        memory = LAKE_MEMORY
        for _ in range(MAX_PLANS):
            # first of all: a store that loses its data from here on refuses to advance, so its documents are safe, too
            asked = ledger.ask()
            begun = online.begin(view.key)
            ensure_published(online, registry, view)
            pushes = replay(online, ledger, view, settings.store) if view.push else None
            attempt = _Attempt(
                settings, view, ledger, online, run_id=run_id, lake=lake, memory=memory, progress=progress
            )
            try:
                result = attempt.run(begun, asked, rebuild=rebuild, pushes=pushes)
            except MemoryLimitError:
                if lake is not None or memory == settings.duckdb_memory:
                    raise
                memory = settings.duckdb_memory
                continue
            if result is not None:
                result = and_then(resumed, result)
                if not attempt.resumes or ledger.head(view.key) == result.to_position:
                    return result
                resumed = result
    raise StoreChangedError(
        f"the online store at {online.name} changed during each of {MAX_PLANS} attempts to write {view.key}",
        hint="look for restarts, failovers or FLUSHALL; the next sync starts from what the store really holds",
    )


class _Attempt:
    """One plan, from asking the store where it is to advancing it."""

    def __init__(
        self,
        settings: Settings,
        view: FeatureView,
        ledger: Ledger,
        online: WritableStore,
        *,
        run_id: str,
        lake: duckdb.DuckDBPyConnection | None,
        memory: str,
        progress: Progress | None,
    ) -> None:
        self._settings = settings
        self._view = view
        self._store = settings.store
        self._ledger = ledger
        self._online = online
        self._run_id = run_id
        self._lake = lake
        self._memory = memory
        self._progress = progress
        self._started = time.monotonic()
        self._layout = layout_of(view)
        self.resumes = False
        """It finished the plan of a sync that was ended; the ledger may be further."""

    def run(
        self,
        begun: StorePosition,
        asked: Asked,
        *,
        rebuild: bool,
        pushes: StorePosition | None,
    ) -> SyncResult | None:
        """The result, or None if the store changed meanwhile."""
        ledger, view = self._ledger, self._view
        head = ledger.head(view.key)
        # after the head was read: whatever it holds was computed by what is deployed now, or earlier
        refuse_older_declarations(view, ledger)
        self._refuse_foreign(begun, head)
        start = 0 if rebuild else begun.position
        left = None if rebuild else self._left(begun, head)
        if left is not None:
            self.resumes, head = True, left.to_position
        parts = (PositionPart(position=0),) if rebuild else begun.parts
        for part in begun.parts:
            _refuse_forgotten(view, ledger, part.position, head)
        active = ledger.active_batches(view.key, at_position=head)
        counts = Counts()
        seen = Sighting(nonce=begun.nonce, position=begun.position)
        if start == head == ledger.synced_position(view.key, self._store):
            ledger.record_look(self._store, asked, {view.key: seen}, server_run_id=begun.server_run_id)
            return self._result(start, head, counts, self._newest_event(active))
        sync_id = ledger.begin_sync(
            view.key,
            self._store,
            start,
            head,
            server_run_id=begun.server_run_id,
            run_id=self._run_id,
            asked=asked,
            seen=seen,
        )
        newest = self._write(tuple((part, self._plan(part, head, active)) for part in parts), counts, begun, left)
        self._refuse_lost_future(counts, head)
        asked = ledger.ask()
        if not self._online.advance(view.key, begun, head):
            return None
        # before the end is recorded, from which on the store's content counts as known
        if pushes is not None and not still_holds(self._online, view, pushes):
            return None
        result = self._result(start, head, counts, newest)
        ledger.end_sync(
            sync_id,
            entities=counts.entities,
            written=counts.written,
            tombstones=counts.tombstones,
            refused=counts.refused,
            seconds=result.seconds,
            bytes_sent=counts.bytes,
            asked=asked,
            nonce=begun.nonce,
        )
        return result

    def _refuse_foreign(self, begun: StorePosition, head: int) -> None:
        """Only what this ledger brought the store to may be built upon.

        A ledger that was restored from a backup grows past what the store got of its other future: by numbers alone the
        two would then agree, and values that nobody knows of be served for good.
        """
        refuse_store_ahead(self._view, begun.furthest, head)
        key = self._view.key
        for position in {begun.furthest, *(part.position for part in begun.parts)} - {0}:
            if not self._ledger.is_of_this_ledger(key, self._store, position):
                raise LedgerConflictError(
                    f"the online store holds {key} as of position {position}, where this ledger never brought it",
                    found="a store that was written from another ledger, or from this one before it was restored",
                    hint="empty this store, then sync: an empty one is written anew",
                )

    def _refuse_lost_future(self, counts: Counts, head: int) -> None:
        """Rows that the store kept as newer are another sync's, which overtook this one, or nobody's that is known."""
        if counts.refused and self._ledger.head(self._view.key) == head:
            raise LedgerConflictError(
                f"the online store holds {counts.refused} entities of {self._view.key} as of a later position than"
                f" {head}, where this ledger ends",
                found="rows of a sync that never ended, from another ledger, or from this one before it was restored",
                hint="empty this store, then sync: an empty one is written anew",
            )

    def _left(self, begun: StorePosition, head: int) -> Unfinished | None:
        """What a sync that was ended left of the plan that would be made now, or of a shorter one."""
        left = Unfinished.parse(begun.progress)
        if (
            left is None
            or len(begun.parts) > 1
            or left.from_position != begun.position
            or not begun.position < left.to_position <= head
            or left.layout_id != self._layout.layout_id
        ):
            return None
        return left

    @contextmanager
    def _open_lake(self) -> Iterator[duckdb.DuckDBPyConnection]:
        if self._lake is not None:
            yield self._lake
            return
        with closing(connect(self._settings, read_only=True, threads=LAKE_THREADS, memory=self._memory)) as lake:
            yield lake

    def _plan(self, part: PositionPart, head: int, active: tuple[PublishedBatch, ...]) -> plans.SyncPlan:
        """What brings a part of the store to a position."""
        key, ledger = self._view.key, self._ledger
        return plans.plan_sync(
            part.position,
            head,
            published=ledger.published_between(key, part.position, head),
            superseded=ledger.superseded_between(key, part.position, head),
            active=active,
        )

    def _write(
        self,
        planned: tuple[tuple[PositionPart, plans.SyncPlan], ...],
        counts: Counts,
        begun: StorePosition,
        left: Unfinished | None,
    ) -> datetime | None:
        """Write all that the plans assert, each of its part of the store; the newest event time of what they reach."""
        view, (_, whole) = self._view, planned[0]
        if not whole.active and all(plan.touched is None for _, plan in planned):
            return None
        with lake_errors(f"reading {view.key} for the online store"), self._open_lake() as lake:
            for part, plan in planned:
                if plan.touched is None:
                    continue
                writers = Writers(open_writer(self._online, begun, part, expires=view.ttl is not None))
                notes, first_row = (None, 0) if part.slots else self._notes(lake, plan, begun, left)
                with closing(assertions(lake, view, plan, first_row=first_row)) as asserted, writers.running():
                    self._send(asserted, writers, counts, notes)
            return newest_event(lake, view, whole)  # all reach the same state

    def _notes(
        self,
        lake: duckdb.DuckDBPyConnection,
        plan: plans.SyncPlan,
        begun: StorePosition,
        left: Unfinished | None,
    ) -> tuple[Notes | None, int]:
        """What follows how far the newest batch is written, and the number of its first row that is not."""
        if plan.newest is None:
            return None, 0
        (batch_id,) = plan.newest.batch.batch_ids
        first = first_row_of(lake, self._view, plan.newest.batch)
        if first is None:
            return None, 0
        if left is not None and left.batch_id == batch_id:
            first = max(first, left.next_row)

        def note(next_row: int) -> None:
            progress = Unfinished(
                from_position=plan.from_position,
                to_position=plan.to_position,
                layout_id=self._layout.layout_id,
                batch_id=batch_id,
                next_row=next_row,
            )
            self._online.note(self._view.key, begun, str(progress))

        return Notes.start(first, note), first

    def _send(self, asserted: Iterable[Assertion], writers: Writers, counts: Counts, notes: Notes | None) -> None:
        total = 0

        def told(done: Written) -> None:
            counts.add(done)
            if notes is not None and done.lines is not None:
                notes.acknowledged(done.lines)
            if self._progress:
                self._progress(counts.entities, total)

        for assertion in asserted:
            total = assertion.total
            for done in writers.put(assertion.encode, assertion.lines, absent=assertion.absent):
                told(done)
        for done in writers.finish():
            told(done)

    def _newest_event(self, active: tuple[PublishedBatch, ...]) -> datetime | None:
        plan = plans.plan_sync(0, 0, published=(), superseded=(), active=active)
        if not plan.active:
            return None
        with lake_errors(f"reading {self._view.key} for the online store"), self._open_lake() as lake:
            return newest_event(lake, self._view, plan)

    def _result(self, start: int, head: int, counts: Counts, newest: datetime | None) -> SyncResult:
        return SyncResult(
            view=self._view.key,
            store=self._store,
            from_position=start,
            to_position=head,
            entities=counts.entities,
            written=counts.written,
            tombstones=counts.tombstones,
            refused=counts.refused,
            bytes=counts.bytes,
            seconds=time.monotonic() - self._started,
            newest_event_timestamp=newest,
        )


def _refuse_forgotten(view: FeatureView, ledger: Ledger, position: int, head: int) -> None:
    """Which entities have lost a row since is told by rows; dead ones matter to nobody, but without ttl none dies."""
    if view.ttl is not None or not position:
        return
    between = (
        *ledger.published_between(view.key, position, head),
        *ledger.superseded_between(view.key, position, head),
    )
    if any(batch.retired_seq is not None and batch.row_count for batch in between):
        raise LedgerConflictError(
            f"the online store holds {view.key} as of position {position}, and rows that tell what has changed since"
            " were deleted by retention",
            found="a store that was set back: retention waits for every store it knows",
            hint=f"empty this store, then sync: an empty one is written anew, to position {head}",
        )
