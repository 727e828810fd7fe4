"""Draining the log: from the stream of the online store into the lake.

Rule: rows and the mark of how far they reach are one commit; the stream is trimmed after it. So a drain may die
anywhere and be repeated: nothing is taken twice, and nothing is lost but what the stream's cap had removed before,
which is counted. A stream that is behind the mark (the store lost it, or a replica took over that had not got all) is
read from its beginning, and what the lake has of it is left out.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from feature_platform.errors import CorruptValueError, NotDeployedError, StoreUnavailableError
from feature_platform.lake import connect
from feature_platform.lake.log_tables import DRAINS, SERVED, columns_of, drains_table, served_table
from feature_platform.lake.tables import transaction
from feature_platform.ledger import Ledger, deployment_lock, log_drain_lock
from feature_platform.online import catalog
from feature_platform.online.codec import decode_prefix, duration_micros, layout_id_of, to_micros
from feature_platform.online.decoding import decode
from feature_platform.online.feature_log import STREAM
from feature_platform.online.log_format import LogEntry, LoggedView
from feature_platform.online.view_values import status_of, threshold
from feature_platform.online.writable import DocumentStore, open_store
from feature_platform.settings import Settings

ENTRIES_PER_PAGE: Final = 100
"""A request may hold thousands of values; so many requests are in memory at a time, as they came."""
ROWS_PER_COMMIT: Final = 100_000
_TIMEOUT_SECONDS: Final = 30.0
_MARKS: Final = 100
"""A replica that takes over has heard of one of so many drains."""

StreamId = tuple[int, int]
_BEGINNING: Final[StreamId] = (0, 0)
_SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("store", "entry_id", "request_id")),
        ("requested_at", pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in ("asked", "view")),
        ("entity_number", pa.int32()),
        *((name, pa.string()) for name in ("entity_key", "status")),
        ("position", pa.int64()),
        ("event_timestamp", pa.timestamp("us", "UTC")),
        ("values", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult:
    """What a drain took over."""

    store: str
    entries: int
    """Requests."""
    rows: int
    """Rows of the table: one per request, view and entity."""
    unreadable: int
    """Entries that are none; they are left out."""
    lost: int
    """Requests that the stream's cap removed before they were drained."""
    dropped: int
    """Requests that clients could not log, as they said with a later one."""


@dataclass(slots=True)
class _Chunk:
    """What is written in one commit."""

    through: StreamId
    entries: int = 0
    known: int = 0
    """Entries that the lake had before."""
    unreadable: int = 0
    dropped: int = 0
    columns: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @property
    def rows(self) -> int:
        return len(self.columns["store"])


