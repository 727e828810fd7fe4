"""Writing encoded rows to one server, in whichever way costs it least.

Rule: whatever the way, a value changes at one instant, only where the position there is not later, and its key is kept
long enough before that. Three ways do this to one row:

| way | commands | good where |
|---|---|---|
| new | `SET … NX PXAT …` | the key is absent |
| known | `MGET`, then `PEXPIREAT … GT` and `SET … IFEQ held KEEPTTL` | an older value is there, and expires earlier |
| function | `FCALL` | always; a tombstone, and every row with which another way did not come to an end |

A row that another way refused, or of which it cannot tell whether its key lives long enough, goes through the function,
which decides. So the ways need no agreement with each other, and tests/property/test_sync_protocol.py mixes them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_platform.errors import StoreChangedError
from feature_platform.online import functions
from feature_platform.online.codec import POSITION_BYTES, PREFIX_BYTES
from feature_platform.online.connection import Connection, raise_if_error
from feature_platform.online.functions import PositionPart, StorePosition
from feature_platform.online.settings import ValkeyAddress
from feature_platform.online.writable import Server, WritableStore
from feature_platform.online.writable_cluster import WritableCluster
from feature_platform.sync import framing
from feature_platform.sync.encoding import Encoded
from feature_platform.sync.outcome import Written
from feature_platform.sync.scattering import ScatteringWriter

THREADS: Final = 2
"""While the server works on one batch, the other is encoded and framed."""
TIMEOUT_SECONDS: Final = 30.0
_SOON_MS: Final = 60_000
_SET: Final = b"+OK\r\n"
_EXTENDED: Final = b":1\r\n"


class Way(Enum):
    """How rows are written first."""

    NEW = "new"
    KNOWN = "known"
    FUNCTION = "function"


_NEXT = {Way.NEW: Way.KNOWN, Way.KNOWN: Way.FUNCTION, Way.FUNCTION: Way.FUNCTION}


class Writer:
    """Writes rows over one connection."""

    def __init__(self, connection: Connection, *, expires: bool, way: Way) -> None:
        self._connection = connection
        self._expires = expires
        self._way = way
        self._bytes = 0

    def write(self, rows: Encoded) -> Written:
        """Write rows, all of which are of one plan; the server has acknowledged them on return.

        Raises:
            FeaturePlatformError: the server refused a command, or cannot be reached.
        """
        self._bytes = 0
        direct = self._direct(rows)
        first, rest = rows.take(direct), rows.take(~direct)
        counts: Counter[str] = Counter()
        if len(first):
            left, done, refused = self._by(self._way, first)
            counts.update(written=done, refused=refused)
            if len(left) * 2 > len(first):
                self._way = _NEXT[self._way]
            counts.update(self._call(left))
        counts.update(self._call(rest))
        return Written(rows=len(rows), written=counts["written"], refused=counts["refused"], bytes=self._bytes)

    def _direct(self, rows: Encoded) -> Any:
        """Rows that plain commands may write: no tombstones, and nothing that is to go at once."""
        if self._way is Way.FUNCTION:
            return np.zeros(len(rows), dtype=bool)
        long = pc.greater(pc.binary_length(rows.values), PREFIX_BYTES).to_numpy(zero_copy_only=False)
        if not self._expires:
            return long
        return long & (rows.keep_until > time.time() * 1000 + _SOON_MS)

    def _by(self, way: Way, rows: Encoded) -> tuple[Encoded, int, int]:
        """What is left to the function, how many are written, how many refused."""
        if way is Way.NEW:
            left = rows.take(~self._set_if_absent(rows))
            return left, len(rows) - len(left), 0
        return self._replace(rows)

    def _set_if_absent(self, rows: Encoded) -> Any:
        replies = self._exchange_usual(framing.set_if_absent(rows, expires=self._expires), _SET, len(rows))
        if replies is None:
            return np.ones(len(rows), dtype=bool)
        return np.array([reply is not None for reply in replies], dtype=bool)

    def _replace(self, rows: Encoded) -> tuple[Encoded, int, int]:
        held = [value for values in self._exchange(*framing.get(rows)) for value in values]
        absent = np.fromiter((value is None for value in held), dtype=bool, count=len(held))
        old = _binary(held)
        later = self._later(rows, old) & ~absent
        left = np.zeros(len(rows), dtype=bool)
        if absent.any():
            left[absent] = ~self._set_if_absent(rows.take(absent))
        older = ~absent & ~later
        if older.any():
            left[older] = ~self._swap(rows.take(older), old.take(pa.array(np.flatnonzero(older))))
        refused = int(later.sum())
        return rows.take(left), len(rows) - int(left.sum()) - refused, refused

    def _swap(self, rows: Encoded, old: pa.LargeBinaryArray) -> Any:
        """Which rows are surely written and surely kept."""
        usual = _EXTENDED + _SET if self._expires else _SET
        replies = self._exchange_usual(framing.replace(rows, old, expires=self._expires), usual, len(rows))
        if replies is None:
            return np.ones(len(rows), dtype=bool)
        if not self._expires:
            return np.array([reply is not None for reply in replies], dtype=bool)
        # 0: the key is kept longer, or was gone at that instant; the function finds out which
        extended = np.array([reply == 1 for reply in replies[::2]], dtype=bool)
        return extended & np.array([reply is not None for reply in replies[1::2]], dtype=bool)

    def _later(self, rows: Encoded, old: pa.LargeBinaryArray) -> Any:
        """Where the value there has a later position than the row."""
        mine, theirs = (pc.binary_slice(values, 0, POSITION_BYTES) for values in (rows.values, old))
        return pc.greater(theirs, mine).to_numpy(zero_copy_only=False)

    def _call(self, rows: Encoded) -> dict[str, int]:
        if not len(rows):
            return {}
        replies = self._exchange(*framing.call(rows))
        return {"written": sum(r[0] for r in replies), "refused": sum(r[1] for r in replies)}

    def _exchange(self, frames: bytes, count: int) -> list[Any]:
        self._send(frames)
        return self._checked([self._connection.receive() for _ in range(count)])

    def _exchange_usual(self, frames: bytes, usual: bytes, count: int) -> list[Any] | None:
        """The replies to so many rows; None if those to each row are the usual ones."""
        self._send(frames)
        replies = self._connection.receive_usual(usual, count)
        return None if replies is None else self._checked(replies)

    def _send(self, frames: bytes) -> None:
        self._connection.send(frames)
        self._bytes += len(frames)

    def _checked(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, Exception):
                raise_if_error(reply, self._connection.address)
        return replies


def _binary(values: list[bytes | None]) -> pa.LargeBinaryArray:
    """The values side by side, an absent one as an empty one: a third of what `pa.array` takes to look at each."""
    held = [value or b"" for value in values]
    offsets = np.zeros(len(held) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, held), dtype=np.int64, count=len(held)), out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(held))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(held), buffers)


class RowWriter(Protocol):
    """Writes rows to a store."""

    def write(self, rows: Encoded) -> Written:
        """Write rows, all of which are of one plan; the store has acknowledged them on return."""


OpenWriter = Callable[[], AbstractContextManager[RowWriter]]


@contextmanager
def writer_to_server(address: ValkeyAddress, begun: StorePosition, *, expires: bool) -> Iterator[Writer]:
    """A writer over a connection of its own to the server that `begin` met.

    Raises:
        StoreChangedError: it is another one now.
    """
    with closing(Connection(address, TIMEOUT_SECONDS)) as connection:
        # advance() is asked on another connection: all must lead to the same server
        found = functions.probe(connection, ()).server_run_id
        if found != begun.server_run_id:
            raise StoreChangedError(
                f"the online store at {address} is another server than a moment ago",
                found=f"run id {found}", allowed=begun.server_run_id, hint="sync again",
            )  # fmt: skip
        # an empty store is filled; what is there is replaced, or, if it was written at this position, compared
        yield Writer(connection, expires=expires, way=Way.KNOWN if begun.position else Way.NEW)


def open_writer(store: WritableStore, begun: StorePosition, part: PositionPart, *, expires: bool) -> OpenWriter:
    """What opens a writer of rows to a part of the store that `begin` met."""
    if isinstance(store, WritableCluster):
        return lambda: nullcontext(ScatteringWriter(store, slots=part.slots))
    if isinstance(store, Server):
        return partial(writer_to_server, store.address, begun, expires=expires)
    raise TypeError(f"a store that rows cannot be written to: {store!r}")


class Writers:
    """Several threads, each of which encodes and writes whole batches.

    Each entity comes once in a plan, so it does not matter which batch is written first.
    """

    def __init__(self, open_writer: OpenWriter) -> None:
        self._open_writer = open_writer
        self._waiting: queue.Queue[tuple[Callable[[], Encoded], range | None, bool] | None] = queue.Queue(maxsize=1)
        self._done: queue.SimpleQueue[Written | BaseException] = queue.SimpleQueue()
        self._failed = threading.Event()
        self._under_way = 0

    @contextmanager
    def running(self) -> Iterator[Writers]:
        """Threads run for the block; leaving it early drops what was not sent yet."""
        threads = [threading.Thread(target=self._work, name=f"writer-{n}", daemon=True) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._failed.set()
            for thread in threads:
                while thread.is_alive():
                    try:
                        self._waiting.put(None, timeout=0.1)
                    except queue.Full:
                        continue
                    thread.join(0.1)

    def put(
        self, encode: Callable[[], Encoded], lines: range | None = None, *, absent: bool = False
    ) -> Iterator[Written]:
        """Hand in a batch, which rows of the lake it has, and whether it is tombstones.

        Returns: what has been acknowledged meanwhile.

        Raises:
            BaseException: what stopped a thread.
        """
        while True:
            try:
                self._waiting.put((encode, lines, absent), timeout=0.1)
                break
            except queue.Full:
                if self._failed.is_set():
                    break
        self._under_way += 1
        while not self._done.empty():
            yield self._next()

    def finish(self) -> Iterator[Written]:
        """Wait for everything handed in.

        Raises:
            BaseException: what stopped a thread.
        """
        while self._under_way:
            yield self._next()

    def _next(self) -> Written:
        outcome = self._done.get()
        self._under_way -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _work(self) -> None:
        try:
            with self._open_writer() as writer:
                while not self._failed.is_set() and (handed := self._waiting.get()) is not None:
                    encode, lines, absent = handed
                    self._done.put(replace(writer.write(encode()), lines=lines, absent=absent))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failed.set()
            self._done.put(error)
