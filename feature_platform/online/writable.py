"""An online store as those who write it see it: one server, or a cluster of them.

Rule: who writes does not ask which of the two it is. Whatever must be done differently on a cluster is a method here;
rows alone have their own ways (`sync.writing`), because they are encoded in columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from feature_platform.online import functions, keys
from feature_platform.online.connection import Command, Connection
from feature_platform.online.functions import StoreLook, StorePosition
from feature_platform.online.settings import OnlineSettings


class DocumentStore(Protocol):
    """What documents and logs need. Commands name one key each."""

    def call(self, *command: bytes | str | int) -> Any:
        """Run one command and return its reply."""

    def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """Run several commands, each of which may be repeated."""

    def transaction(self, commands: Iterable[Command]) -> None:
        """Run several commands: at one instant, or, on a cluster, key by key in this order."""


class WritableStore(DocumentStore, Protocol):
    """What syncs, pushes and parity need."""

    @property
    def name(self) -> str:
        """Where it is, for people."""

    def close(self) -> None:
        """Close all connections."""

    def on_servers(self, commands: Sequence[Command]) -> list[list[Any]]:
        """The replies of each server that takes writes."""

    def values(self, row_keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys."""

    def remove(self, row_keys: Sequence[bytes]) -> int:
        """Delete these keys; how many were there."""

    def pages(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """All text keys that fit, about so many are looked at in each step; a key may come twice."""

    def load_functions(self) -> None:
        """Load the functions wherever rows are written."""

    def begin(self, view: str) -> StorePosition:
        """How far the store holds a view (`functions.begin`)."""

    def advance(self, view: str, begun: Any, position: int) -> bool:
        """Record that everything up to this position is written (`functions.advance`)."""

    def note(self, view: str, begun: Any, progress: str) -> bool:
        """Leave how far a plan is (`functions.note`)."""

    def begin_pushes(self, view: str) -> StorePosition:
        """Which store this is, as far as pushed rows go (`functions.begin_pushes`)."""

    def probe(self, views: Iterable[str]) -> StoreLook:
        """Where the store is (`functions.probe`)."""

    def forget(self, view: str) -> None:
        """Delete what the store says of itself about a view: it claims nothing from now on."""


class Server(Connection):
    """One server."""

    @property
    def name(self) -> str:
        """Its address."""
        return str(self.address)

    def on_servers(self, commands: Sequence[Command]) -> list[list[Any]]:
        """The replies of the server."""
        return [self.pipeline(commands)]

    def values(self, row_keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys."""
        return list(self.call("MGET", *row_keys)) if row_keys else []

    def remove(self, row_keys: Sequence[bytes]) -> int:
        """Delete these keys; how many were there."""
        return int(self.call("UNLINK", *row_keys)) if row_keys else 0

    def pages(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """All text keys that fit."""
        cursor = b"0"
        while True:
            cursor, page = self.call("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "string")
            yield page
            if cursor == b"0":
                return

    def load_functions(self) -> None:
        """Load the functions."""
        functions.load(self)

    def begin(self, view: str) -> StorePosition:
        """How far the server holds a view."""
        return functions.begin(self, view)

    def advance(self, view: str, begun: StorePosition, position: int) -> bool:
        """Record that everything up to this position is written."""
        return functions.advance(self, view, begun, position)

    def note(self, view: str, begun: StorePosition, progress: str) -> bool:
        """Leave how far a plan is."""
        return functions.note(self, view, begun, progress)

    def begin_pushes(self, view: str) -> StorePosition:
        """Which server this is, as far as pushed rows go."""
        return functions.begin_pushes(self, view)

    def probe(self, views: Iterable[str]) -> StoreLook:
        """Where the server is."""
        return functions.probe(self, views)

    def forget(self, view: str) -> None:
        """Delete what the server says of itself about a view."""
        self.call("DEL", keys.position_key(view), keys.push_position_key(view))


def open_store(url: str, timeout_seconds: float) -> WritableStore:
    """The store that a URL names.

    Args:
        url: of one server or of a cluster (`online.settings`).
        timeout_seconds: longest wait for an answer; on a cluster for what failovers delay, too.

    Raises:
        ConfigurationError: the address is malformed.
        StoreUnavailableError: the server cannot be reached.
    """
    settings = OnlineSettings.parse(url, timeout_seconds=timeout_seconds)
    if not settings.seeds:
        return Server(settings.address, timeout_seconds)
    # for those who have a cluster
    from feature_platform.online.writable_cluster import WritableCluster

    return WritableCluster(settings)
