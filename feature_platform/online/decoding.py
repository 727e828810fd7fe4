"""Values to Python, for the features that are asked for and no others.

Rule: all that does not depend on the value is done once per layout and set of features. One `struct` reads the slots
that are asked for and skips the others; the lengths of texts, blobs and lists are always read, so a value that is cut
short or too long is never taken for a row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import partial
from operator import itemgetter
from typing import Any, Final

from feature_platform.domain.types import ColumnType, DecimalType, FeatureType, ListType
from feature_platform.errors import CorruptValueError
from feature_platform.online.codec import (
    EPOCH_DAYS,
    HEADER_BYTES,
    LONG_DIGITS,
    NUMBERS,
    Layout,
    element_bytes,
    from_micros,
    has_tail,
    slot_format,
)

_KNOWN_BITMAPS: Final = 1024
Converter = Callable[[Any], Any]


class RowDecoder:
    """Reads some features of values in one layout, in the order asked for."""

    def __init__(self, layout: Layout, features: Sequence[str]) -> None:
        self.layout = layout
        places = {name: i for i, (name, _) in enumerate(layout.columns)}
        wanted = {places[name] for name in features if name in places}
        self._start = HEADER_BYTES + layout.bitmap_bytes
        letters, field_of, self._tails, conversions = _fields(layout, wanted)
        # the bitmap comes as one field, before the slots
        self._struct = struct.Struct(f"<{HEADER_BYTES}x{layout.bitmap_bytes}s" + letters)
        self._unpack = self._struct.unpack_from
        self._size = self._struct.size
        self._no_nulls = bytes(layout.bitmap_bytes)
        self._length_fields = slice(*_length_range(self._tails))
        self._lengths = _lengths_reader(layout)
        fields = 1 + len(field_of)
        self._converters = tuple(conversions)
        self._kept_tails = tuple((n, tail[2]) for n, tail in enumerate(self._tails) if tail[0] in wanted)
        field_of |= {self._tails[n][0]: fields + i for i, (n, _) in enumerate(self._kept_tails)}
        # a feature that the layout lacks was added later: NULL, as in the lake; its place is behind everything
        absent = fields + len(self._kept_tails)
        self._has_absent = any(name not in places for name in features)
        self._pick = _picker([field_of[places[name]] if name in places else absent for name in features])
        self._bit_places = tuple((places[name], at) for at, name in enumerate(features) if name in places)
        self._nulls: dict[bytes, tuple[int, ...]] = {}

    @property
    def fixed_end(self) -> int:
        """Where the bytes behind the fixed section begin: no value of the layout is shorter."""
        return self._size

    def check(self, values: Iterable[bytes]) -> None:
        """Refuse values that are cut short or too long, without decoding them.

        Raises:
            CorruptValueError: one is.
        """
        size, lengths = self._size, self._lengths
        if lengths is None:
            for value in values:
                if len(value) != size:
                    self.decode(value)  # says what is wrong
            return
        for value in values:
            if len(value) < size or len(value) != size + sum(lengths(value)):
                self.decode(value)

    def decode(self, value: bytes) -> Sequence[Any]:
        """The features of a row.

        Raises:
            CorruptValueError: the bytes do not have this layout.
        """
        try:
            fields = self._unpack(value)
            offset = self._size
            if self._tails:
                lengths = fields[self._length_fields]
                if offset + sum(lengths) != len(value):
                    raise self._corrupt(value, f"{len(value)} bytes where the lengths ask for {offset + sum(lengths)}")
                if self._kept_tails:
                    fields += self._read_tails(value, offset, lengths)
            elif offset != len(value):
                raise self._corrupt(value, f"{len(value)} bytes where the layout asks for {offset}")
            if self._has_absent:
                fields += (None,)
            if self._converters:
                fields = self._converted(fields)
        except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
            raise self._corrupt(value, str(error)) from error
        values = self._pick(fields)
        return values if fields[0] == self._no_nulls else self._with_nulls(fields[0], values)

    def _read_tails(self, value: bytes, offset: int, lengths: Sequence[int]) -> tuple[Any, ...]:
        if len(lengths) == len(self._kept_tails):
            found = []
            for length, (_, convert) in zip(lengths, self._kept_tails, strict=True):
                found.append(convert(value[offset : offset + length]))
                offset += length
            return tuple(found)
        starts = [offset]
        for length in lengths:
            starts.append(starts[-1] + length)
        return tuple(convert(value[starts[n] : starts[n + 1]]) for n, convert in self._kept_tails)

    def _converted(self, fields: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = list(fields)
        for index, convert in self._converters:
            changed[index] = convert(changed[index])
        return tuple(changed)

    def _with_nulls(self, bitmap: bytes, values: Sequence[Any]) -> list[Any]:
        nulls = self._nulls.get(bitmap)
        if nulls is None:
            bits = int.from_bytes(bitmap, "little")
            nulls = tuple(at for place, at in self._bit_places if bits >> place & 1)
            if len(self._nulls) < _KNOWN_BITMAPS:
                self._nulls[bitmap] = nulls
        changed = list(values)
        for at in nulls:
            changed[at] = None
        return changed

    def _corrupt(self, value: bytes, problem: str) -> CorruptValueError:
        return CorruptValueError(
            f"a value does not have the layout {self.layout.layout_id:08x} that it names",
            found=f"{problem}; it begins {value[:48].hex()}",
            hint="write the view again with `feature-platform sync --rebuild`",
        )


def decode(layout: Layout, value: bytes) -> dict[str, Any]:
    """All features of a row by name, in wire order.

    Raises:
        CorruptValueError: the bytes do not have this layout.
    """
    names = [name for name, _ in layout.columns]
    return dict(zip(names, RowDecoder(layout, names).decode(value), strict=True))


def converter(type_: FeatureType) -> Converter | None:
    """From what `struct` reads of a slot, or from the bytes behind the fixed section, to the Python value."""
    if isinstance(type_, ListType):
        return partial(_numbers, NUMBERS[type_.element], element_bytes(type_))
    if isinstance(type_, DecimalType):
        return partial(_decimal, type_.scale, long=type_.precision > LONG_DIGITS)
    simple: dict[FeatureType, Converter] = {
        ColumnType.VARCHAR: _text,
        ColumnType.DATE: _date,
        ColumnType.TIMESTAMPTZ: from_micros,
    }
    return simple.get(type_)


_Tail = tuple[int, int, Converter]
"""Place of a column in the layout, index of its length among the fields, how its bytes are read."""


def _fields(layout: Layout, wanted: set[int]) -> tuple[str, dict[int, int], list[_Tail], list[tuple[int, Converter]]]:
    """The struct's letters, the field of each slot read, the columns behind, and the conversions."""
    letters = ""
    field_of: dict[int, int] = {}
    tails: list[_Tail] = []
    conversions: list[tuple[int, Converter]] = []
    for place, (_, type_) in enumerate(layout.columns):
        letter, tail = slot_format(type_), has_tail(type_)
        if not tail and place not in wanted:
            letters += f"{struct.calcsize('<' + letter)}x"
            continue
        letters += letter
        field_of[place] = 1 + len(field_of)
        convert = converter(type_)
        if tail:
            tails.append((place, field_of[place], convert or bytes))
        elif convert is not None:
            conversions.append((field_of[place], convert))
    return letters, field_of, tails, conversions


