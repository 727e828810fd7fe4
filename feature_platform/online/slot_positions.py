"""How far a cluster holds a view, told slot by slot. No input or output.

Rule: what moves together, is lost together and comes back together is the slot, so the slot is the shard of which the
store knows its position. The entry lies in the slot itself: it moves with the rows, and is gone when they are. It names
the shard it was made in, and one that came from elsewhere counts for nothing: rows on the way between two nodes may
have been lost with the receiver, though the entry arrived. Such a slot begins anew, at 0.

One hash per slot, `feature_platform:positions:{<tag>}`, the tag being the smallest number whose slot it is; in it a
field per view, `<nonce> <position> <shard>`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import libvalkey

from feature_platform.online import functions
from feature_platform.online.bulk import Packed, in_bulk, is_astray
from feature_platform.online.cluster import Cluster
from feature_platform.online.connection import raise_if_error
from feature_platform.online.exchange import Call, Routed, Steps
from feature_platform.online.functions import PositionPart, StoreLook, StorePosition
from feature_platform.online.keys import PREFIX
from feature_platform.online.slots import SLOTS, key_slot

NONCE_DIGITS: Final = 16
SHARD_DIGITS: Final = 16
_SLOTS_PER_CALL: Final = 128
"""A node is busy for about half a millisecond."""

Entry = tuple[bytes, int]
"""Nonce and position of a slot."""


@cache
def slot_keys() -> tuple[bytes, ...]:
    """The key of each slot's entries.

    >>> slot_keys()[key_slot(b"7")]
    b'feature_platform:positions:{7}'
    """
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < SLOTS:
        tag = b"%d" % number
        found.setdefault(key_slot(tag), tag)
        number += 1
    return tuple(b"%spositions:{%s}" % (PREFIX.encode(), found[slot]) for slot in range(SLOTS))


def progress_key(view: str) -> str:
    """Where an unfinished plan of a view notes how far it is."""
    return f"{PREFIX}progress:{view}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPosition(StorePosition):
    """What a cluster says of itself. As a whole it is where the slot is that is furthest behind."""

    entries: tuple[Entry, ...]
    run_ids: tuple[bytes, ...]
    """Per slot, of the server that serves it."""

    @classmethod
    def of(cls, entries: Sequence[Entry], run_ids: Sequence[bytes]) -> ClusterPosition:
        """The position that these slots make together."""
        return cls(
            position=min(position for _, position in entries),
            nonce=digest(nonce for nonce, _ in entries),
            server_run_id=digest(sorted(set(run_ids))),
            entries=tuple(entries),
            run_ids=tuple(run_ids),
        )

    def with_progress(self, progress: str) -> ClusterPosition:
        """The same, with what `note` left."""
        return replace(self, progress=progress)

    @property
    def identity(self) -> str:
        """Another one if any slot lost something, or was served by another process, since."""
        return digest((*(nonce for nonce, _ in self.entries), *self.run_ids))

    @property
    def furthest(self) -> int:
        """The greatest position of a slot."""
        return max(position for _, position in self.entries)

    @property
    def parts(self) -> tuple[PositionPart, ...]:
        """Slots that hold nothing, and all others together at the least of their positions."""
        empty = bytes(position == 0 for _, position in self.entries)
        if 1 not in empty or 0 not in empty:
            return (PositionPart(position=self.position),)
        held = min(position for _, position in self.entries if position)
        return (
            PositionPart(position=0, slots=empty),
            PositionPart(position=held, slots=bytes(1 - byte for byte in empty)),
        )


def begin(cluster: Cluster, view: str) -> Steps[ClusterPosition]:
    """Where each slot is; one that never held the view, or came from another shard, answers 0 from now on."""
    nonce = uuid.uuid4().hex[:NONCE_DIGITS]
    done = yield from in_bulk(cluster, _Slots("begin_slots", {"": range(SLOTS)}, lambda _: (view, nonce)))
    entries: list[Entry] = [(b"", 0)] * SLOTS
    run_ids = [b""] * SLOTS
    for slots, (run_id, *told) in done:
        for slot, held, position in zip(slots, told[::2], told[1::2], strict=True):
            entries[slot], run_ids[slot] = (held, int(position)), run_id
    return ClusterPosition.of(entries, run_ids)


def advance(cluster: Cluster, view: str, begun: ClusterPosition, position: int) -> Steps[bool]:
    """Move all slots to a position that are still what `begin` met; whether all were."""
    by_server: dict[bytes, list[int]] = {}
    for slot, run_id in enumerate(begun.run_ids):
        by_server.setdefault(run_id, []).append(slot)

    def arguments(slots: Sequence[int]) -> tuple[Any, ...]:
        return (view, position, begun.run_ids[slots[0]], *(begun.entries[slot][0] for slot in slots))

    done = yield from in_bulk(cluster, _Slots("advance_slots", by_server, arguments))
    return not any(refused for _, refused in done)


def look(cluster: Cluster, views: Iterable[str]) -> Steps[StoreLook]:
    """Where the cluster is with several views. Reads only: nothing is created, no function is needed."""
    asked = tuple(views)
    names = yield from cluster.on_primaries([("INFO", "server"), ("CLUSTER", "MYSHARDID")])
    run_ids, shards = [], {}
    for node, (info, shard) in names.items():
        for reply in (info, shard):
            raise_if_error(reply, cluster.address(node)[0])
        run_ids.append(functions.run_id_in(info).encode())
        shards[node] = shard[:SHARD_DIGITS]
    held: list[list[Entry | None]] = [[None] * SLOTS for _ in asked]
    owners = yield from cluster.owners()
    for slot, fields in (yield from _fields(cluster, asked, owners)) if asked else ():
        for number, text in enumerate(fields):
            if text is not None:
                nonce, position, shard = text.split()
                held[number][slot] = (nonce, int(position) if shard == shards.get(owners[slot]) else 0)
    return StoreLook(
        server_run_id=digest(sorted(run_ids)),
        positions={view: _together(entries) for view, entries in zip(asked, held, strict=True)},
    )


def _fields(cluster: Cluster, views: Sequence[str], owners: Sequence[str]) -> Steps[list[tuple[int, Any]]]:
    """The views' entries of all slots."""
    frames = [libvalkey.pack_command(("HMGET", key, *views)) for key in slot_keys()]
    by_node: dict[str, list[int]] = {}
    for slot, node in enumerate(owners):
        by_node.setdefault(node, []).append(slot)
    calls = {node: Call(node, b"".join(map(frames.__getitem__, s)), len(s)) for node, s in by_node.items() if node}
    outcomes = yield tuple(calls.values())
    found: list[tuple[int, Any]] = []
    astray = by_node.get("", [])
    for node, outcome in zip(calls, outcomes, strict=True):
        if not isinstance(outcome, list):
            cluster.suspect()
            astray += by_node[node]
            continue
        for slot, reply in zip(by_node[node], outcome, strict=True):
            if not isinstance(reply, libvalkey.ReplyError):
                found.append((slot, reply))
            elif is_astray(reply):
                astray.append(slot)
            else:
                raise_if_error(reply, cluster.address(node)[0])
    singly = yield from cluster.run([(slot_keys()[slot], ("HMGET", slot_keys()[slot], *views)) for slot in astray])
    return [*found, *zip(astray, singly, strict=True)]