def drain_stores(
    settings: Settings, *, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> tuple[DrainResult, ...]:
    """Take over what was logged in every store. One that is down holds nobody.

    Raises:
        StoreUnavailableError: a store does not answer; the others are drained.
        NotDeployedError, LockBusyError: as of `drain`.
    """
    results, down = [], []
    for name in settings.all_stores:
        try:
            results.append(drain(settings.at_store(name), progress=progress))
        except StoreUnavailableError as error:
            down.append(error)
    if down:
        raise down[0]
    return tuple(results)


def drain(settings: Settings, *, progress: Callable[[int, int], None] = lambda _done, _all: None) -> DrainResult:
    """Take over all that was logged up to now in the store of these settings.

    Args:
        settings: addresses; the store's name.
        progress: called with the requests taken over so far and how many there were to take over.

    Raises:
        NotDeployedError: the lake lacks the log's tables.
        LockBusyError: another drain of this store, or a deploy, goes on.
        StoreUnavailableError: the online store does not answer; what was committed stays.
    """
    with (
        Ledger.connect(settings.ledger_url) as ledger,
        deployment_lock(ledger.connection, exclusive=False),
        log_drain_lock(ledger.connection, settings.store),
        closing(connect(settings)) as lake,
        closing(open_store(settings.valkey_url, _TIMEOUT_SECONDS)) as store,
    ):
        head = _head(store)
        if head is None:
            return DrainResult(store=settings.store, entries=0, rows=0, unreadable=0, lost=0, dropped=0)
        last, added, length = head.last, head.added, head.length
        after, added_before, went_back = _begin(lake, settings.store, head)
        reader = _Reader(settings.store, store, lake if went_back else None)
        total = DrainResult(store=settings.store, entries=0, rows=0, unreadable=0, lost=0, dropped=0)
        passed = 0
        for chunk in _chunks(reader, after, last):
            ends = chunk.through == last
            passed += chunk.entries + chunk.known
            lost = max(0, added - added_before - passed) if ends else 0
            reached = added if ends else added_before + passed
            _write(lake, settings.store, chunk, added=reached, lost=lost)
            ledger.record_drain(
                settings.store,
                entries=chunk.entries,
                rows=chunk.rows,
                unreadable=chunk.unreadable,
                lost=lost,
                dropped=chunk.dropped,
            )
            store.call("XTRIM", STREAM, "MINID", f"{chunk.through[0]}-{chunk.through[1] + 1}")
            total = DrainResult(
                store=settings.store,
                entries=total.entries + chunk.entries,
                rows=total.rows + chunk.rows,
                unreadable=total.unreadable + chunk.unreadable,
                lost=lost,
                dropped=total.dropped + chunk.dropped,
            )
            progress(passed, max(length, passed))
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """The stream, as of one instant."""

    first: StreamId | None
    last: StreamId
    added: int
    """Entries ever added."""
    length: int


def _begin(lake: duckdb.DuckDBPyConnection, store: str, head: _Head) -> tuple[StreamId, int, bool]:
    """Behind which entry to begin, how many had been added by then, and whether the lake may have some that follow."""
    marks = _marks(lake, store)
    newest, added = next(marks, (_BEGINNING, 0))
    first = head.first
    if first is None or first > newest:
        if newest <= head.last and added <= head.added:
            return newest, added, False
        return _BEGINNING, 0, True  # the store lost its data: this is another stream
    # The last drain did not trim, or a replica took over that had not heard of it. If its clock is late, ids of new
    # entries may lie below that drain's mark, so all that is there is read: from the mark before the first of it.
    known = ((through, by) for through, by in marks if through < first and by <= head.added)
    return (*next(known, (_BEGINNING, 0)), True)


def _marks(lake: duckdb.DuckDBPyConnection, store: str) -> Iterator[tuple[StreamId, int]]:
    """Through where the stream was taken over, and how many entries it had been given by then; newest first."""
    try:
        found = lake.execute(
            f"select through_ms, through_number, entries_added from {drains_table()} where store = ?"
            " order by drained_at desc",
            [store],
        )
    except duckdb.CatalogException as error:
        raise NotDeployedError(
            "the lake has no tables for the feature log", found=str(error), hint="run `feature-platform deploy`"
        ) from error
    return (((ms, number), added) for ms, number, added in found.fetchmany(_MARKS))


def _head(store: DocumentStore) -> _Head | None:
    """What the store says of the stream. None if nothing was logged."""
    if not store.call("EXISTS", STREAM):
        return None
    flat = store.call("XINFO", "STREAM", STREAM)
    facts = dict(zip(flat[::2], flat[1::2], strict=True))
    first = facts[b"first-entry"]
    return _Head(
        first=_parse_id(first[0]) if first else None,
        last=_parse_id(facts[b"last-generated-id"]),
        added=int(facts[b"entries-added"]),
        length=int(facts[b"length"]),
    )


def _parse_id(text: bytes) -> StreamId:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number)


