"""Bytes to and from one Valkey server: a socket, libvalkey's parser, and a pool of them.

Rule: every failure leaves as a typed error, and a socket that failed is never used again. The package `valkey` would
do as well, but importing it takes about 0.3 s of CPU (it loads asyncio, TLS and the cluster client), more than all of
the online client may.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar

import libvalkey

from feature_platform.errors import ConfigurationError, FeaturePlatformError, StoreUnavailableError
from feature_platform.online.settings import ValkeyAddress

_READ_BYTES: Final = 1 << 16
_IDLE_CONNECTIONS: Final = 64
_UNAVAILABLE: Final = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "OOM", "MISCONF")
_REFUSED: Final = ("NOAUTH", "WRONGPASS", "NOPERM")

Command = Sequence[bytes | str | int]
Result = TypeVar("Result")


class ClosedByServerError(StoreUnavailableError):
    """The server closed the connection; on one that had been idle, a second attempt is worth it."""


class Connection:
    """One connection. Not shared between threads."""

    def __init__(self, address: ValkeyAddress, timeout_seconds: float) -> None:
        self.address = address
        self.pid = os.getpid()
        self._reader = libvalkey.Reader()
        self._socket = self._connect(timeout_seconds)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; nothing is sent."""
        self._socket.close()

    def call(self, *command: bytes | str | int) -> Any:
        """Run one command and return its reply.

        Raises:
            FeaturePlatformError: the server refused it, or cannot be reached.
        """
        return self.pipeline((command,))[0]

    def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """Run several commands in one round trip.

        Raises:
            FeaturePlatformError: the server refused one of them, or cannot be reached.
        """
        packed = [libvalkey.pack_command(tuple(command)) for command in commands]
        self.send(b"".join(packed))
        replies = [self.receive() for _ in packed]
        for reply in replies:
            raise_if_error(reply, self.address)
        return replies

    def send(self, frames: bytes | memoryview) -> None:
        """Send commands that are framed already; each owes one `receive`."""
        try:
            self._socket.sendall(frames)
        except OSError as error:
            raise self._unavailable(error) from error

    def receive(self) -> Any:
        """The next reply; an error the server reported is returned, not raised (`raise_if_error`)."""
        try:
            while (reply := self._reader.gets()) is False:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                self._reader.feed(data)
        except OSError as error:
            raise self._unavailable(error) from error
        except libvalkey.ProtocolError as error:
            raise ConfigurationError(
                f"what listens at {self.address} is no Valkey server", found=str(error), hint="check the address"
            ) from error
        return reply

    def _connect(self, timeout_seconds: float) -> socket.socket:
        address = self.address
        try:
            if not address.socket_path:
                opened = socket.create_connection((address.host, address.port), timeout=timeout_seconds)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return _with_tls(opened, address) if address.tls else opened
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                opened.settimeout(timeout_seconds)
                opened.connect(address.socket_path)
            except BaseException:
                opened.close()
                raise
        except OSError as error:
            raise self._unavailable(error) from error
        return opened

    def _greet(self) -> None:
        commands: list[Command] = []
        if self.address.password is not None:
            user = (self.address.username,) if self.address.username else ()
            commands.append(("AUTH", *user, self.address.password))
        if self.address.database:
            commands.append(("SELECT", self.address.database))
        if commands:
            self.pipeline(commands)

    def _unavailable(self, error: OSError) -> StoreUnavailableError:
        kind = ClosedByServerError if isinstance(error, ConnectionError) else StoreUnavailableError
        what = "did not answer in time" if isinstance(error, TimeoutError) else "cannot be reached"
        return kind(
            f"the online store at {self.address} {what}",
            found=str(error) or type(error).__name__,
            hint="check that Valkey runs there (`feature-platform status`); the same call may succeed later",
        )


class ConnectionPool:
    """Connections of one process, handed to one thread at a time.

    After a fork the child starts with an empty pool: it closes its copies of the parent's sockets without a word.
    """

    def __init__(self, address: ValkeyAddress, timeout_seconds: float) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def run(self, work: Callable[[Connection], Result]) -> Result:
        """Do this work on a connection; once more on a new one if an idle connection turns out to be dead.

        The work must be safe to repeat.

        Raises:
            StoreUnavailableError: the server cannot be reached.
        """
        idle = self._take()
        if idle is not None:
            try:
                with self._returned(idle):
                    return work(idle)
            except ClosedByServerError:
                self.clear()  # the others went with it
        with self._returned(Connection(self._address, self._timeout_seconds)) as fresh:
            return work(fresh)

    def clear(self) -> None:
        """Close the idle connections."""
        self._after_fork()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        self._closed = True
        self.clear()

    def _take(self) -> Connection | None:
        self._after_fork()
        if self._closed:
            raise ConfigurationError("this client is closed", hint="connect again")
        with self._lock:
            return self._idle.pop() if self._idle else None

    @contextmanager
    def _returned(self, connection: Connection) -> Iterator[Connection]:
        try:
            yield connection
        except BaseException:
            connection.close()  # a reply may be outstanding
            raise
        with self._lock:
            if not self._closed and connection.pid == os.getpid() and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        # another thread of the parent may have held the lock: the child's copy would stay locked for ever
        self._lock = threading.Lock()
        self._pid = os.getpid()
        for connection in self._idle:
            connection.close()
        self._idle = []


def _with_tls(opened: socket.socket, address: ValkeyAddress) -> socket.socket:
    # 15 ms of CPU to import: only where it is used
    import ssl

    try:
        context = ssl.create_default_context(cafile=address.ca_certs)
        return context.wrap_socket(opened, server_hostname=address.host)
    except BaseException:
        opened.close()
        raise


def raise_if_error(reply: object, address: ValkeyAddress) -> None:
    """Raise the typed error for a reply with which the server refused a command.

    Raises:
        StoreUnavailableError: it may accept the same later.
        ConfigurationError: user, password or rights are wrong, or the server is a cluster.
        FeaturePlatformError: anything else.
    """
    if not isinstance(reply, libvalkey.ReplyError):
        return
    message = str(reply)
    code = message.split(" ", 1)[0]
    failed = f"the online store at {address} refused a command"
    if code in _UNAVAILABLE:
        raise StoreUnavailableError(failed, found=message, hint="the same call may succeed later")
    if code in _REFUSED:
        raise ConfigurationError(
            failed, found=message, hint="give the URL a user and password, and that user the rights it needs"
        )
    if code in {"MOVED", "ASK", "CROSSSLOT"}:
        raise ConfigurationError(
            failed, found=message, allowed="one primary server", hint="the address leads to a node of a cluster"
        )
    raise FeaturePlatformError(failed, found=message)
