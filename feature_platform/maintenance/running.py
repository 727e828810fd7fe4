"""One run of maintenance, view by view and slice by slice.

Rule: the exclusive lock is taken for one slice at a time, so runs get their turn in between. A batch that was never
published is retired while the lock is held: no run is alive then, so none of them is of a living one.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from feature_platform.declaration import FeatureRegistry
from feature_platform.declaration.canary import with_canary
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.retention import Circumstances, Judged, judge
from feature_platform.errors import LockBusyError
from feature_platform.lake import connect, log_tables
from feature_platform.lake import maintenance as upkeep
from feature_platform.lake.maintenance import FilesRemoved, Table
from feature_platform.lake.slices import Files, Span, needs_merging, read_slices
from feature_platform.lake.sql import SERVING_SCHEMA, quote_instant, quote_literal
from feature_platform.ledger import Ledger, deployment_lock
from feature_platform.maintenance.report import MaintenanceReport, TableReport, summarize
from feature_platform.settings import Settings

LOCK_WAIT: Final = timedelta(minutes=5)
_AT_ONCE: Final = timedelta(milliseconds=50)
_NO_FILES: Final = Files()

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    settings: Settings
    ledger: Ledger
    wait: timedelta
    say: Progress
    now: datetime
    is_dry_run: bool

    def saying(self, where: str) -> Progress:
        """Say steps with where they are taken."""
        return lambda step: self.say(f"{where}: {step}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the exclusive lock."""
        connection = self.ledger.connection
        with ExitStack() as held:
            try:
                held.enter_context(deployment_lock(connection, exclusive=True, wait=_AT_ONCE))
            except LockBusyError:
                self.say(f"waiting for runs to end, up to {format_duration(self.wait)}")
                held.enter_context(deployment_lock(connection, exclusive=True, wait=self.wait))
            yield


def maintain(
    settings: Settings,
    registry: FeatureRegistry,
    views: Iterable[FeatureView] | None = None,
    *,
    dry_run: bool = False,
    wait: timedelta = LOCK_WAIT,
    progress: Progress = lambda _: None,
    now: datetime | None = None,
) -> MaintenanceReport:
    """Delete what nobody needs any more, merge small files, remove files out of use. Safe to repeat after any death.

    Args:
        settings: addresses and directories.
        registry: the deployed declarations; tables of views that are not declared any more are left alone.
        views: only the tables of these, and no files out of use (default: everything).
        dry_run: change nothing, and say what would be done.
        wait: how long to wait for runs to end, per slice.
        progress: called with a line for each thing done.
        now: judge the age of batches and logged rows as of this instant (default: the ledger's clock).

    Raises:
        LockBusyError: runs did not end in time; what was done until then stays done.
        FeaturePlatformError: rewritten rows were not what they had been; the slice was left as it was.
    """
    began = time.monotonic()
    with Ledger.connect(settings.ledger_url) as ledger:
        run = _Run(
            settings=settings, ledger=ledger, wait=wait, say=progress, now=now or ledger.ask().at, is_dry_run=dry_run
        )
        written = with_canary(registry) if registry.served_views else registry
        chosen = [*written.views.values()] if views is None else [*views]
        reports = [_maintain_view(run, view) for view in chosen]
        reports.append(_maintain_log(run, chosen))
        return MaintenanceReport(
            is_dry_run=dry_run,
            tables=tuple(reports),
            files=_remove_files(run) if views is None else None,
            seconds=time.monotonic() - began,
        )


def _maintain_view(run: _Run, view: FeatureView) -> TableReport:
    table = Table.of_view(view)
    before = _files(run, table)
    judged, retired = _retire(run, view)
    rows, merged = _preview(run, view, table, retired) if run.is_dry_run else _rewrite_view(run, view, table)
    return TableReport(
        table=view.key,
        retired=Counter(one.fate for one in retired),
        rows_deleted=rows,
        merged=tuple(map(str, merged)),
        before=sum(before.values(), _NO_FILES),
        after=sum(_files(run, table).values(), _NO_FILES),
        kept=summarize(judged),
        bytes_retired=sum(one.batch.bytes for one in retired),
    )


def _preview(run: _Run, view: FeatureView, table: Table, going: Iterable[Judged]) -> tuple[int, tuple[Span, ...]]:
    """What `_rewrite_view` would do, if these were retired: rows deleted, slices."""
    left = run.ledger.retired(view.key, undeleted_only=True)  # by a run that died
    starts = [*(one.batch.partition.start for one in going), *(one.batch.partition.start for one in left)]
    spans = {Span.around(start, table.keys) for start in starts}
    spans |= {span for span, files in _files(run, table).items() if needs_merging(span, files, run.now)}
    counted = [one.batch.batch_id for one in going if one.batch.rows is None] + [one.batch.batch_id for one in left]
    rows = sum(one.batch.rows or 0 for one in going)
    if counted:
        with closing(connect(run.settings, read_only=True)) as lake:
            rows += sum(upkeep.count_by_batch(lake, table, counted).values())
    return rows, tuple(sorted(spans))


