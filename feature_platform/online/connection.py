"""Bytes to and from one Valkey server: a socket and libvalkey's parser.

Rule: every failure leaves as a typed error, and a socket that failed is never used again. The package `valkey` would
do as well, but importing it takes about 0.3 s of CPU (it loads asyncio, TLS and the cluster client), more than all of
the online client may.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

import libvalkey

from feature_platform.errors import ConfigurationError, FeaturePlatformError, StoreUnavailableError
from feature_platform.online.forks import Forks
from feature_platform.online.settings import ValkeyAddress

if TYPE_CHECKING:
    import ssl

_READ_BYTES: Final = 1 << 16
_BIG_READ_BYTES: Final = 1 << 18
_SLACK: Final = 0.9
"""A deadline may be overrun by a tenth."""
_SENT_AT_ONCE: Final = 1 << 16
_UNAVAILABLE: Final = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "OOM", "MISCONF")
_REFUSED: Final = ("NOAUTH", "WRONGPASS", "NOPERM")

Command = Sequence[bytes | str | int]


class ClosedByServerError(StoreUnavailableError):
    """The server closed the connection; on one that had been idle, a second attempt is worth it."""


class Connection:
    """One connection. Not shared between threads."""

    def __init__(self, address: ValkeyAddress, timeout_seconds: float, *, read_only: bool = False) -> None:
        self.address = address
        self.forks = Forks.count
        self._reader = libvalkey.Reader()
        deadline = time.monotonic() + timeout_seconds
        self._socket = self._connect(timeout_seconds)
        self._patience = 0.0
        try:
            if commands := greeting(address, read_only=read_only):
                self._wait_at_most(deadline - time.monotonic())
                self.pipeline(commands)
            self._wait_at_most(timeout_seconds)
        except BaseException:  # an interrupt as well: the object is never returned; raised again
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

    def transaction(self, commands: Iterable[Command]) -> None:
        """Run several commands at one instant.

        Raises:
            FeaturePlatformError: the server refused one of them, or cannot be reached.
        """
        self.pipeline([("MULTI",), *commands, ("EXEC",)])

    def start(self, frames: bytes, seconds: float) -> None:
        """Send commands that must be answered within so many seconds; `finish` takes the replies.

        Raises:
            StoreUnavailableError: the server cannot be reached.
        """
        # a system call more is a tenth of a read; the usual deadline is there from the last time
        if not self._patience * _SLACK <= seconds <= self._patience:
            self._wait_at_most(seconds)
        if len(frames) <= _SENT_AT_ONCE:
            self.send(frames)
            return
        deadline = time.monotonic() + seconds
        rest = memoryview(frames)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except OSError as error:
                raise self._unavailable(error) from error
            self._wait_at_most(deadline - time.monotonic())

    def finish(self, count: int, deadline: float) -> list[Any]:
        """The replies to what was started; errors that the server reported are among them, not raised.

        Raises:
            StoreUnavailableError: the server went away, or the deadline (of `time.monotonic`) passed.
        """
        reader = self._reader
        replies: list[Any] = []
        size = _READ_BYTES
        try:
            data = self._socket.recv(size)
            while True:
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                reader.feed(data)
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
                    if len(replies) == count:
                        return replies
                if len(data) == size:
                    size = _BIG_READ_BYTES
                self._wait_at_most(deadline - time.monotonic())
                data = self._socket.recv(size)
        except OSError as error:
            raise self._unavailable(error) from error
        except libvalkey.ProtocolError as error:
            raise no_valkey_server(self.address, error) from error

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
            raise no_valkey_server(self.address, error) from error
        return reply

    def receive_usual(self, usual: bytes, count: int) -> list[Any] | None:
        """The next replies, usually these bytes so many times; None if they are: comparing costs less than parsing."""
        expected, seen = usual * count, 0
        try:
            while seen < len(expected):
                data = self._socket.recv(_BIG_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                if not expected.startswith(data, seen):
                    self._reader.feed(expected[:seen] + data)
                    return [self.receive() for _ in range(count * usual.count(b"\r\n"))]
                seen += len(data)
        except OSError as error:
            raise self._unavailable(error) from error
        return None

    def _wait_at_most(self, seconds: float) -> None:
        """Longest wait for each piece of an answer.

        The kernel's own timeouts: Python's cost a system call before each read. TLS needs Python's.
        """
        if seconds <= 0:
            raise self._unavailable(TimeoutError("timed out"))
        self._patience = seconds
        if self.address.tls:
            self._socket.settimeout(seconds)
            return
        limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6) or 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _connect(self, timeout_seconds: float) -> socket.socket:
        address = self.address
        try:
            if not address.socket_path:
                opened = socket.create_connection((address.host, address.port), timeout=timeout_seconds)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if address.tls:
                    return _with_tls(opened, address)
            else:
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    opened.settimeout(timeout_seconds)
                    opened.connect(address.socket_path)
                except BaseException:  # an interrupt as well: nobody else has the socket; raised again
                    opened.close()
                    raise
        except OSError as error:
            raise self._unavailable(error) from error
        opened.settimeout(None)
        return opened

    def _unavailable(self, error: OSError) -> StoreUnavailableError:
        return unavailable(self.address, error)


def greeting(address: ValkeyAddress, *, read_only: bool) -> list[Command]:
    """What a new connection says first."""
    commands: list[Command] = []
    if address.password is not None:
        user = (address.username,) if address.username else ()
        commands.append(("AUTH", *user, address.password))
    if address.database:
        commands.append(("SELECT", address.database))
    if read_only:  # a replica of a cluster answers reads only to those who say that they may be behind
        commands.append(("READONLY",))
    return commands


def no_valkey_server(address: ValkeyAddress, error: Exception) -> ConfigurationError:
    """The typed error for replies that nobody can parse."""
    return ConfigurationError(
        f"what listens at {address} is no Valkey server", found=str(error), hint="check the address"
    )


def unavailable(address: ValkeyAddress, error: OSError) -> StoreUnavailableError:
    """The typed error for what the operating system reported."""
    gone = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
    kind = ClosedByServerError if gone else StoreUnavailableError
    # EAGAIN is how the kernel reports that its own timeout has passed
    late = isinstance(error, TimeoutError | BlockingIOError)
    return kind(
        f"the online store at {address} {'did not answer in time' if late else 'cannot be reached'}",
        found="timed out" if late else str(error) or type(error).__name__,
        hint="check that Valkey runs there (`feature-platform status`); the same call may succeed later",
    )


def _with_tls(opened: socket.socket, address: ValkeyAddress) -> socket.socket:
    try:
        return tls_context(address).wrap_socket(opened, server_hostname=address.host)
    except BaseException as error:  # an interrupt as well: nobody else has the socket; raised again
        opened.close()
        raise_if_untrusted(address, error)
        raise


def tls_context(address: ValkeyAddress) -> ssl.SSLContext:
    """What a connection with TLS trusts.

    Raises:
        ConfigurationError: the file with the certificates to trust cannot be read.
    """
    # 15 ms of CPU to import: only where it is used
    import ssl

    try:
        return ssl.create_default_context(cafile=address.ca_certs)
    except OSError as error:
        raise ConfigurationError(
            f"the certificates to trust for {address} cannot be read",
            found=f"{address.ca_certs}: {error}",
            hint="correct ssl_ca_certs in FEATURE_PLATFORM_VALKEY_URL",
        ) from error


def raise_if_untrusted(address: ValkeyAddress, error: BaseException) -> None:
    """Raise the typed error for a server whose certificate is not trusted: trying again does not help.

    Raises:
        ConfigurationError: that is what the error says.
    """
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        raise ConfigurationError(
            f"the certificate of the online store at {address} is not trusted",
            found=error.verify_message,
            hint="add ?ssl_ca_certs=<file> with the authority that signed it, and write the host as it is named there",
        ) from error


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
            failed,
            found=message,
            allowed="one primary server, or a cluster by its own form of address",
            hint="the address leads to a node of a cluster: write valkey+cluster://host:port,host:port",
        )
    raise FeaturePlatformError(failed, found=message)
