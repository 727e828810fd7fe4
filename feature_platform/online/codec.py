"""Values in Valkey, byte by byte (docs/reference/online-format.md; golden vectors beside it).

Rule: a value says by itself which plan wrote it, when it was true and how to read it.

| bytes | what |
|---|---|
| 8 | ledger position of the plan that asserted the row, u64 big-endian |
| 8 | event time, microseconds since 1970 UTC, i64 big-endian with the sign bit flipped: bytes order as instants do |
| 4 | layout id, u32 big-endian |
| ⌈n/8⌉ | null bitmap: bit i (least significant first) is set if column i of the layout is NULL |
| … | fixed section, little-endian, unpadded: a slot per column; of a text, blob or list of any length, its u32 length |
| … | the bytes of those, in column order, nothing between them |

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

from feature_platform.domain.types import ColumnType, DecimalType, FeatureType, ListType, parse_column_type
from feature_platform.errors import CorruptValueError

POSITION_BYTES: Final = 8
PREFIX_BYTES: Final = 16
HEADER_BYTES: Final = 20
SIGN_BIT: Final = 1 << 63
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAYS: Final = date(1970, 1, 1).toordinal()
LONG_DIGITS: Final = 18
"""Decimals of up to this many digits have a slot of 8 bytes, longer ones of 16."""
_EVENT_BYTES: Final = PREFIX_BYTES - POSITION_BYTES
_MICROSECOND: Final = timedelta(microseconds=1)
_PREFIX: Final = struct.Struct(">QQ")
_HEADER: Final = struct.Struct(">QQI")

# Eight-byte columns first: slots of one type lie together and columnar readers can take them as one matrix. The order
# is part of the format. Types between these were added later, and the order of the older ones among themselves stayed.
NUMBERS: Final[Mapping[ColumnType, str]] = {
    ColumnType.DOUBLE: "d",
    ColumnType.BIGINT: "q",
    ColumnType.TIMESTAMPTZ: "q",
    ColumnType.UBIGINT: "Q",
    ColumnType.FLOAT: "f",
    ColumnType.INTEGER: "i",
    ColumnType.DATE: "i",
    ColumnType.UINTEGER: "I",
    ColumnType.VARCHAR: "I",
    ColumnType.BLOB: "I",
    ColumnType.SMALLINT: "h",
    ColumnType.USMALLINT: "H",
    ColumnType.TINYINT: "b",
    ColumnType.UTINYINT: "B",
    ColumnType.BOOLEAN: "?",
}
_RANKS: Final = {type_: 2 * rank for rank, type_ in enumerate(NUMBERS)}
_AFTER_UBIGINT: Final = _RANKS[ColumnType.UBIGINT] + 1
_AFTER_BLOB: Final = _RANKS[ColumnType.BLOB] + 1
_FIRST: Final = -1
_LAST: Final = 2 * len(NUMBERS)


def wire_rank(type_: FeatureType) -> int:
    """Where columns of this type stand in a layout."""
    if isinstance(type_, DecimalType):
        return _AFTER_UBIGINT if type_.precision <= LONG_DIGITS else _FIRST
    if isinstance(type_, ListType):
        return _AFTER_BLOB if type_.length is None else _LAST
    return _RANKS[type_]


def has_tail(type_: FeatureType) -> bool:
    """Whether the slot holds a length in bytes, and the bytes lie behind the fixed section."""
    if isinstance(type_, ListType):
        return type_.length is None
    return type_ in (ColumnType.VARCHAR, ColumnType.BLOB)


def slot_format(type_: FeatureType) -> str:
    """The slot in `struct`'s letters; long decimals and lists of a fixed length are raw bytes."""
    if isinstance(type_, DecimalType):
        return "q" if type_.precision <= LONG_DIGITS else "16s"
    if isinstance(type_, ListType):
        return "I" if type_.length is None else f"{type_.length * element_bytes(type_)}s"
    return NUMBERS[type_]


def numpy_slot(type_: FeatureType) -> tuple[Any, ...]:
    """The slot in numpy's words, with its shape if it holds several numbers."""
    if isinstance(type_, DecimalType):
        return ("<i8",) if type_.precision <= LONG_DIGITS else ("<i8", (2,))
    if isinstance(type_, ListType) and type_.length is not None:
        return "<" + NUMBERS[type_.element], (type_.length,)
    return ("<" + slot_format(type_),)