def _length_range(tails: Sequence[_Tail]) -> tuple[int, int]:
    """Columns with bytes behind the fixed section stand side by side, so their lengths are one slice."""
    return (tails[0][1], tails[-1][1] + 1) if tails else (0, 0)


def _lengths_reader(layout: Layout) -> Callable[[bytes], tuple[int, ...]] | None:
    """What reads the lengths of the bytes behind the fixed section; None if there are none."""
    tails = [place for place, (_, type_) in enumerate(layout.columns) if has_tail(type_)]
    if not tails:
        return None
    before = "".join(slot_format(type_) for _, type_ in layout.columns[: tails[0]])
    skipped = HEADER_BYTES + layout.bitmap_bytes + struct.calcsize("<" + before)
    return struct.Struct(f"<{skipped}x{len(tails)}I").unpack_from


def _picker(indices: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(indices) > 1:
        return itemgetter(*indices)
    return lambda fields: tuple(fields[index] for index in indices)


def _text(raw: bytes) -> str:
    return str(raw, "utf-8")


def _date(days: int) -> date:
    return date.fromordinal(days + EPOCH_DAYS)


def _numbers(letter: str, size: int, raw: bytes) -> list[Any]:
    return list(struct.unpack(f"<{len(raw) // size}{letter}", raw))


def _decimal(scale: int, raw: Any, *, long: bool) -> Any:
    # 3 ms of CPU to import: only where there are decimals
    from decimal import Decimal

    unscaled = int.from_bytes(raw, "little", signed=True) if long else raw
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))
