"""Writing encoded rows to a cluster.

Rule: every row reaches the primary of its slot, through the server's function: in calls that carry many keys of one
node, and, where the map of slots was wrong or a node is gone, in a call of its own that is redirected until the row is
acknowledged or the deadline is there. The function alone is enough: its cost is shared by all primaries.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_platform.online import functions
from feature_platform.online.bulk import Packed, in_bulk
from feature_platform.online.exchange import Routed
from feature_platform.online.slots import SLOTS
from feature_platform.online.writable_cluster import WritableCluster
from feature_platform.sync import framing
from feature_platform.sync.encoding import Encoded
from feature_platform.sync.outcome import Written

KEYS_PER_CALL: Final = 50
_LONG_TAG: Final = 64
"""Longer hash tags are rare; their slots are found one by one."""

_CRC: Final = np.array([crc_hqx(bytes([byte]), 0) for byte in range(256)], dtype=np.uint16)


def key_slots(row_keys: pa.LargeBinaryArray) -> Any:
    """The slots of row keys, by their hash tags (`online.slots.key_slot`)."""
    _, offset_buffer, data_buffer = row_keys.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[row_keys.offset : row_keys.offset + len(row_keys) + 1]
    if not len(row_keys):
        return np.zeros(0, dtype=np.int64)
    data = np.frombuffer(data_buffer, dtype=np.uint8)
    first, last = (
        offsets[:-1] + pc.find_substring(row_keys, brace).to_numpy(zero_copy_only=False) for brace in (b"{", b"}")
    )
    lengths = last - first - 1
    slots = np.zeros(len(row_keys), dtype=np.uint16)
    for place in range(min(int(lengths.max()), _LONG_TAG)):
        rows = np.flatnonzero(lengths > place)
        held = slots[rows]
        slots[rows] = (held << 8) ^ _CRC[(held >> 8) ^ data[first[rows] + 1 + place]]
    for row in np.flatnonzero(lengths > _LONG_TAG):
        slots[row] = crc_hqx(data[first[row] + 1 : last[row]].tobytes(), 0)
    return slots.astype(np.int64) % SLOTS


class ScatteringWriter:
    """Writes rows to a cluster. Several may share its connections."""

    def __init__(self, store: WritableCluster, *, function: str = "write", slots: bytes | None = None) -> None:
        self._store = store
        self._function = function
        self._slots = None if slots is None else np.frombuffer(slots, dtype=bool)

    def write(self, rows: Encoded) -> Written:
        """Write those rows that lie in the writer's slots; all are acknowledged on return.

        Raises:
            StoreUnavailableError: a node cannot be reached, and nobody took its place before the deadline.
            FeaturePlatformError: the cluster refused a command.
        """
        slots = key_slots(rows.keys)
        if self._slots is not None:
            chosen = self._slots[slots]
            rows, slots = rows.take(chosen), slots[chosen]
        if not len(rows):
            return Written(rows=0)
        work = _Rows(rows, slots, self._function)
        replies = [reply for _, reply in self._store.run(in_bulk(self._store.cluster, work))]
        return Written(
            rows=len(rows),
            written=sum(reply[0] for reply in replies),
            refused=sum(reply[1] for reply in replies),
            bytes=work.bytes,
        )


class _Rows:
    """Rows to be written, as work for a cluster."""

    def __init__(self, rows: Encoded, slots: Any, function: str) -> None:
        self._rows, self._slots = rows, slots
        self._single = functions.name_of(function)
        self._scatter = functions.name_of(f"scatter_{function}")
        self.bytes = 0

    def pack(self, owners: Sequence[str]) -> Iterator[Packed]:
        """The calls, with the primary of each slot given."""
        numbers = {node: number for number, node in enumerate(dict.fromkeys(owners))}
        owned = np.array([numbers[node] for node in owners], dtype=np.int64)[self._slots]
        for node, number in numbers.items():
            places = np.flatnonzero(owned == number)
            if not len(places):
                continue
            payload, _ = framing.call(
                self._rows.take(places), name=self._scatter, per_call=KEYS_PER_CALL, declared=False
            )
            self.bytes += len(payload)
            parts = [places[first : first + KEYS_PER_CALL] for first in range(0, len(places), KEYS_PER_CALL)]
            yield Packed(node, payload, parts)

    def single(self, part: Any) -> Iterator[tuple[Any, Routed]]:
        """The same row by row."""
        rows = self._rows.take(part)
        for place, key, value, until in zip(
            part, rows.keys.to_pylist(), rows.values.to_pylist(), rows.keep_until.tolist(), strict=True
        ):
            self.bytes += len(key) + len(value)
            yield place, (key, ("FCALL", self._single, 1, key, value, until))
