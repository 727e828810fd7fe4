"""Rows of the reference sources into the lake, as their `ingested_at` passes.

Rule: first the rows commit, then the ledger says so. A load adds the rows of (after, through] that are not there yet,
so it can be repeated after a crash at any point. Loads of one source take turns under an advisory lock in Postgres.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from feature_platform.domain.windows import aware_utc
from feature_platform.errors import NotDeployedError, UnknownNameError, chosen_from
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import quote_instant
from feature_platform.ledger import Ledger, deployment_lock, source_lock
from feature_platform.ledger.postgres import translated
from feature_platform.reference.clock import ReferenceClock, fix_clock
from feature_platform.reference.extract import parquet_file
from feature_platform.reference.transform import SOURCES, ReferenceSource

SCHEMA = "sources"
_BEGINNING = datetime(1000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLoaded:
    """What a load brought."""

    source: str
    row_count: int
    """Rows that were not there before."""
    after: datetime | None
    through: datetime
    """Up to this arrival instant nothing is missing now."""
    watermark: datetime | None
    """Newest `ingested_at` in the lake."""


def prepare(lake: duckdb.DuckDBPyConnection, ledger: Ledger) -> tuple[str, ...]:
    """Create the source tables that are missing; their names. Staging views need the tables, so this precedes deploy.

    A table from before one of its columns was declared gets that column, empty for the rows it has.

    Raises:
        LockBusyError: runs are going on.
    """
    with deployment_lock(ledger.connection, exclusive=True):
        lake.execute(f"create schema if not exists lake.{SCHEMA}")
        missing = [source for source in SOURCES.values() if not _exists(lake, source)]
        for source in (source for source in SOURCES.values() if source not in missing):
            for name, kind in source.columns.items():
                lake.execute(f'alter table {_table(source)} add column if not exists "{name}" {kind}')
        for source in missing:
            lake.execute("begin")
            try:
                columns = ", ".join(f'"{name}" {kind}' for name, kind in source.columns.items())
                lake.execute(f"create table {_table(source)} ({columns})")
                if source.partitioned_by:
                    transforms = ", ".join(source.partitioned_by)
                    lake.execute(f"alter table {_table(source)} set partitioned by ({transforms})")
                lake.execute("commit")
            except BaseException:
                lake.execute("rollback")
                raise
    return tuple(source.name for source in missing)


def load_source(
    lake: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    source: str,
    *,
    home: Path,
    through: datetime,
    after: datetime | None = None,
    run_id: str = "",
) -> SourceLoaded:
    """Bring a source up to `through`.

    The load begins at `after`, or earlier, where the ledger's last load ended: so `loaded_through` never skips rows.
    `after=None` begins at the beginning.

    Raises:
        UnknownNameError: no such source.
        NotDeployedError: its table is missing.
        LockBusyError: another load of it, or a deploy, is going on.
        LedgerUnavailableError: Postgres failed meanwhile.
        LakeConflictError: other commits to the lake came first, again and again.
    """
    if source not in SOURCES:
        raise UnknownNameError(f"no reference source {source!r}", allowed=chosen_from(SOURCES))
    declared = SOURCES[source]
    through = aware_utc(through, "through")
    clock = fix_clock(ledger, now=datetime.now(UTC))
    rows = parquet_file(declared, home)
    with (
        translated(),
        lake_errors(f"loading {declared.ledger_name}"),
        deployment_lock(ledger.connection, exclusive=False),
        source_lock(ledger.connection, source),
    ):
        if not _exists(lake, declared):
            raise NotDeployedError(f"the lake has no table {SCHEMA}.{source}", hint="run `feature-platform up`")
        begin = _begin(ledger, declared.ledger_name, after=after)
        row_count = append_rows(lake, declared, rows, clock, after=begin, through=through)
        watermark = _watermark(lake, declared)
        ledger.record_source_load(
            declared.ledger_name, loaded_through=through, row_count=row_count, watermark=watermark, run_id=run_id
        )
    return SourceLoaded(source=source, row_count=row_count, after=begin, through=through, watermark=watermark)


def append_rows(
    lake: duckdb.DuckDBPyConnection,
    source: ReferenceSource,
    rows: Path,
    clock: ReferenceClock,
    *,
    after: datetime | None,
    through: datetime,
) -> int:
    """Add the rows of (after, through] that are not in the lake, in one statement; how many. Takes no lock."""
    key = ", ".join(source.key)
    first, last = after or _BEGINNING, through
    inserted = lake.execute(
        f"""
        insert into {_table(source)} ({", ".join(f'"{name}"' for name in source.columns)})
        select {", ".join(f'"{name}"' for name in source.columns)}
        from (
            select {_moved(source, clock)} from read_parquet($rows)
            -- on the data's own clock, so that row groups of the file are skipped
            where ingested_at > {quote_instant(first - clock.shift)}
              and ingested_at <= {quote_instant(last - clock.shift)}
        ) as arrived
        anti join (
            select {key} from {_table(source)}
            where ingested_at > {quote_instant(first)} and ingested_at <= {quote_instant(last)}
        ) as present using ({key})
        """,
        {"rows": str(rows)},
    ).fetchone()
    return int(inserted[0]) if inserted else 0


def _moved(source: ReferenceSource, clock: ReferenceClock) -> str:
    days = clock.weeks * 7
    columns = []
    for name, kind in source.columns.items():
        if name == "flight_id":
            columns.append(
                f"concat_ws('-', strftime(service_date + interval ({days}) days, '%Y-%m-%d'), carrier, flight, origin)"
                " as flight_id"
            )
        elif kind in ("timestamptz", "date"):
            # a date and an interval make a timestamp
            columns.append(f'("{name}" + interval ({days}) days)::{kind} as "{name}"')
        else:
            columns.append(f'"{name}"')
    return ", ".join(columns)


def _begin(ledger: Ledger, ledger_name: str, *, after: datetime | None) -> datetime | None:
    if after is None:
        return None
    loaded = ledger.loaded_through(ledger_name)
    return None if loaded is None else min(loaded, aware_utc(after, "after"))


def _watermark(lake: duckdb.DuckDBPyConnection, source: ReferenceSource) -> datetime | None:
    found = lake.execute(f"select max(ingested_at) from {_table(source)}").fetchone()
    return found[0] if found else None


def _table(source: ReferenceSource) -> str:
    return f"lake.{SCHEMA}.{source.name}"


def _exists(lake: duckdb.DuckDBPyConnection, source: ReferenceSource) -> bool:
    found = lake.execute(
        "select 1 from duckdb_tables() where database_name = 'lake' and schema_name = ? and table_name = ?",
        [SCHEMA, source.name],
    ).fetchone()
    return found is not None
