"""Commands for the wire, columns at a time: no Python per row.

Rule: each command names one key, so it can be sent to whatever node owns it; calls carry many only where the server is
alone (`get`, `call`), or where none is declared (`sync.scattering`). What the commands may do to a value:
docs/reference/online-format.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_platform.online.functions import write_name
from feature_platform.sync.encoding import Encoded

KEYS_PER_CALL: Final = 20
"""Keys in one call of the server's function: 20 cost the server least per row (docs/reference/online-format.md)."""
KEYS_PER_GET: Final = 100

_NOTHING: Final = pa.scalar(b"", pa.large_binary())


def set_if_absent(rows: Encoded, *, expires: bool) -> bytes:
    """`SET key value NX [PXAT instant]`: one reply per row, OK or nil."""
    if not expires:
        return _joined(b"*4\r\n$3\r\nSET\r\n", *_bulk(rows.keys), *_bulk(rows.values), b"$2\r\nNX\r\n")
    until = _bulk(_instants(rows))
    return _joined(
        b"*6\r\n$3\r\nSET\r\n", *_bulk(rows.keys), *_bulk(rows.values), b"$2\r\nNX\r\n$4\r\nPXAT\r\n", *until
    )


def replace(rows: Encoded, held: pa.LargeBinaryArray, *, expires: bool) -> bytes:
    """Commands that put each value in the place of exactly the one that was read.

    Two replies per row where rows expire: `PEXPIREAT key instant GT` comes first, so that the key is kept long enough
    before it holds what must be kept; `SET key value IFEQ held KEEPTTL` leaves that alone. Else one.
    """
    keys, values, old = _bulk(rows.keys), _bulk(rows.values), _bulk(held)
    if not expires:
        return _joined(b"*5\r\n$3\r\nSET\r\n", *keys, *values, b"$4\r\nIFEQ\r\n", *old)
    return _joined(
        b"*4\r\n$9\r\nPEXPIREAT\r\n", *keys, *_bulk(_instants(rows)), b"$2\r\nGT\r\n",
        b"*6\r\n$3\r\nSET\r\n", *keys, *values, b"$4\r\nIFEQ\r\n", *old, b"$7\r\nKEEPTTL\r\n",
    )  # fmt: skip


def get(rows: Encoded) -> tuple[bytes, int]:
    """`MGET` of all keys, and how many replies that makes."""
    data, starts = _buffers(_joined_array(*_bulk(rows.keys)))
    parts: list[bytes | memoryview] = []
    for first, last in _slices(len(rows), KEYS_PER_GET):
        parts += (f"*{last - first + 1}\r\n$4\r\nMGET\r\n".encode(), data[starts[first] : starts[last]])
    return b"".join(parts), -(-len(rows) // KEYS_PER_GET)


def call(
    rows: Encoded, *, name: str | None = None, per_call: int = KEYS_PER_CALL, declared: bool = True
) -> tuple[bytes, int]:
    """Calls of a server's function (default: the one that writes rows), and how many replies that makes.

    Keys come first, then value and instant of each. On a cluster they lie in several slots, so none is declared: what
    was the number of keys is an argument then, behind the number 0.
    """
    name = name or write_name()
    data, starts = _buffers(_joined_array(*_bulk(rows.keys)))
    arguments, argument_starts = _buffers(_joined_array(*_bulk(rows.values), *_bulk(_instants(rows))))
    parts: list[bytes | memoryview] = []
    for first, last in _slices(len(rows), per_call):
        count = str(last - first)
        words = 3 + 3 * (last - first) + (not declared)
        none = "" if declared else "$1\r\n0\r\n"
        header = f"*{words}\r\n$5\r\nFCALL\r\n${len(name)}\r\n{name}\r\n{none}${len(count)}\r\n{count}\r\n"
        parts += (
            header.encode(),
            data[starts[first] : starts[last]],
            arguments[argument_starts[first] : argument_starts[last]],
        )
    return b"".join(parts), -(-len(rows) // per_call)


def _slices(count: int, per_call: int) -> Iterator[tuple[int, int]]:
    """The first of the rows of each call, and the first behind them."""
    for first in range(0, count, per_call):
        yield first, min(first + per_call, count)


def _bulk(items: pa.LargeBinaryArray) -> tuple[Any, ...]:
    """Each item as the pieces of a RESP bulk string."""
    lengths = pc.binary_length(items)
    shortest, longest = (bound.as_py() for bound in pc.min_max(lengths).values())
    if shortest == longest:  # the usual case of values without texts, and of instants
        return (b"$%d\r\n" % longest, items, b"\r\n")
    return (b"$", _text(lengths), b"\r\n", items, b"\r\n")


def _instants(rows: Encoded) -> pa.LargeBinaryArray:
    return _text(pa.array(rows.keep_until))


def _text(numbers: pa.Array) -> pa.LargeBinaryArray:
    return pc.cast(pc.cast(numbers, pa.large_string()), pa.large_binary())


def _joined_array(*pieces: Any) -> pa.LargeBinaryArray:
    """The pieces of each row side by side; constants that meet become one."""
    merged: list[Any] = []
    for piece in pieces:
        if merged and isinstance(piece, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += piece
        else:
            merged.append(piece)
    columns = [pa.scalar(p, pa.large_binary()) if isinstance(p, bytes) else p for p in merged]
    return pc.binary_join_element_wise(*columns, _NOTHING)


def _joined(*pieces: Any) -> bytes:
    """The rows of `_joined_array`, one after the other: they lie so in Arrow's buffer."""
    data, starts = _buffers(_joined_array(*pieces))
    return bytes(data[: starts[-1]])


def _buffers(items: pa.LargeBinaryArray) -> tuple[memoryview, Any]:
    """Data and offsets of a freshly computed array (offset 0, no nulls)."""
    _, offsets, data = items.buffers()
    return memoryview(data), np.frombuffer(offsets, dtype=np.int64)[: len(items) + 1]