def _together(entries: Sequence[Entry | None]) -> tuple[str, int] | None:
    if not any(entries):
        return None
    known = [entry or (b"", 0) for entry in entries]
    return digest(nonce for nonce, _ in known), min(position for _, position in known)


def digest(items: Iterable[bytes]) -> str:
    """One text for many, equal only if all are."""
    return hashlib.sha256(b" ".join(items)).hexdigest()[:40]


class _Slots:
    """A function for all slots; slots of different groups never share a call."""

    def __init__(self, function: str, groups: Mapping[Any, Sequence[int]], arguments: Any) -> None:
        self._name = functions.name_of(function)
        self._groups = groups
        self._arguments = arguments

    def pack(self, owners: Sequence[str]) -> Iterator[Packed]:
        """The calls, with the primary of each slot given."""
        by_node: dict[str, list[Sequence[int]]] = {}
        for group in self._groups.values():
            slots: dict[str, list[int]] = {}
            for slot in group:
                slots.setdefault(owners[slot], []).append(slot)
            for node, owned in slots.items():
                parts = (owned[first : first + _SLOTS_PER_CALL] for first in range(0, len(owned), _SLOTS_PER_CALL))
                by_node.setdefault(node, []).extend(parts)
        for node, calls in by_node.items():
            yield Packed(node, b"".join(libvalkey.pack_command(self._call(slots)) for slots in calls), calls)

    def single(self, part: Sequence[int]) -> Iterator[tuple[Sequence[int], Routed]]:
        """The same slot by slot."""
        for slot in part:
            key = slot_keys()[slot]
            yield (slot,), (key, self._call((slot,), key))

    def _call(self, slots: Sequence[int], *declared: bytes) -> tuple[Any, ...]:
        keys = [slot_keys()[slot] for slot in slots]
        return ("FCALL", self._name, len(declared), *declared, len(keys), *keys, *self._arguments(slots))
