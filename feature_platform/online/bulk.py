"""Calls of a function for many keys of a cluster: those of one node together, stray ones singly. No input or output.

Rule: whatever is called here may be called again. A key that is not where the map says it is, a node that is gone, a
function that is not loaded: each costs the calls concerned a second way, key by key, which follows redirections and
waits for failovers until the deadline is there. So nothing is left out, and nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import libvalkey

from feature_platform.errors import FeaturePlatformError, StoreUnavailableError
from feature_platform.online import functions
from feature_platform.online.cluster import Cluster, is_passing
from feature_platform.online.connection import raise_if_error
from feature_platform.online.exchange import Call, Pause, Routed, Steps

_ASTRAY: Final = ("MOVED", "ASK", "READONLY", "CROSSSLOT")
_NOT_LOCAL: Final = "non local key"
_LOADS: Final = 3
"""So often functions are loaded for one exchange: a primary may be promoted or added between two."""


class Packed(NamedTuple):
    """Calls for one node (empty if no node is known), and what each of them is for."""

    node: str
    payload: bytes
    parts: Sequence[Any]


class Bulk(Protocol):
    """Work for many keys."""

    def pack(self, owners: Sequence[str]) -> Iterable[Packed]:
        """The calls, with the primary of each slot given."""

    def single(self, part: Any) -> Iterable[tuple[Any, Routed]]:
        """A part of the work key by key: parts of one key, and the call that declares this key."""


def in_bulk(cluster: Cluster, bulk: Bulk) -> Steps[list[tuple[Any, Any]]]:
    """Every part of the work, and the reply to its call."""
    packed = tuple(bulk.pack((yield from cluster.owners())))
    sent = [one for one in packed if one.node]
    outcomes = yield tuple(Call(one.node, one.payload, len(one.parts)) for one in sent)
    done: list[tuple[Any, Any]] = []
    astray = [part for one in packed if not one.node for part in one.parts]
    for one, outcome in zip(sent, outcomes, strict=True):
        if isinstance(outcome, StoreUnavailableError):
            cluster.suspect()
            astray += one.parts
            continue
        for part, reply in zip(one.parts, outcome, strict=True):
            if not isinstance(reply, libvalkey.ReplyError):
                done.append((part, reply))
            elif is_astray(reply) or functions.is_missing(reply):
                astray.append(part)
            else:
                raise_if_error(reply, cluster.address(one.node)[0])
    if astray:
        # who has just moved or been promoted sorts out with the map, the keys that are left with redirections
        cluster.suspect()
        singles = [single for part in astray for single in bulk.single(part)]
        replies = yield from _singly(cluster, [routed for _, routed in singles])
        done += zip((part for part, _ in singles), replies, strict=True)
    return done


def is_astray(reply: object) -> bool:
    """Whether a call was refused because its keys, or some of them, are served elsewhere now, or by nobody yet."""
    message = str(reply)
    return message.startswith(_ASTRAY) or _NOT_LOCAL in message or is_passing(message)


def load_functions(cluster: Cluster) -> Steps[None]:
    """Load the functions on every primary; replicas have what their primary has."""
    _, text = functions.library()
    for node, (reply,) in (yield from cluster.on_primaries([("FUNCTION", "LOAD", text)])).items():
        if functions.was_loaded(reply):
            continue
        if is_astray(reply):
            cluster.suspect()  # no primary any more: its successor has what it had
            continue
        raise_if_error(reply, cluster.address(node)[0])


def _singly(cluster: Cluster, commands: Sequence[Routed]) -> Steps[list[Any]]:
    for attempt in range(_LOADS):
        yield from load_functions(cluster)
        try:
            return (yield from cluster.run(commands))
        except FeaturePlatformError as error:
            if not functions.says_missing(str(error.found)) or attempt + 1 == _LOADS:
                raise
            yield Pause(0.05)
    raise AssertionError("unreachable")