def _files(run: _Run, table: Table) -> dict[Span, Files]:
    return read_slices(run.settings.lake_catalog, table.schema, table.name)


# -- what goes --------------------------------------------------------------------------------------------------------


def _retire(run: _Run, view: FeatureView) -> tuple[tuple[Judged, ...], tuple[Judged, ...]]:
    """All that was judged, and of it what was retired (or would be)."""
    judged = _judge(run, view)
    going = tuple(one for one in judged if one.fate.goes)
    if run.is_dry_run or not going:
        return judged, going
    with run.alone():
        # again, because what was a live run's a moment ago may be published now
        judged = _judge(run, view)
        chosen = {one.batch.batch_id: one.fate for one in judged if one.fate.goes}
        retired = {*run.ledger.retire(view.key, chosen)}
    run.say(f"{view.key}: {len(retired)} batches retired")
    return judged, tuple(one for one in judged if one.batch.batch_id in retired)


def _judge(run: _Run, view: FeatureView) -> tuple[Judged, ...]:
    ledger = run.ledger
    return judge(
        ledger.batch_facts(view.key),
        Circumstances(
            retention=view.retention,
            ttl=view.ttl,
            needs=ledger.batches_sets_need(view.key),
            stores=ledger.store_ends(view.key),
            now=run.now,
        ),
    )


def _rewrite_view(run: _Run, view: FeatureView, table: Table) -> tuple[int, tuple[Span, ...]]:
    """Delete the rows of retired batches, of those too that a run before left, and merge: rows deleted, slices."""
    going: defaultdict[Span, list[str]] = defaultdict(list)
    for one in run.ledger.retired(view.key, undeleted_only=True):
        going[Span.around(one.batch.partition.start, table.keys)].append(one.batch.batch_id)
    spans = {span for span, files in _files(run, table).items() if needs_merging(span, files, run.now)}
    deleted, merged = 0, []
    for span in sorted({*going, *spans}):
        with run.alone(), upkeep.open_for_rewriting(run.settings) as lake:
            rows = upkeep.count_by_batch(lake, table, going[span], span)
            if rows or span in spans:
                deleted += upkeep.rewrite_slice(
                    lake,
                    table,
                    span,
                    going=upkeep.in_batches(going[span]),
                    on_step=run.saying(f"{view.key} {span}"),
                )
                merged.append(span)
                run.say(f"{view.key} {span}: {sum(rows.values())} rows deleted")
            if going[span]:
                run.ledger.record_deleted({batch_id: rows.get(batch_id, 0) for batch_id in going[span]})
                run.say(f"{view.key} {span}: deletion recorded")
    return deleted, tuple(merged)


# -- the feature log, and files ---------------------------------------------------------------------------------------


def _maintain_log(run: _Run, views: Iterable[FeatureView]) -> TableReport:
    """Delete logged rows that are older than their view keeps them, and merge."""
    table = Table.of_feature_log()
    before = _files(run, table)
    expired = [
        f"(view = {quote_literal(view.key)} and requested_at < {quote_instant(run.now - view.retention.logged)})"
        for view in views
        if view.retention.logged is not None
    ]
    going = " or ".join(expired) or "false"
    rows: dict[Span, int] = {}
    if expired:
        with closing(connect(run.settings, read_only=True)) as reading:
            rows = upkeep.count_by_slice(reading, table, going)
    merged = sorted({*rows, *(span for span, files in before.items() if needs_merging(span, files, run.now))})
    deleted = sum(rows.values()) if run.is_dry_run else 0
    for span in () if run.is_dry_run else merged:
        with run.alone(), upkeep.open_for_rewriting(run.settings) as lake:
            deleted += upkeep.rewrite_slice(
                lake, table, span, going=going, on_step=run.saying(f"{log_tables.SERVED} {span}")
            )
        run.say(f"{log_tables.SERVED} {span}: {rows.get(span, 0)} rows deleted")
    return TableReport(
        table=f"{SERVING_SCHEMA}.{log_tables.SERVED}",
        retired={},
        rows_deleted=deleted,
        merged=tuple(map(str, merged)),
        before=sum(before.values(), _NO_FILES),
        after=sum(_files(run, table).values(), _NO_FILES),
    )


def _remove_files(run: _Run) -> FilesRemoved:
    now = run.ledger.ask().at  # never as of another instant: what is being written now is not old
    if run.is_dry_run:
        with closing(connect(run.settings)) as lake:
            return upkeep.remove_files(run.settings, lake, now, dry_run=True)
    with run.alone(), closing(connect(run.settings)) as lake:
        run.say("removing files out of use")
        removed = upkeep.remove_files(run.settings, lake, now)
    run.say(f"{removed.unused + removed.orphans} files removed")
    return removed