class _Reader:
    """Reads the stream, and decodes what is in it by the store's own documents."""

    def __init__(self, name: str, store: DocumentStore, taken_before: duckdb.DuckDBPyConnection | None) -> None:
        self._name = name
        self._store = store
        self._taken_before = taken_before
        """The lake, if it may have some of the entries."""
        self._catalog = catalog.load(store)

    def pages(self, after: StreamId, last: StreamId) -> Iterator[Sequence[tuple[StreamId, bytes]]]:
        """Entries behind `after`, up to and with `last`."""
        while after < last:
            found = self._store.call(
                "XRANGE", STREAM, f"({after[0]}-{after[1]}", f"{last[0]}-{last[1]}", "COUNT", ENTRIES_PER_PAGE
            )
            if not found:
                return
            yield [(_parse_id(stream_id), fields[1]) for stream_id, fields in found]
            after = _parse_id(found[-1][0])

    def add(self, chunk: _Chunk, data: bytes) -> None:
        """Add one entry to a chunk."""
        try:
            entry = LogEntry.parse(data)
            if self._is_taken(entry):
                chunk.known += 1
                return
            rows = [
                self._row(entry, one, number, key, value)
                for one in entry.views
                for number, (key, value) in enumerate(zip(one.keys, one.values, strict=True))
            ]
        except CorruptValueError:
            chunk.entries += 1
            chunk.unreadable += 1
            return
        chunk.entries += 1
        chunk.dropped += entry.dropped
        for row in rows:
            for name, cell in zip(columns_of(SERVED), row, strict=True):
                chunk.columns[name].append(cell)

    def _is_taken(self, entry: LogEntry) -> bool:
        if self._taken_before is None:
            return False
        found = self._taken_before.execute(
            f"select 1 from {served_table()} where store = ? and entry_id = ? and requested_at = ? limit 1",
            [self._name, entry.entry_id, entry.requested_at],
        )
        return found.fetchone() is not None

    def _row(self, entry: LogEntry, one: LoggedView, number: int, key: bytes, value: bytes | None) -> tuple[Any, ...]:
        prefix = None if value is None else decode_prefix(value)
        event = None if prefix is None else prefix.event_timestamp
        document, now = self._catalog.views.get(one.view), to_micros(entry.requested_at)
        dead = threshold(now, duration_micros(document.ttl if document else None))
        stale = threshold(now, duration_micros(document.stale_after if document else None))
        return (
            self._name,
            entry.entry_id,
            entry.request_id,
            entry.requested_at,
            entry.asked,
            one.view,
            number,
            key.decode(),
            status_of(value, dead, stale).value,
            None if prefix is None else prefix.position,
            event,
            self._values(one.view, value) if entry.is_whole and event is not None and value is not None else None,
        )

    def _values(self, view: str, value: bytes) -> str | None:
        layout = self._catalog.layouts.get((view, layout_id_of(value)))
        if layout is None:
            self._catalog = catalog.load(self._store)  # published since
            layout = self._catalog.layouts.get((view, layout_id_of(value)))
        try:
            return None if layout is None else to_json(decode(layout, value))
        except CorruptValueError:
            return None


def to_json(values: dict[str, Any]) -> str:
    """The values of a row as JSON that DuckDB casts back to exactly them.

    NaN, infinities, decimals and instants are texts, blobs are hexadecimal digits.

    >>> to_json({"a": float("nan"), "b": bytes(1), "c": [1.5]})
    '{"a":"nan","b":"00","c":[1.5]}'
    """
    plain = {name: _plain(value) for name, value in values.items()}
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _chunks(reader: _Reader, after: StreamId, last: StreamId) -> Iterator[_Chunk]:
    """What lies between, in chunks of bounded size; the last of them reaches `last`, though it may be empty."""
    chunk = _Chunk(through=after)
    for page in reader.pages(after, last):
        for stream_id, data in page:
            reader.add(chunk, data)
            chunk.through = stream_id
        if chunk.rows >= ROWS_PER_COMMIT and chunk.through < last:
            yield chunk
            chunk = _Chunk(through=chunk.through)
    if after < last:
        chunk.through = last  # entries up to it may be gone
        yield chunk


def _write(lake: duckdb.DuckDBPyConnection, store: str, chunk: _Chunk, *, added: int, lost: int) -> None:
    with transaction(lake):
        if chunk.rows:
            rows = pa.table([pa.array(chunk.columns[one.name], one.type) for one in _SCHEMA], schema=_SCHEMA)
            lake.register("drained", rows)
            lake.execute(f"insert into {served_table()} select * from drained")
            lake.unregister("drained")
        marks = (store, *chunk.through, added, chunk.entries, chunk.unreadable, lost, chunk.dropped, datetime.now(UTC))
        lake.execute(f"insert into {drains_table()} values ({', '.join('?' * len(columns_of(DRAINS)))})", marks)
