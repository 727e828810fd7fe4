"""One logged request, byte by byte (docs/reference/feature-log.md).

Rule: what was served is kept as it came, the very bytes of the store: nothing is decoded by who serves. Integers are
little-endian; a text is its length (u32) and its UTF-8.

| bytes | what |
|---|---|
| 1 | format, 1 |
| 1 | flags: bit 0 is set if the values are whole; otherwise each is cut to its first 20 bytes |
| 8 | the client, at random |
| 4 | number of this entry among the client's, u32 |
| 4 | entries that the client dropped since the one before, u32 |
| 8 | request time by the client's clock, microseconds since 1970 UTC, i64 |
| text | request id |
| text | what was asked for: a service, or references joined by commas |
| 2 | views, u16; for each: |
| text | the view, `name@version` |
| 4 | entities, u32; for each: |
| text | the entity's key as in the store, between the braces |
| 4 | length of the value, u32; 2^32-1 if the store held none |
| … | the value |
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from feature_platform.errors import CorruptValueError
from feature_platform.online.codec import HEADER_BYTES, from_micros, to_micros

FORMAT: Final = 1
WHOLE: Final = 1
CLIENT_BYTES: Final = 8
_ABSENT: Final = (1 << 32) - 1
_HEADER: Final = struct.Struct(f"<BB{CLIENT_BYTES}sIIq")
_LENGTH: Final = struct.Struct("<I")
_COUNT: Final = struct.Struct("<H")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedView:
    """What one view answered in one request."""

    view: str
    """`name@version`."""
    keys: Sequence[bytes]
    """Per entity its encoded key."""
    values: Sequence[bytes | None]
    """Per entity the bytes of the store; None if it held nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One logged request."""

    client: bytes
    number: int
    dropped: int
    requested_at: datetime
    request_id: str
    asked: str
    is_whole: bool
    """Whether the values are whole; otherwise only their first 20 bytes: position, event time, layout."""
    views: tuple[LoggedView, ...]

    @property
    def entry_id(self) -> str:
        """The same for one entry, however often it was sent."""
        return f"{self.client.hex()}-{self.number}"

    def encode(self) -> bytes:
        """The entry's bytes."""
        parts = [
            _HEADER.pack(
                FORMAT, WHOLE * self.is_whole, self.client, self.number, self.dropped, to_micros(self.requested_at)
            ),
            *_text(text_bytes(self.request_id)),
            *_text(self.asked.encode()),
            _COUNT.pack(len(self.views)),
        ]
        for one in self.views:
            parts += _text(one.view.encode())
            parts.append(_LENGTH.pack(len(one.keys)))
            for key, value in zip(one.keys, one.values, strict=True):
                parts += _text(key)
                if value is None:
                    parts.append(_LENGTH.pack(_ABSENT))
                else:
                    parts += _text(value if self.is_whole else value[:HEADER_BYTES])
        return b"".join(parts)

    @classmethod
    def parse(cls, data: bytes) -> LogEntry:
        """The entry of these bytes.

        Raises:
            CorruptValueError: they are none, or of a later format.
        """
        try:
            return _parse(data)
        except (struct.error, UnicodeDecodeError, OverflowError, ValueError) as error:
            raise CorruptValueError(
                "an entry of the feature log cannot be read",
                found=f"{error}; it begins {data[:48].hex()}",
                hint="was it written by a later version of the client?",
            ) from error


def text_bytes(text: str) -> bytes:
    """UTF-8 of any text a caller may give; a lone surrogate is written out, so that logging it cannot fail."""
    return text.encode(errors="backslashreplace")


def _text(data: bytes) -> tuple[bytes, bytes]:
    return _LENGTH.pack(len(data)), data


def _parse(data: bytes) -> LogEntry:
    if data[:1] != bytes([FORMAT]):
        raise ValueError(f"format {data[:1].hex() or 'missing'}")
    at = _HEADER.size
    _, flags, client, number, dropped, micros = _HEADER.unpack_from(data)

    def text() -> bytes | None:
        nonlocal at
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length == _ABSENT:
            return None
        if at + length > len(data):
            raise ValueError("it ends too early")
        at += length
        return data[at - length : at]

    request_id, asked = text() or b"", text() or b""
    (count,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    views = []
    for _ in range(count):
        view = text() or b""
        (entities,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        keys: list[bytes] = []
        values: list[bytes | None] = []
        for _ in range(entities):
            keys.append(text() or b"")
            values.append(text())
        views.append(LoggedView(view=view.decode(), keys=keys, values=values))
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes too many")
    return LogEntry(
        client=client,
        number=number,
        dropped=dropped,
        requested_at=from_micros(micros),
        request_id=request_id.decode(),
        asked=asked.decode(),
        is_whole=bool(flags & WHOLE),
        views=tuple(views),
    )
