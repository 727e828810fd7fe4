"""A cluster as those who write it see it.

Rule: everything is an exchange that goes on until all is acknowledged or the deadline is there; each may be repeated.
The map of slots is learned, corrected and doubted in `online.cluster`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import libvalkey

from feature_platform.errors import StoreUnavailableError
from feature_platform.online import slot_positions
from feature_platform.online.bulk import load_functions
from feature_platform.online.cluster import Cluster
from feature_platform.online.connection import Command, raise_if_error
from feature_platform.online.exchange import Call, Routed, Steps
from feature_platform.online.functions import StoreLook, StorePosition
from feature_platform.online.settings import OnlineSettings
from feature_platform.online.slot_positions import ClusterPosition, progress_key, slot_keys
from feature_platform.online.transport import Transport

T = TypeVar("T")


class WritableCluster:
    """The primaries of a cluster. Thread-safe."""

    def __init__(self, settings: OnlineSettings) -> None:
        self.cluster = Cluster(settings.seeds)
        self._seeds = settings.seeds
        self._transport = Transport(self.cluster, settings.timeout_seconds)

    @property
    def name(self) -> str:
        """Its first nodes."""
        return ", ".join(map(str, self._seeds))

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def run(self, steps: Steps[T]) -> T:
        """Drive an exchange with the cluster.

        Raises:
            StoreUnavailableError: nodes cannot be reached, or did not answer before the deadline.
        """
        return self._transport.run(steps)

    def call(self, *command: bytes | str | int) -> Any:
        """Run one command and return its reply."""
        return self.pipeline((command,))[0]

    def pipeline(self, commands: Iterable[Command]) -> list[Any]:
        """Run several commands, wherever their keys are."""
        return self.run(self.cluster.run([_routed(command) for command in commands]))

    def transaction(self, commands: Iterable[Command]) -> None:
        """Run several commands key by key: those of one key together, in the order in which the keys come first."""
        by_key: dict[bytes, list[Routed]] = {}
        for routed in map(_routed, commands):
            by_key.setdefault(routed[0], []).append(routed)
        for group in by_key.values():
            self.run(self.cluster.run(group))

    def on_servers(self, commands: Sequence[Command]) -> list[list[Any]]:
        """The replies of each primary."""
        found = self.run(self.cluster.on_primaries(commands))
        for node, replies in found.items():
            for reply in replies:
                raise_if_error(reply, self.cluster.address(node)[0])
        return list(found.values())

    def values(self, row_keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of these keys."""
        return list(self.run(self.cluster.read(row_keys)))

    def remove(self, row_keys: Sequence[bytes]) -> int:
        """Delete these keys; how many were there."""
        return sum(self.pipeline([("UNLINK", key) for key in row_keys]))

    def pages(self, pattern: bytes, count: int) -> Iterator[list[bytes]]:
        """All text keys that fit, one primary after another."""
        for node in self.run(self.cluster.on_primaries([("PING",)])):
            cursor = b"0"
            while True:
                command = ("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "string")
                cursor, page = self.run(_of_node(self.cluster, node, command))
                yield page
                if cursor == b"0":
                    break

    def load_functions(self) -> None:
        """Load the functions on every primary."""
        self.run(load_functions(self.cluster))

    def begin(self, view: str) -> ClusterPosition:
        """How far each slot holds a view."""
        begun = self.run(slot_positions.begin(self.cluster, view))
        noted = self.call("GET", progress_key(view))
        identity, _, progress = (noted or b"").decode().partition(" ")
        return begun.with_progress(progress) if identity == begun.identity else begun

    def advance(self, view: str, begun: ClusterPosition, position: int) -> bool:
        """Move every slot that is still what `begin` met; whether all were."""
        return self.run(slot_positions.advance(self.cluster, view, begun, position))

    def note(self, view: str, begun: ClusterPosition, progress: str) -> bool:
        """Leave how far a plan is. It is believed only while no slot has lost anything or been served elsewhere."""
        self.call("SET", progress_key(view), f"{begun.identity} {progress}")
        return True

    def begin_pushes(self, view: str) -> StorePosition:
        """Which cluster this is: another one as soon as any slot lost something or any server is another process."""
        return self.run(slot_positions.begin(self.cluster, view))

    def probe(self, views: Iterable[str]) -> StoreLook:
        """Where the cluster is."""
        return self.run(slot_positions.look(self.cluster, views))

    def forget(self, view: str) -> None:
        """Delete what the slots say of a view."""
        self.pipeline([("DEL", progress_key(view)), *(("HDEL", key, view) for key in slot_keys())])


def _routed(command: Command) -> Routed:
    """A command with its key, which comes first but in `XINFO STREAM key` and `MEMORY USAGE key`."""
    key = command[2] if command[0] in ("XINFO", "MEMORY") else command[1]
    return (key if isinstance(key, bytes) else str(key).encode()), command


def _of_node(cluster: Cluster, node: str, command: Command) -> Steps[Any]:
    """A node's reply to a command that only it can answer."""
    (outcome,) = yield (Call(node, libvalkey.pack_command(tuple(command)), 1),)
    if isinstance(outcome, StoreUnavailableError):
        cluster.suspect()
        raise outcome
    raise_if_error(outcome[0], cluster.address(node)[0])
    return outcome[0]
