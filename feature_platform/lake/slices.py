"""Slices: the rows of a table that DuckLake keeps together, one value of the table's partition keys; and their files.

Rule: partition keys are the year, month and day of one column, in this order and from the left, so a slice is an
interval of time. What files there are is asked of the catalog's Postgres: no row is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from feature_platform.lake.catalog import query_catalog

LARGE_FILE_BYTES: Final = 256 * 1024 * 1024
"""A file of this size gains nothing from being merged with others."""
MANY_FILES: Final = 8
"""So many small files are merged even where more will come."""
SETTLED_AFTER: Final = timedelta(days=2)
"""After its end a slice gets new files only by recomputation: then two small files are merged."""

_YEAR, _MONTH, _DAY = 1, 2, 3
_DECEMBER = 12

_FILES = """
select f.file_size_bytes,
       exists (select from ducklake_delete_file d where d.data_file_id = f.data_file_id and d.end_snapshot is null),
       array(select v.partition_value::integer from ducklake_file_partition_value v
             where v.data_file_id = f.data_file_id order by v.partition_key_index)
from ducklake_data_file f
join ducklake_table t on t.table_id = f.table_id and t.end_snapshot is null
join ducklake_schema s on s.schema_id = t.schema_id and s.end_snapshot is null
where s.schema_name = %s and t.table_name = %s and f.end_snapshot is null
"""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """From an instant until before another."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, parts: Iterable[int]) -> Span:
        """The year, the month or the day.

        >>> Span.of((2026, 12)).end
        datetime.datetime(2027, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
        """
        match [*parts]:
            case [year]:
                return cls(start=datetime(year, 1, 1, tzinfo=UTC), end=datetime(year + 1, 1, 1, tzinfo=UTC))
            case [year, month]:
                following = (year + 1, 1) if month == _DECEMBER else (year, month + 1)
                return cls(start=datetime(year, month, 1, tzinfo=UTC), end=datetime(*following, 1, tzinfo=UTC))
            case [year, month, day]:
                start = datetime(year, month, day, tzinfo=UTC)
                return cls(start=start, end=start + timedelta(days=1))
            case other:
                raise ValueError(f"no slice has the partition keys {other}")

    @classmethod
    def around(cls, instant: datetime, keys: int) -> Span:
        """The slice of an instant in a table with so many partition keys."""
        instant = instant.astimezone(UTC)
        return cls.of((instant.year, instant.month, instant.day)[:keys])

    def __str__(self) -> str:
        length = self.end - self.start
        shown = "%Y-%m-%d" if length <= timedelta(days=1) else "%Y-%m" if length <= timedelta(days=31) else "%Y"
        return self.start.strftime(shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files that the rows of a slice, or of a table, lie in now."""

    count: int = 0
    bytes: int = 0
    small: int = field(default=0, repr=False)
    """Worth merging."""
    with_deletions: int = field(default=0, repr=False)

    def __add__(self, other: Files) -> Files:
        return Files(
            count=self.count + other.count,
            bytes=self.bytes + other.bytes,
            small=self.small + other.small,
            with_deletions=self.with_deletions + other.with_deletions,
        )


def needs_merging(span: Span, files: Files, now: datetime) -> bool:
    """Whether rewriting the slice is worth its reading."""
    if files.with_deletions or files.small >= MANY_FILES:
        return True
    return files.small > 1 and span.end + SETTLED_AFTER <= now


def read_slices(lake_catalog: str, schema: str, table: str) -> dict[Span, Files]:
    """The slices of a table that have files, in order. Few rows lie in the catalog itself, and in no file.

    Raises:
        NotDeployedError: there is no catalog yet.
        LedgerUnavailableError: the catalog's Postgres cannot be reached.
    """
    found: defaultdict[Span, Files] = defaultdict(Files)
    for size, has_deletions, parts in query_catalog(lake_catalog, _FILES, (schema, table)):
        small = int(size < LARGE_FILE_BYTES)
        found[Span.of(parts)] += Files(count=1, bytes=size, small=small, with_deletions=int(has_deletions))
    return dict(sorted(found.items()))
