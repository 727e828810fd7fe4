"""Which node of a cluster owns which key: hash slots, the map of them, and redirections.

Rule: pure. The map is a value made from what a node says of itself; whoever reads or writes decides when to ask again.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from feature_platform.errors import CorruptValueError

SLOTS: Final = 16_384


def key_slot(key: bytes) -> int:
    """The hash slot of a key: that of its hash tag, if it has one.

    >>> key_slot(b"carrier_delays@1:{UA}") == key_slot(b"route_delays@2:{UA}") == key_slot(b"UA")
    True
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class Shard:
    """A primary and its replicas, as `host:port`."""

    primary: str
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotMap:
    """The shard of each slot; None where the cluster has none."""

    shards: tuple[Shard | None, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, primaries first."""
        shards = self.distinct
        return tuple(
            dict.fromkeys([shard.primary for shard in shards] + [node for shard in shards for node in shard.replicas])
        )

    @property
    def distinct(self) -> tuple[Shard, ...]:
        """Every shard once."""
        return tuple(dict.fromkeys(shard for shard in self.shards if shard is not None))

    def with_moved(self, slot: int, node: str) -> SlotMap:
        """The map after a node said that a slot belongs to another."""
        known = next((shard for shard in self.distinct if shard.primary == node), Shard(node))
        return SlotMap((*self.shards[:slot], known, *self.shards[slot + 1 :]))


def parse_slots(reply: Any, asked: str) -> SlotMap:
    """The map in a reply to `CLUSTER SLOTS`. A node that does not know its own name is the one that was asked.

    Raises:
        CorruptValueError: the reply has another form.
    """
    shards: list[Shard | None] = [None] * SLOTS
    try:
        for first, last, *nodes in reply:
            names = [_name(node, asked) for node in nodes]
            shard = Shard(names[0], tuple(names[1:]))
            shards[first : last + 1] = [shard] * (last + 1 - first)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise CorruptValueError("a cluster's map of slots cannot be read", found=f"{error}: {reply!r:.200}") from error
    if len(shards) != SLOTS:
        raise CorruptValueError("a cluster's map of slots has slots beyond the last", found=f"{reply!r:.200}")
    return SlotMap(tuple(shards))


@dataclass(frozen=True, slots=True)
class Redirection:
    """A slot lies elsewhere: for good (MOVED), or this key does while the slot moves (ASK)."""

    slot: int
    node: str
    once: bool


def parse_redirection(message: str, asked: str) -> Redirection | None:
    """The redirection in an error reply, or None if it is none.

    >>> parse_redirection("MOVED 3999 :7001", "10.0.0.1:7000")
    Redirection(slot=3999, node='10.0.0.1:7001', once=False)
    """
    kind, _, rest = message.partition(" ")
    if kind not in ("MOVED", "ASK"):
        return None
    slot, _, node = rest.partition(" ")
    host, _, port = node.rpartition(":")
    if not slot.isdigit() or int(slot) >= SLOTS or not port.isdigit():
        return None
    return Redirection(slot=int(slot), node=f"{host or asked.rpartition(':')[0]}:{port}", once=kind == "ASK")


def group_by(items: Iterable[int], nodes: Sequence[str]) -> dict[str, list[int]]:
    """Items by the node each goes to (`nodes` in the order of the items)."""
    groups: dict[str, list[int]] = {}
    for item, node in zip(items, nodes, strict=True):
        groups.setdefault(node, []).append(item)
    return groups


def _name(node: Sequence[Any], asked: str) -> str:
    host = node[0].decode() if node[0] else asked.rpartition(":")[0]
    return f"{host}:{int(node[1])}"