def element_bytes(type_: ListType) -> int:
    """Bytes of one element of a list."""
    return struct.calcsize("<" + NUMBERS[type_.element])


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

    columns: tuple[tuple[str, FeatureType], ...]
    layout_id: int = field(init=False)

    def __post_init__(self) -> None:
        canonical = json.dumps([[name, type_.value] for name, type_ in self.columns], separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).digest()
        object.__setattr__(self, "layout_id", int.from_bytes(digest[:4], "big"))

    @classmethod
    def of(cls, features: Iterable[tuple[str, FeatureType]]) -> Layout:
        """The layout in which a view with these features is written.

        >>> [name for name, _ in Layout.of([("note", ColumnType.VARCHAR), ("mean", ColumnType.DOUBLE)]).columns]
        ['mean', 'note']
        """
        return cls(tuple(sorted(features, key=lambda column: wire_rank(column[1]))))

    @property
    def bitmap_bytes(self) -> int:
        """Length of the null bitmap."""
        return (len(self.columns) + 7) // 8

    @property
    def fixed_format(self) -> str:
        """The fixed section in `struct`'s letters."""
        return "".join(slot_format(type_) for _, type_ in self.columns)

    def encode(self, position: int, event_timestamp: datetime, row: Mapping[str, Any]) -> bytes:
        """One row. The sync encodes columns at a time; this is the same format for one row, and its test's oracle."""
        slots: list[Any] = []
        tail = []
        nulls = 0
        for i, (name, type_) in enumerate(self.columns):
            slot = encode_slot(type_, row[name])
            if slot is None:
                nulls |= 1 << i
                slot = b"" if slot_format(type_).endswith("s") else 0
            elif has_tail(type_):
                tail.append(slot)
                slot = len(slot)
            slots.append(slot)
        header = _HEADER.pack(position, to_micros(event_timestamp) + SIGN_BIT, self.layout_id)
        fixed = struct.pack("<" + self.fixed_format, *slots)
        return b"".join((header, nulls.to_bytes(self.bitmap_bytes, "little"), fixed, *tail))


def encode_slot(type_: FeatureType, value: Any) -> Any:
    """What the slot of a value holds, or the bytes behind the fixed section; None for NULL."""
    if value is None:
        return None
    if isinstance(type_, ListType):
        return struct.pack(f"<{len(value)}{NUMBERS[type_.element]}", *value)
    if isinstance(type_, DecimalType):
        sign, digits, exponent = value.as_tuple()
        unscaled = int("".join(map(str, digits))) * 10 ** (exponent + type_.scale) * (-1 if sign else 1)
        return unscaled if type_.precision <= LONG_DIGITS else unscaled.to_bytes(16, "little", signed=True)
    if type_ is ColumnType.VARCHAR:
        return value.encode()
    if type_ is ColumnType.DATE:
        return value.toordinal() - EPOCH_DAYS
    return to_micros(value) if type_ is ColumnType.TIMESTAMPTZ else value


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


def duration_micros(length: timedelta | None) -> int | None:
    """Microseconds of a duration, exactly; None has none."""
    return None if length is None else length // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The instant, in UTC.

    Raises:
        CorruptValueError: it lies outside the years 1 to 9999.
    """
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError as error:
        raise CorruptValueError("an instant lies outside the years 1 to 9999", found=f"{micros} µs") from error


def columns_from_json(columns: Sequence[Sequence[str]]) -> tuple[tuple[str, FeatureType], ...]:
    """Names and types as a published document spells them.

    Raises:
        ValueError: a type is none of this version of the platform.
    """
    parsed = []
    for name, text in columns:
        type_ = parse_column_type(text)
        if type_ is None or type_.value != text:
            raise ValueError(f"column {name} has the type {text!r}, which this client does not know")
        parsed.append((name, type_))
    return tuple(parsed)


def later_row(value: bytes | None, pushed: bytes | None) -> bytes | None:
    """What an entity has, given what lies under its key and under that of its pushed row: the later event time counts.

    Of equal event times the batch's row counts. A pushed row begins with event time and push number; it is returned as
    a value like any other, with the position at which the store holds the batches' rows (0 if it holds none).
    """
    if pushed is None or (value is not None and value[POSITION_BYTES:PREFIX_BYTES] >= pushed[:_EVENT_BYTES]):
        return value
    position = bytes(POSITION_BYTES) if value is None else value[:POSITION_BYTES]
    return position + pushed[:_EVENT_BYTES] + pushed[PREFIX_BYTES:]
