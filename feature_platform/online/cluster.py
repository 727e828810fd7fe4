"""Exchanges with a cluster: what is sent to which node, and what follows from the replies. No input or output.

Rule: a cluster is asked until it answers or the deadline is there. Redirections are followed at once, whatever else is
wrong (a node that is gone, a slot without an owner) is met by asking for the map of slots again after a pause. Imported
only by who has the address of a cluster.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final

import libvalkey

from feature_platform.errors import StoreUnavailableError
from feature_platform.online.connection import ClosedByServerError, Command, raise_if_error
from feature_platform.online.exchange import Call, Pause, Routed, Steps
from feature_platform.online.settings import ValkeyAddress
from feature_platform.online.slots import SlotMap, group_by, key_slot, parse_redirection, parse_slots

_HURRIED_ROUNDS: Final = 8
"""So often a cluster is asked again without a pause; then redirections that go in a circle wait for it to settle."""
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_FEW: Final = 8
"""A node that redirects more keys than this at once has lost its part: the whole map is learned anew."""
_READ_ONLY: Final = "ro:"
_WAIT_FOR: Final = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")
_DOWN_IN_FUNCTION: Final = "while the cluster is down"
"""What a function says that met the same within: an `ERR`, without a code of its own."""
_CLUSTER_SLOTS: Final = libvalkey.pack_command(("CLUSTER", "SLOTS"))
_ASKING: Final = libvalkey.pack_command(("ASKING",))


class Cluster:
    """A cluster: commands are scattered over the nodes that own their keys, and gathered.

    The map of slots is learned from any node, corrected by redirections, and asked for again when a node fails.
    """

    patience = 0.4

    def __init__(self, seeds: Sequence[ValkeyAddress], *, from_replicas: bool = False) -> None:
        self._seed = seeds[0]
        self._seeds = tuple(f"{seed.host}:{seed.port}" for seed in seeds)
        self._from_replicas = from_replicas
        self._turn = itertools.count()
        self._map: SlotMap | None = None
        self._suspect = False

    @property
    def slots(self) -> SlotMap | None:
        """The map as far as it is known."""
        return self._map

    def address(self, node: str) -> tuple[ValkeyAddress, bool]:
        """Where a node listens: with the user, password and TLS of the first address."""
        host, _, port = node.removeprefix(_READ_ONLY).rpartition(":")
        return replace(self._seed, host=host, port=int(port)), node.startswith(_READ_ONLY)

    def read(self, keys: Sequence[bytes]) -> Steps[Sequence[bytes | None]]:
        """The values of these keys, each by a GET: a MGET must not reach over slots, even within a node."""
        frames = [libvalkey.pack_command(("GET", key)) for key in keys]
        return (yield from self._route([key_slot(key) for key in keys], frames, reading=True))

    def run(self, commands: Sequence[Routed]) -> Steps[list[Any]]:
        """The replies to these commands, from the primaries."""
        frames = [libvalkey.pack_command(tuple(command)) for _, command in commands]
        return (yield from self._route([key_slot(key) for key, _ in commands], frames, reading=False))

    def owners(self) -> Steps[tuple[str, ...]]:
        """The primary of each slot, as far as the cluster has one; else an empty text."""
        last: StoreUnavailableError | None = None
        pauses = _pauses()
        while self._map is None or self._suspect:
            last = (yield from self._learn(set())) or last
            if (self._map is None or self._suspect) and not (yield Pause(next(pauses))):
                raise last or self._too_late()
        return tuple(shard.primary if shard else "" for shard in self._map.shards)

    def suspect(self) -> None:
        """Ask for the map again before the next use: a node did not answer, or had lost its part."""
        self._suspect = True

    def on_primaries(self, commands: Sequence[Command]) -> Steps[dict[str, list[Any]]]:
        """The replies of every primary to these commands, errors included. A primary that fails is waited for."""
        payload = b"".join(libvalkey.pack_command(tuple(command)) for command in commands)
        found: dict[str, list[Any]] = {}
        pauses = _pauses()
        while True:
            owners = yield from self.owners()
            primaries = sorted({node for node in owners if node})
            missing = [node for node in primaries if node not in found]
            if not missing:
                return {node: found[node] for node in primaries}
            outcomes = yield tuple(Call(node, payload, len(commands)) for node in missing)
            last: StoreUnavailableError | None = None
            for node, outcome in zip(missing, outcomes, strict=True):
                if isinstance(outcome, StoreUnavailableError):
                    last, self._suspect = outcome, True
                else:
                    found[node] = outcome
            if last is not None and not (yield Pause(next(pauses))):
                raise last

    def _too_late(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the cluster at {', '.join(self._seeds)} did not answer in time",
            found="redirections, or slots that no node serves",
            hint="check the cluster (`CLUSTER INFO`); the same call may succeed later",
        )

    def _route(self, slots: Sequence[int], frames: Sequence[bytes], *, reading: bool) -> Steps[list[Any]]:
        found: list[Any] = [None] * len(frames)
        pending: Sequence[int] = range(len(frames))
        asked: dict[int, str] = {}
        failed: set[str] = set()
        last: StoreUnavailableError | None = None
        pauses, hurries = _pauses(), itertools.count(1)
        while True:
            if self._map is None or self._suspect:
                last = (yield from self._learn(failed)) or last
            nodes = [asked.get(i) or self._node(slots[i], failed, reading=reading) for i in pending]
            groups = {node: items for node, items in group_by(pending, nodes).items() if node}
            outcomes = yield tuple(
                Call(
                    node,
                    b"".join(_ASKING + frames[i] if i in asked else frames[i] for i in items),
                    sum(2 if i in asked else 1 for i in items),
                )
                for node, items in groups.items()
            )
            left = [i for i, node in zip(pending, nodes, strict=True) if not node]
            hurried = not left
            for (node, items), outcome in zip(groups.items(), outcomes, strict=True):
                if isinstance(outcome, StoreUnavailableError):
                    # a connection that had died idle says nothing of its node; and there may be another replica
                    others = isinstance(outcome, ClosedByServerError) or node.startswith(_READ_ONLY)
                    last, hurried, self._suspect = outcome, hurried and others, True
                    failed.add(node)
                    left += items
                    continue
                refused = self._take(node, items, outcome, asked, found)
                left += refused
                hurried = hurried and all(i in asked or self._moved(slots[i], node) for i in refused)
            if not left:
                return found
            pending = sorted(left)
            if not hurried or next(hurries) > _HURRIED_ROUNDS:
                failed.clear()
                if not (yield Pause(next(pauses))):
                    break
        raise last or self._too_late()

    def _take(
        self, node: str, items: list[int], outcome: list[Any], asked: dict[int, str], found: list[Any]
    ) -> list[int]:
        """Sort the replies of one node; the items that must be asked for again."""
        replies = iter(outcome)
        left = []
        moved = 0
        for i in items:
            if asked.pop(i, None) is not None:
                next(replies)
            reply = next(replies)
            if not isinstance(reply, libvalkey.ReplyError):
                found[i] = reply
                continue
            message = str(reply)
            redirection = parse_redirection(message, node.removeprefix(_READ_ONLY))
            if redirection is None and not is_passing(message):
                raise_if_error(reply, self.address(node)[0])
            left.append(i)
            if redirection is None:
                continue
            if redirection.once:
                asked[i] = redirection.node
            elif self._map is not None and moved <= _FEW:
                self._map = self._map.with_moved(redirection.slot, redirection.node)
                moved += 1
        self._suspect = self._suspect or moved > _FEW
        return left

    def _moved(self, slot: int, node: str) -> bool:
        """Whether the map no longer sends this slot where it was refused."""
        shard = self._map.shards[slot] if self._map else None
        return shard is not None and node.removeprefix(_READ_ONLY) not in (shard.primary, *shard.replicas)

    def _node(self, slot: int, failed: set[str], *, reading: bool) -> str:
        shard = self._map.shards[slot] if self._map else None
        if shard is None:
            return ""
        if reading and self._from_replicas and shard.replicas:
            first = next(self._turn)
            for step in range(len(shard.replicas)):
                node = _READ_ONLY + shard.replicas[(first + step) % len(shard.replicas)]
                if node not in failed:
                    return node
        return shard.primary

    def _learn(self, failed: set[str]) -> Steps[StoreUnavailableError | None]:
        """Ask one node after another for the map, those that have just failed last; the last error if none tells."""
        known = [*(self._map.nodes if self._map else ()), *self._seeds]
        error: StoreUnavailableError | None = None
        down = {node.removeprefix(_READ_ONLY) for node in failed}
        for node in sorted(dict.fromkeys(known), key=lambda node: node in down):
            (outcome,) = yield (Call(node, _CLUSTER_SLOTS, 1),)
            if isinstance(outcome, StoreUnavailableError):
                error = outcome
                continue
            try:
                raise_if_error(outcome[0], self.address(node)[0])
            except StoreUnavailableError as loading:
                error = loading
                continue
            self._map, self._suspect = parse_slots(outcome[0], node), False
            return None
        return error


def is_passing(message: str) -> bool:
    """Whether an error of the server says that the same call may succeed later."""
    return message.startswith(_WAIT_FOR) or _DOWN_IN_FUNCTION in message


def _pauses() -> Generator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)
