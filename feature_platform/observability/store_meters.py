"""What an online store says of itself: memory, keys, connections, and what each view's keys take.

Rule: bounded. A view's memory is estimated from a fixed number of random keys; nothing scans the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress

TIMEOUT_SECONDS: Final = 5.0
SAMPLED_KEYS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMeters:
    """One look at one server."""

    memory_bytes: int
    memory_limit_bytes: int
    clients: int
    keys: int
    evicted_keys: int
    commands: int
    memory_of_views: Mapping[str, float]
    """By `name@version`, estimated: bytes of the sampled keys of the view, times all keys, over all sampled keys."""


def read_store_meters(valkey_url: str) -> StoreMeters:
    """Ask the server.

    Raises:
        StoreUnavailableError: it cannot be reached.
    """
    with closing(Connection(ValkeyAddress.parse(valkey_url), TIMEOUT_SECONDS)) as connection:
        text, keys = connection.pipeline([("INFO",), ("DBSIZE",)])
        info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        return StoreMeters(
            memory_bytes=int(info["used_memory"]),
            memory_limit_bytes=int(info["maxmemory"]),
            clients=int(info["connected_clients"]),
            keys=keys,
            evicted_keys=int(info["evicted_keys"]),
            commands=int(info["total_commands_processed"]),
            memory_of_views=_memory_of_views(connection, keys),
        )


def _memory_of_views(connection: Connection, keys: int) -> dict[str, float]:
    sampled = [key for key in connection.pipeline([("RANDOMKEY",)] * SAMPLED_KEYS) if key is not None]
    if not sampled:
        return {}
    sizes: Counter[str] = Counter()
    for key, size in zip(sampled, connection.pipeline([("MEMORY", "USAGE", key) for key in sampled]), strict=True):
        view, colon, _ = key.decode(errors="replace").partition(":{")
        if colon and "@" in view:
            sizes[view] += size or 0
    return {view: size * keys / len(sampled) for view, size in sizes.items()}
