"""What maintenance does to the lake: rewriting slices without what is to go, and removing files that nothing reads.

Rule: the caller holds the exclusive deployment lock. A slice is rewritten in one transaction, sorted, and committed
only if the rows it holds then are the very rows it held before, less those that were to go. A file goes only when it
has been out of use for `FILE_AGE`, longer than any query and any write takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb

from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.errors import ConfigurationError, FeaturePlatformError, LakeConflictError
from feature_platform.lake import log_tables
from feature_platform.lake.catalog import newest_snapshot
from feature_platform.lake.connection import build_attach, connect
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.slices import Span
from feature_platform.lake.sql import (
    BATCH_ID,
    BATCHES_SCHEMA,
    PARTITION_START,
    SERVING_SCHEMA,
    partition_keys,
    quote_identifier,
    quote_instant,
    quote_literal,
)
from feature_platform.lake.tables import transaction
from feature_platform.settings import Settings

FILE_AGE: Final = timedelta(days=1)
"""Never less than the longest write takes: DuckLake removes the file of an open transaction as readily as any other,
and its commit then succeeds without the rows (measured)."""
_BEFORE: Final = "before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose slices are rewritten."""

    schema: str
    name: str
    time: str
    """The column it is partitioned by."""
    keys: int
    """How many of year, month and day its partition keys are."""
    order: tuple[str, ...]
    """How the rows of a slice are sorted."""

    @classmethod
    def of_view(cls, view: FeatureView) -> Table:
        """The physical table of a view: sorted by the entity, so that looking for few entities skips most of a file."""
        order = (*view.entity_names, EVENT_TIMESTAMP, BATCH_ID)
        keys = partition_keys(view.grain)
        return cls(schema=BATCHES_SCHEMA, name=view.table, time=PARTITION_START, keys=keys, order=order)

    @classmethod
    def of_feature_log(cls) -> Table:
        """The feature log."""
        order = ("view", "requested_at", "entry_id", "entity_number")
        return cls(schema=SERVING_SCHEMA, name=log_tables.SERVED, time="requested_at", keys=3, order=order)

    def named(self, catalog: str = "lake") -> str:
        """Its name in a catalog, quoted."""
        return ".".join(map(quote_identifier, (catalog, self.schema, self.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesRemoved:
    """What was removed besides rows, or would be."""

    snapshots: int
    """States of the lake that nobody can go back to any more."""
    unused: int
    """Files whose rows were rewritten."""
    orphans: int
    """Files that a run left which died before its commit."""
    bytes: int | None
    """Of all those files; None if the files are not on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fingerprint:
    """The same for the same rows, in whatever order."""

    rows: int
    sum: int
    """Of the hashes of the rows."""


def in_batches(batch_ids: Sequence[str]) -> str:
    """The predicate for rows of these batches."""
    return f"{quote_identifier(BATCH_ID)} in ({', '.join(map(quote_literal, batch_ids))})" if batch_ids else "false"


def count_by_batch(
    lake: duckdb.DuckDBPyConnection, table: Table, batch_ids: Sequence[str], span: Span | None = None
) -> dict[str, int]:
    """How many rows these batches have in the lake, or in a slice; those without rows are left out."""
    if not batch_ids:
        return {}
    here = _within(table, span) if span else "true"
    rows = lake.execute(
        f"select {BATCH_ID}, count(*) from {table.named()} where {here} and {in_batches(batch_ids)} group by {BATCH_ID}"
    ).fetchall()
    return dict(rows)


def count_by_slice(lake: duckdb.DuckDBPyConnection, table: Table, predicate: str) -> dict[Span, int]:
    """How many rows of each slice a predicate is true of; slices without any are left out."""
    shortest = ("year", "month", "day")[table.keys - 1]
    rows = lake.execute(
        f"select date_trunc('{shortest}', {quote_identifier(table.time)}), count(*) from {table.named()}"
        f" where {predicate} group by all order by all"
    ).fetchall()
    return {Span.around(start, table.keys): count for start, count in rows}


@contextmanager
def open_for_rewriting(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """The lake, to write, with its newest state attached beside it as `before`.

    Within a transaction `at (version => …)` does not show rows that the transaction has deleted (measured); a second
    attachment does.
    """
    snapshot = newest_snapshot(settings.lake_catalog)
    with closing(connect(settings)) as lake:
        lake.execute(build_attach(settings, read_only=True, catalog=_BEFORE, snapshot=snapshot))
        yield lake


def rewrite_slice(
    lake: duckdb.DuckDBPyConnection,
    table: Table,
    span: Span,
    *,
    going: str = "false",
    on_step: Callable[[str], None] = lambda _: None,
) -> int:
    """Write the rows of a slice anew, sorted and in as few files as they fill; how many went.

    Args:
        lake: from `open_for_rewriting`, opened under the exclusive lock and used for one slice.
        table: the table.
        span: the slice.
        going: the predicate of the rows that shall go.
        on_step: told what is done, before it is.

    Raises:
        FeaturePlatformError: the rows that were to stay would not be the same; nothing was changed.
        LakeConflictError: somebody else wrote; nothing was changed.
    """
    columns = _columns(lake, table)
    here, listed = _within(table, span), ", ".join(map(quote_identifier, columns))
    stays = f"({going}) is not true"
    with lake_errors(f"rewriting {table.name} of {span}"), transaction(lake):
        on_step("reading")
        before = _fingerprint(lake, table.named(_BEFORE), columns, f"{here} and {stays}")
        (whole, now) = (_count(lake, table.named(catalog), here) for catalog in (_BEFORE, "lake"))
        if whole != now:
            raise LakeConflictError(
                f"rewriting {table.name} of {span}: somebody wrote to it in spite of the lock",
                found=f"{now} rows, and {whole} a moment before",
                hint="try again; nothing was changed",
            )
        on_step("deleting")
        lake.execute(f"delete from {table.named()} where {here}")
        on_step("writing")
        order = ", ".join(map(quote_identifier, table.order))
        lake.execute(
            f"insert into {table.named()} ({listed}) select {listed} from {table.named(_BEFORE)}"
            f" where {here} and {stays} order by {order}"
        )
        on_step("comparing")
        after = _fingerprint(lake, table.named(), columns, here)
        if after != before:
            raise FeaturePlatformError(
                f"rewriting {table.name} of {span} would change rows that were to stay; nothing was changed",
                found=f"{after.rows} rows with sum {after.sum}",
                allowed=f"{before.rows} rows with sum {before.sum}",
                hint="please report this; maintenance of other tables goes on with `--view`",
            )
    return whole - before.rows


def remove_files(
    settings: Settings, lake: duckdb.DuckDBPyConnection, now: datetime, *, dry_run: bool = False
) -> FilesRemoved:
    """Give up old states of the lake, then remove files that nothing refers to any more, all by age.

    Raises:
        ConfigurationError: kept training sets lie among the lake's files, where they would be taken for leftovers.
    """
    if (settings.training_sets_root + "/").startswith(settings.lake_data.rstrip("/") + "/"):
        raise ConfigurationError(
            "training sets are kept among the lake's files",
            found=f"{settings.training_sets_root} lies in {settings.lake_data}",
            hint="move them, and set FEATURE_PLATFORM_TRAINING_SETS to where they are",
        )
    older_than = quote_instant(now - FILE_AGE)
    options = f"dry_run => {str(dry_run).lower()}, older_than => {older_than}"
    with lake_errors("removing files that are not used any more"):
        snapshots = lake.execute(f"call ducklake_expire_snapshots('lake', {options})").fetchall()
        removed = 0
        counts: dict[str, int] = {}
        for function in ("ducklake_cleanup_old_files", "ducklake_delete_orphaned_files"):
            # asked first, because afterwards their sizes are not known
            asked = lake.execute(f"call {function}('lake', dry_run => true, older_than => {older_than})").fetchall()
            removed += sum(_size(path) for (path, *_) in asked)
            done = lake.execute(f"call {function}('lake', {options})").fetchall()
            counts[function] = len(done)
    return FilesRemoved(
        snapshots=len(snapshots),
        unused=counts["ducklake_cleanup_old_files"],
        orphans=counts["ducklake_delete_orphaned_files"],
        bytes=None if "://" in settings.lake_data else removed,
    )


def _columns(lake: duckdb.DuckDBPyConnection, table: Table) -> tuple[str, ...]:
    return tuple(name for name, *_ in lake.execute(f"describe {table.named()}").fetchall())


def _within(table: Table, span: Span) -> str:
    time = quote_identifier(table.time)
    return f"{time} >= {quote_instant(span.start)} and {time} < {quote_instant(span.end)}"


def _fingerprint(lake: duckdb.DuckDBPyConnection, name: str, columns: Sequence[str], where: str) -> _Fingerprint:
    listed = ", ".join(map(quote_identifier, columns))
    sql = f"select count(*), coalesce(sum(hash({listed})::hugeint), 0) from {name} where {where}"
    ((rows, total),) = lake.execute(sql).fetchall()
    return _Fingerprint(rows=rows, sum=total)


def _count(lake: duckdb.DuckDBPyConnection, name: str, where: str) -> int:
    ((count,),) = lake.execute(f"select count(*) from {name} where {where}").fetchall()
    return int(count)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # on an object store, or gone already
        return 0
