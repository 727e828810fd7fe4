"""One Postgres connection of the ledger, and the one way to append to it.

Rule: every append is one transaction that first takes the APPEND lock and keeps it to its commit. Numbers are drawn
while the lock is held, so the order of numbers is the order of commits: a reader that has seen number n has seen
everything up to n, for ever. Reads are single statements and take no lock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg2
from psycopg2 import extensions
from psycopg2.extras import execute_values

from feature_platform.ledger.locks import APPEND
from feature_platform.ledger.postgres import open_connection, translated

_ROWS_PER_STATEMENT = 2000
_Item = TypeVar("_Item")

Row = tuple[Any, ...]


class LedgerConnection:
    """A connection to the ledger. Use one per thread."""

    def __init__(self, connection: extensions.connection) -> None:
        self.connection = connection

    @classmethod
    def connect(cls, url: str) -> Self:
        """Connect; use as a context manager, or call `close`.

        Raises:
            LedgerUnavailableError: Postgres cannot be reached.
        """
        return cls(open_connection(url))

    def close(self) -> None:
        """Close the connection; locks held by it are released."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _append(self) -> Iterator[Append]:
        """One append: all or nothing, alone, numbered in the order of commits."""
        with translated(), self.connection.cursor() as cursor:
            cursor.execute("begin")
            try:
                cursor.execute("select pg_advisory_xact_lock(%s)", (APPEND,))
                yield Append(cursor)
                cursor.execute("commit")
            except BaseException:  # an interrupt as well: the lock is held until the transaction ends; raised again
                with suppress(psycopg2.Error):  # the connection may be what failed
                    cursor.execute("rollback")
                raise

    def _fetch(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(sql, parameters if isinstance(parameters, Mapping) else tuple(parameters))
            return cursor.fetchall()

    def _fetch_value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        rows = self._fetch(sql, parameters)
        return rows[0][0] if rows else None


class Append:
    """What may be done inside an append."""

    def __init__(self, cursor: extensions.cursor) -> None:
        self._cursor = cursor

    def take_numbers(self, count: int) -> range:
        """The next numbers of the ledger, in one update (an update per row would scan its own dead rows)."""
        self._cursor.execute("update ledger_counter set value = value + %s returning value", (count,))
        (last,) = self._cursor.fetchone() or (0,)
        return range(last - count + 1, last + 1)

    def numbered(self, items: Collection[_Item]) -> Iterator[tuple[int, _Item]]:
        """Each item with a number of its own, in their order."""
        return zip(self.take_numbers(len(items)), items, strict=True)

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run a statement and return its rows."""
        self._cursor.execute(sql, tuple(parameters))
        return self._cursor.fetchall()

    def insert(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        """Insert many rows with `… values %s … returning …`; the returned rows."""
        if not rows:
            return []
        returned: list[Row] = execute_values(self._cursor, sql, rows, page_size=_ROWS_PER_STATEMENT, fetch=True)
        return returned
