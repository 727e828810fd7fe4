"""What is sent and what follows from the replies, as exchanges; and those with one server. No input or output.

Rule: an exchange is a generator. It yields calls, is sent what came of each (replies, or the error that prevented
them), and returns the result; or it yields a pause, and is told whether there was time for it. Both clients, with and
without asyncio, drive the same generators. Only reads and harmless commands go through here, so anything may be sent
again: once where a connection had died, and on a cluster, while the deadline allows, until the cluster has sorted
itself out.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import libvalkey

from feature_platform.errors import StoreUnavailableError
from feature_platform.online.connection import ClosedByServerError, Command, raise_if_error
from feature_platform.online.settings import ValkeyAddress


class Call(NamedTuple):
    """Framed commands for one node, and the replies they owe."""

    node: str
    payload: bytes
    replies: int


class Pause(NamedTuple):
    """Wait; the answer is False if the deadline leaves no time for it."""

    seconds: float


T = TypeVar("T")
Outcome = list[Any] | StoreUnavailableError
Steps = Generator[tuple[Call, ...] | Pause, Any, T]
Routed = tuple[bytes, Command]
"""A command, and the key by which a cluster finds its node."""


class Store(Protocol):
    """Where the documents and rows lie."""

    patience: float
    """Longest wait for one call, as a part of the whole timeout."""

    def address(self, node: str) -> tuple[ValkeyAddress, bool]:
        """Where a node listens, and whether the connection is for reads from a replica."""

    def read(self, keys: Sequence[bytes]) -> Steps[Sequence[bytes | None]]:
        """The values of these keys."""

    def run(self, commands: Sequence[Routed]) -> Steps[list[Any]]:
        """The replies to these commands."""


class Standalone:
    """One server: everything in one round trip."""

    patience = 1.0

    def __init__(self, address: ValkeyAddress) -> None:
        self._address = address

    def address(self, node: str) -> tuple[ValkeyAddress, bool]:
        """The server's address; it has no other nodes."""
        return self._address, bool(node)

    def read(self, keys: Sequence[bytes]) -> Steps[Sequence[bytes | None]]:
        """The values of these keys, by one MGET."""
        (values,) = yield from self._call(libvalkey.pack_command(("MGET", *keys)), 1)
        return values  # type: ignore[no-any-return]

    def run(self, commands: Sequence[Routed]) -> Steps[list[Any]]:
        """The replies to these commands, pipelined."""
        frames = b"".join(libvalkey.pack_command(tuple(command)) for _, command in commands)
        return (yield from self._call(frames, len(commands)))

    def _call(self, payload: bytes, replies: int) -> Steps[list[Any]]:
        calls = (Call("", payload, replies),)
        (outcome,) = yield calls
        if isinstance(outcome, ClosedByServerError):
            # an idle connection turns out to be dead; the others went with it, so this one is new
            (outcome,) = yield calls
        if isinstance(outcome, StoreUnavailableError):
            raise outcome
        for reply in outcome:
            if isinstance(reply, libvalkey.ReplyError):
                raise_if_error(reply, self._address)
        return outcome  # type: ignore[no-any-return]
