"""What an online store says of itself: memory, keys, connections, what each view's keys take, what its log holds.

Rule: bounded. A view's memory is estimated from a fixed number of random keys of each server; nothing scans the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from feature_platform.online.feature_log import STREAM
from feature_platform.online.writable import WritableStore, open_store

TIMEOUT_SECONDS: Final = 5.0
SAMPLED_KEYS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMeters:
    """One look at one server, or at all primaries of a cluster together."""

    memory_bytes: int
    memory_limit_bytes: int
    clients: int
    keys: int
    evicted_keys: int
    commands: int
    memory_of_views: Mapping[str, float]
    """By `name@version`, estimated by server: bytes of the view's sampled keys, times all keys, over all samples."""
    log_entries: int
    """Requests in the feature log, to be drained."""
    log_oldest_at: float
    """When the oldest of them was logged, by the server's clock, in seconds since 1970; 0 if there is none."""


def read_store_meters(valkey_url: str) -> StoreMeters:
    """Ask the server, or every primary of the cluster.

    Raises:
        StoreUnavailableError: it cannot be reached.
    """
    with closing(open_store(valkey_url, TIMEOUT_SECONDS)) as store:
        infos, keys, samples = [], [], []
        for text, count, *sampled in store.on_servers([("INFO",), ("DBSIZE",), *[("RANDOMKEY",)] * SAMPLED_KEYS]):
            infos.append(dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line))
            keys.append(count)
            samples.append([key for key in sampled if key is not None])

        def total(field: str) -> int:
            return sum(int(info[field]) for info in infos)

        memory: Counter[str] = Counter()
        for count, sampled in zip(keys, samples, strict=True):
            memory.update(_memory_of_views(store, sampled, count))
        waiting, oldest = store.pipeline([("XLEN", STREAM), ("XRANGE", STREAM, "-", "+", "COUNT", 1)])
        has_limit = all(int(info["maxmemory"]) for info in infos)
        return StoreMeters(
            memory_bytes=total("used_memory"),
            memory_limit_bytes=total("maxmemory") if has_limit else 0,
            clients=total("connected_clients"),
            keys=sum(keys),
            evicted_keys=total("evicted_keys"),
            commands=total("total_commands_processed"),
            memory_of_views=memory,
            log_entries=waiting,
            log_oldest_at=int(oldest[0][0].partition(b"-")[0]) / 1000 if oldest else 0.0,
        )


def _memory_of_views(store: WritableStore, sampled: Sequence[bytes], keys: int) -> dict[str, float]:
    """Of one server, by some of its keys."""
    sizes: Counter[str] = Counter()
    for key, size in zip(sampled, store.pipeline([("MEMORY", "USAGE", key) for key in sampled]), strict=True):
        view, colon, _ = key.decode(errors="replace").partition(":{")
        if colon and "@" in view:
            sizes[view] += size or 0
    return {view: size * keys / len(sampled) for view, size in sizes.items()}
