"""Drives exchanges over asyncio: a few connections per node, each shared by many tasks.

Rule: a server answers in the order of the questions, so tasks share a connection and each waits for its own replies.
A task that gives up leaves its replies behind, to be dropped when they come; a connection that has not answered for the
client's whole timeout is closed, and those who still waited on it try elsewhere. A connection has one alarm for all who
wait; it is set for the first of their limits, and an answer in time does not touch it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, TypeVar

import libvalkey

from feature_platform.errors import ConfigurationError, StoreUnavailableError
from feature_platform.online.connection import (
    greeting,
    no_valkey_server,
    raise_if_error,
    raise_if_untrusted,
    tls_context,
    unavailable,
)
from feature_platform.online.exchange import Call, Outcome, Pause, Steps, Store
from feature_platform.online.forks import Forks
from feature_platform.online.settings import ValkeyAddress

CONNECTIONS: Final = 4
"""Connections per node: another is opened while all are busy, up to this many."""

_READ_BYTES: Final = 1 << 16
_SLACK: Final = 0.9

T = TypeVar("T")


class _Waiter:
    """A call under way."""

    __slots__ = ("count", "future", "limit", "replies", "since")

    def __init__(self, count: int, future: asyncio.Future[list[Any]], since: float, limit: float) -> None:
        self.count = count
        self.future = future
        self.since = since
        self.limit = limit
        self.replies: list[Any] = []


class AioConnection(asyncio.BufferedProtocol):
    """One connection of one event loop."""

    def __init__(self, address: ValkeyAddress, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self.address = address
        self.loop = loop
        self.patience = patience
        """If nothing was answered for so long, nobody gets an answer here."""
        self.lost: Exception | None = None
        self.waiting: deque[_Waiter] = deque()
        self._reader = libvalkey.Reader()
        # TLS reads into slices of it, and a slice of a bytearray would be a copy
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._alarm: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop."""
        reader = self._reader
        reader.feed(self._buffer, 0, nbytes)
        try:
            while (reply := reader.gets()) is not False:
                waiter = self.waiting[0]
                waiter.replies.append(reply)
                if len(waiter.replies) == waiter.count:
                    self.waiting.popleft()
                    if not waiter.future.done():
                        waiter.future.set_result(waiter.replies)
        except (libvalkey.ProtocolError, IndexError) as error:
            self._end(no_valkey_server(self.address, error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if self.lost is None:
            lost = exc if isinstance(exc, OSError) else ConnectionResetError("the server closed the connection")
            self._end(unavailable(self.address, lost))

    def call(self, payload: bytes, count: int, limit: float) -> asyncio.Future[list[Any]]:
        """Send commands; the future holds their replies, which are waited for until this time of the loop."""
        future: asyncio.Future[list[Any]] = self.loop.create_future()
        if self.lost is not None or self._transport is None:
            future.set_exception(self.lost or unavailable(self.address, ConnectionResetError("not connected")))
            return future
        self.waiting.append(_Waiter(count, future, self.loop.time(), limit))
        if self._alarm is None or limit < self._alarm.when():
            self._set_alarm(limit)
        self._transport.write(payload)
        return future

    def close(self) -> None:
        """Close it; those who wait are told."""
        self._end(unavailable(self.address, ConnectionResetError("the connection was closed")))

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.loop.call_at(when, self._ring, when)

    def _ring(self, when: float) -> None:
        """Some tasks may have waited long enough."""
        self._alarm = None
        waiting = [waiter for waiter in self.waiting if not waiter.future.done()]
        late = [waiter for waiter in waiting if waiter.limit <= when]
        for waiter in late:
            waiter.future.set_exception(unavailable(self.address, TimeoutError("timed out")))
        if late and self.loop.time() - self.waiting[0].since >= self.patience * _SLACK:
            self.close()
        elif len(late) < len(waiting):
            self._set_alarm(min(waiter.limit for waiter in waiting if waiter.limit > when))

    def _end(self, error: Exception) -> None:
        self.lost = error
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._transport is not None:
            self._transport.abort()
        waiting, self.waiting = self.waiting, deque()
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(error)


class AioTransport:
    """The connections of one client. They belong to the event loop that first used them; another one has its own."""

    def __init__(self, store: Store, timeout_seconds: float) -> None:
        self._store = store
        self._timeout_seconds = timeout_seconds
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._connections: dict[str, list[AioConnection]] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._closed = False

    async def run(self, steps: Steps[T], timeout_seconds: float | None = None) -> T:
        """Drive an exchange to its end.

        Raises:
            StoreUnavailableError: a server cannot be reached, or did not answer in time.
            FeaturePlatformError: whatever the exchange raises.
        """
        loop = asyncio.get_running_loop()
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = loop.time() + timeout
        patience = timeout * self._store.patience
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    in_time = loop.time() + step.seconds < deadline
                    if in_time:
                        await asyncio.sleep(step.seconds)
                    step = steps.send(in_time)
                    continue
                limit = min(deadline, loop.time() + patience)
                if len(step) == 1:
                    step = steps.send((await self._call(step[0], loop, limit),))
                else:
                    step = steps.send(await asyncio.gather(*(self._call(call, loop, limit) for call in step)))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for connections in self._connections.values():
            for connection in connections:
                connection.close()
        self._connections.clear()
        await asyncio.sleep(0)  # the loop closes the sockets

    async def _call(self, call: Call, loop: asyncio.AbstractEventLoop, limit: float) -> Outcome:
        node, payload, count = call
        try:
            connection = self._free(node, loop) or await self._connect(node, loop, limit)
            return await connection.call(payload, count, limit)
        except StoreUnavailableError as error:
            return error

    def _free(self, node: str, loop: asyncio.AbstractEventLoop) -> AioConnection | None:
        """The least busy connection, unless another may be opened instead."""
        if self._closed:
            raise ConfigurationError("this client is closed", hint="connect again")
        owner = (Forks.count, loop)
        if self._owner != owner:
            # after a fork, or in another loop: the connections are not ours to close
            self._owner, self._connections, self._opening = owner, {}, {}
        connections = self._connections.get(node)
        if not connections:
            return None
        best = connections[0]
        for connection in connections:
            if connection.lost is not None:
                self._connections[node] = [other for other in connections if other.lost is None]
                return self._free(node, loop)
            if len(connection.waiting) < len(best.waiting):
                best = connection
        if best.waiting and len(connections) < CONNECTIONS:
            return None
        return best

    async def _connect(self, node: str, loop: asyncio.AbstractEventLoop, limit: float) -> AioConnection:
        address, read_only = self._store.address(node)
        try:
            async with asyncio.timeout_at(limit), self._opening.setdefault(node, asyncio.Lock()):
                # one at a time: those who waited may find that they need none
                if (free := self._free(node, loop)) is not None:
                    return free
                connection = await _open(address, loop, self._timeout_seconds * self._store.patience)
                try:
                    for command in greeting(address, read_only=read_only):
                        (reply,) = await connection.call(libvalkey.pack_command(tuple(command)), 1, limit)
                        raise_if_error(reply, address)
                except BaseException:  # a task that is cancelled as well: nobody else has it yet; raised again
                    connection.close()
                    raise
                self._connections.setdefault(node, []).append(connection)
                return connection
        except OSError as error:  # TimeoutError is one
            raise unavailable(address, error) from error


async def _open(address: ValkeyAddress, loop: asyncio.AbstractEventLoop, patience: float) -> AioConnection:
    def protocol() -> AioConnection:
        return AioConnection(address, loop, patience)

    if address.socket_path:
        _, connection = await loop.create_unix_connection(protocol, address.socket_path)
    elif address.tls:
        context = tls_context(address)
        try:
            _, connection = await loop.create_connection(protocol, address.host, address.port, ssl=context)
        except OSError as error:
            raise_if_untrusted(address, error)
            raise
    else:
        _, connection = await loop.create_connection(protocol, address.host, address.port)
    return connection
