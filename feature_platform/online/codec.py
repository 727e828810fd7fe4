"""Values in Valkey, byte by byte (docs/reference/online-format.md has golden vectors).

Rule: a value says by itself which plan wrote it, when it was true and how to read it.

| bytes | what |
|---|---|
| 8 | ledger position of the plan that asserted the row, u64 big-endian |
| 8 | event time, microseconds since 1970 UTC, i64 big-endian with the sign bit flipped: bytes order as instants do |
| 4 | layout id, u32 big-endian |
| ⌈n/8⌉ | null bitmap: bit i (least significant first) is set if column i of the layout is NULL |
| … | fixed section, little-endian, unpadded: a slot per column; a string's slot is its u32 length in bytes |
| … | the strings' UTF-8, in column order, nothing between them |

"None" is the bare prefix: position, then eight zero bytes. A NULL's slot is zero. NaN is a value like any other.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from feature_platform.domain.types import ColumnType
from feature_platform.errors import CorruptValueError

PREFIX_BYTES: Final = 16
HEADER_BYTES: Final = 20
SIGN_BIT: Final = 1 << 63
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAYS: Final = date(1970, 1, 1).toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_PREFIX: Final = struct.Struct(">QQ")
_HEADER: Final = struct.Struct(">QQI")

# Eight-byte columns first: slots of one type lie together and columnar readers can take them as one matrix.
SLOTS: Final[Mapping[ColumnType, str]] = {
    ColumnType.DOUBLE: "d",
    ColumnType.BIGINT: "q",
    ColumnType.TIMESTAMPTZ: "q",
    ColumnType.FLOAT: "f",
    ColumnType.INTEGER: "i",
    ColumnType.DATE: "i",
    ColumnType.VARCHAR: "I",
    ColumnType.SMALLINT: "h",
    ColumnType.TINYINT: "b",
    ColumnType.BOOLEAN: "?",
}
_WIRE_RANK: Final = {type_: rank for rank, type_ in enumerate(SLOTS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The first 16 bytes of a value."""

    position: int
    event_timestamp: datetime | None
    """None for a tombstone."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a row's features lie in bytes: the columns in wire order.

    The id is a hash of the columns, so equal layouts have equal ids wherever and whenever they were published.
    """

    columns: tuple[tuple[str, ColumnType], ...]
    layout_id: int = field(init=False)
    _struct: struct.Struct = field(init=False, repr=False, compare=False)
    _bitmap_bytes: int = field(init=False, repr=False, compare=False)
    _decoders: tuple[tuple[int, ColumnType], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        canonical = json.dumps([[name, type_.value] for name, type_ in self.columns], separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).digest()
        object.__setattr__(self, "layout_id", int.from_bytes(digest[:4], "big"))
        object.__setattr__(self, "_struct", struct.Struct("<" + "".join(SLOTS[type_] for _, type_ in self.columns)))
        object.__setattr__(self, "_bitmap_bytes", (len(self.columns) + 7) // 8)
        converted = (ColumnType.VARCHAR, ColumnType.DATE, ColumnType.TIMESTAMPTZ)
        object.__setattr__(
            self,
            "_decoders",
            tuple((i, type_) for i, (_, type_) in enumerate(self.columns) if type_ in converted),
        )

    @classmethod
    def of(cls, features: Iterable[tuple[str, ColumnType]]) -> Layout:
        """The layout in which a view with these features is written.

        >>> [name for name, _ in Layout.of([("note", ColumnType.VARCHAR), ("mean", ColumnType.DOUBLE)]).columns]
        ['mean', 'note']
        """
        return cls(tuple(sorted(features, key=lambda column: _WIRE_RANK[column[1]])))

    @property
    def bitmap_bytes(self) -> int:
        """Length of the null bitmap."""
        return self._bitmap_bytes

    def encode(self, position: int, event_timestamp: datetime, row: Mapping[str, Any]) -> bytes:
        """One row. The sync encodes columns at a time; this is the same format for one row, and its test's oracle."""
        slots: list[Any] = []
        tail = []
        nulls = 0
        for i, (name, type_) in enumerate(self.columns):
            value = row[name]
            if value is None:
                nulls |= 1 << i
                value = 0
            elif type_ is ColumnType.VARCHAR:
                tail.append(value.encode())
                value = len(tail[-1])
            elif type_ is ColumnType.DATE:
                value = value.toordinal() - _EPOCH_DAYS
            elif type_ is ColumnType.TIMESTAMPTZ:
                value = to_micros(value)
            slots.append(value)
        header = _HEADER.pack(position, to_micros(event_timestamp) + SIGN_BIT, self.layout_id)
        return b"".join((header, nulls.to_bytes(self._bitmap_bytes, "little"), self._struct.pack(*slots), *tail))

    def decode(self, value: bytes) -> dict[str, Any]:
        """The features of a row, by name in wire order.

        Raises:
            CorruptValueError: the bytes do not have this layout.
        """
        start = HEADER_BYTES + self._bitmap_bytes
        offset = start + self._struct.size
        try:
            values = list(self._struct.unpack_from(value, start))
            for i, type_ in self._decoders:
                if type_ is ColumnType.VARCHAR:
                    end = offset + values[i]
                    values[i] = value[offset:end].decode()
                    offset = end
                elif type_ is ColumnType.DATE:
                    values[i] = date.fromordinal(values[i] + _EPOCH_DAYS)
                else:
                    values[i] = from_micros(values[i])
        except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
            raise self._corrupt(value, str(error)) from error
        if offset != len(value):
            raise self._corrupt(value, f"{len(value)} bytes where the layout asks for {offset}")
        nulls = int.from_bytes(value[HEADER_BYTES:start], "little")
        if nulls:
            values = [None if nulls >> i & 1 else item for i, item in enumerate(values)]
        return {name: item for (name, _), item in zip(self.columns, values, strict=True)}

    def _corrupt(self, value: bytes, problem: str) -> CorruptValueError:
        return CorruptValueError(
            f"a value does not have the layout {self.layout_id:08x} that it names",
            found=f"{problem}; it begins {value[:48].hex()}",
            hint="write the view again with `feature-platform sync --rebuild`",
        )


def decode_prefix(value: bytes) -> Prefix:
    """Position and event time of a value or a tombstone.

    Raises:
        CorruptValueError: the value is shorter than any value can be.
    """
    if len(value) < PREFIX_BYTES or PREFIX_BYTES < len(value) < HEADER_BYTES:
        raise CorruptValueError(
            "a value is shorter than its header", found=value.hex() or "an empty value", allowed="16 or 20 bytes and up"
        )
    position, event = _PREFIX.unpack_from(value)
    if len(value) == PREFIX_BYTES:
        return Prefix(position=position, event_timestamp=None)
    return Prefix(position=position, event_timestamp=from_micros(event - SIGN_BIT))


def layout_id_of(value: bytes) -> int:
    """The id of the layout that a value which is no tombstone names."""
    return int.from_bytes(value[PREFIX_BYTES:HEADER_BYTES], "big")


def tombstone(position: int) -> bytes:
    """The value that says: as of this position the entity has no row.

    >>> tombstone(7).hex()
    '00000000000000070000000000000000'
    """
    return _PREFIX.pack(position, 0)


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970 UTC, exactly.

    >>> to_micros(datetime(2013, 1, 1, tzinfo=UTC))
    1356998400000000
    """
    return (instant - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The instant, in UTC.

    Raises:
        CorruptValueError: it lies outside the years 1 to 9999.
    """
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError as error:
        raise CorruptValueError("an instant lies outside the years 1 to 9999", found=f"{micros} µs") from error


def columns_from_json(columns: Sequence[Sequence[str]]) -> tuple[tuple[str, ColumnType], ...]:
    """Names and types as a published document spells them."""
    return tuple((name, ColumnType(type_)) for name, type_ in columns)
