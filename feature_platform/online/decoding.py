"""Values to Python, for the features that are asked for and no others.

Rule: all that does not depend on the value is done once per layout and set of features: a function is written for them,
as `namedtuple` does it. One `struct` reads the slots that are asked for and skips the others; the lengths of texts,
blobs and lists are always read, so a value that is cut short or too long is never taken for a row.

A row's dict is made as the attributes of an object, which share their keys with those of all objects of the class
(PEP 412): no key is hashed and none is stored per row. That takes half the time of a dict of its own, and a third of
the memory. Such a dict is like any other, whatever is done to it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import cached_property, lru_cache, partial
from keyword import iskeyword
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
_KNOWN_DECODERS: Final = 1024
_TOGETHER: Final = 128
"""Rows that are turned into columns at a time: more of them do not stay in the processor's cache."""
_ERRORS: Final = (struct.error, UnicodeDecodeError, ValueError, OverflowError)
Converter = Callable[[Any], Any]

_SHARED_KEYS: Final = 30
"""Attributes of one class whose keys are shared, at most: a limit of CPython."""

_READ: Final = """
def read(values):
    rows = []
    for value in values:
        try:
            {variables} = unpack(value, {start})
            {ends}
            if end != len(value):
                raise ValueError(f"{{len(value)}} bytes where its lengths ask for {{end}}")
            {row}
        except errors as error:
            raise corrupt(value, error) from error
        nulls = value[{bitmap}]
        rows.append(row if nulls == no_nulls else with_nulls(nulls, row))
    return rows
"""


class RowDecoder:
    """Reads some features of values in one layout, in the order asked for."""

    def __init__(self, layout: Layout, features: Sequence[str], names: Sequence[str] | None = None) -> None:
        self.layout = layout
        self._features = tuple(features)
        self._names = self._features if names is None else tuple(names)
        self._places = {name: i for i, (name, _) in enumerate(layout.columns)}
        self._size = HEADER_BYTES + layout.bitmap_bytes + struct.calcsize("<" + layout.fixed_format)
        self._known_nulls: dict[bytes, tuple[int, ...]] = {}

    def decode(self, value: bytes) -> Sequence[Any]:
        """The features of a row.

        Raises:
            CorruptValueError: the bytes do not have this layout.
        """
        return self.rows((value,))[0]

    @cached_property
    def rows(self) -> Callable[[Iterable[bytes]], list[Sequence[Any]]]:
        """The features of rows.

        Raises (the function):
            CorruptValueError: the bytes of one do not have this layout.
        """
        expressions, known = self._expressions
        row = "".join(f"{expressions.get(feature, 'None')}, " for feature in self._features)
        read: Callable[[Iterable[bytes]], list[Sequence[Any]]] = self._function(
            f"row = ({row})", known | {"with_nulls": self._with_nulls}
        )
        return read

    @cached_property
    def named_rows(self) -> Callable[[Iterable[bytes]], list[dict[str, Any]]]:
        """The same, each as a dict by the names given."""
        expressions, known = self._expressions
        # a feature that the layout lacks was added later: NULL, as in the lake
        items = [
            (name, expressions.get(feature, "None")) for name, feature in zip(self._names, self._features, strict=True)
        ]
        if self._names and all(map(_is_attribute, self._names)):
            starts = range(0, len(items), _SHARED_KEYS)
            known = known | {f"Keys{start}": type("Keys", (), {}) for start in starts}
            lines = []
            for start in starts:
                lines.append(f"part{start} = Keys{start}()")
                lines += [f"part{start}.{name} = {text}" for name, text in items[start : start + _SHARED_KEYS]]
            parts = [f"part{start}.__dict__" for start in starts]
            lines.append(
                f"row = {parts[0]}" if len(parts) == 1 else f"row = {{{', '.join(f'**{one}' for one in parts)}}}"
            )
        else:
            lines = [f"row = {{{', '.join(f'{name!r}: {text}' for name, text in items)}}}"]
        read: Callable[[Iterable[bytes]], list[dict[str, Any]]] = self._function(
            f"\n{' ' * 12}".join(lines), known | {"with_nulls": self._named_with_nulls}
        )
        return read

    def columns(self, values: Sequence[bytes]) -> list[list[Any]]:
        """The features of many rows, a list for each: what `decode` makes of every row, turned round.

        Raises:
            CorruptValueError: the bytes of a row do not have this layout.
        """
        columns: list[list[Any]] = [[] for _ in self._features]
        for start in range(0, len(values), _TOGETHER):
            rows = self.rows(values[start : start + _TOGETHER])
            for column, more in zip(columns, zip(*rows, strict=True), strict=True):
                column.extend(more)
        return columns

    @cached_property
    def _expressions(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Of each feature asked for what makes it of the variables of `_READ`; and the functions it needs for that."""
        expressions: dict[str, str] = {}
        known: dict[str, Any] = {}
        for place, (name, type_) in enumerate(self.layout.columns):
            if name not in self._features:
                continue
            raw = f"value[at{place} : at{place} + v{place}]" if has_tail(type_) else f"v{place}"
            known[f"convert{place}"] = convert = converter(type_)
            expressions[name] = raw if convert is None else f"convert{place}({raw})"
            if type_ is ColumnType.VARCHAR:
                expressions[name] = f"{raw}.decode()"
        return expressions, known

    def _function(self, row: str, known: dict[str, Any]) -> Any:
        """Write the function that reads values: its text holds numbers, and names as literals or attributes."""
        letters, variables, ends = "", "", ["end = " + str(self._size)]
        for place, (name, type_) in enumerate(self.layout.columns):
            if has_tail(type_):
                ends.append(f"at{place}, end = end, end + v{place}")
            elif name not in self._features:
                letters += f"{struct.calcsize('<' + slot_format(type_))}x"
                continue
            letters += slot_format(type_)
            variables += f"v{place}, "
        start = HEADER_BYTES + self.layout.bitmap_bytes
        source = _READ.format(
            variables=variables or "()",
            start=start,
            ends="; ".join(ends),
            row=row,
            bitmap=f"{HEADER_BYTES}:{start}",
        )
        known = known | {
            "unpack": _struct(letters).unpack_from,
            "errors": _ERRORS,
            "corrupt": self._corrupt,
            "no_nulls": bytes(self.layout.bitmap_bytes),
        }
        exec(compile(source, f"<layout {self.layout.layout_id:08x}>", "exec"), known)  # noqa: S102 - our own text
        return known["read"]

    def _nulls(self, bitmap: bytes) -> tuple[int, ...]:
        """Which of the features asked for are NULL."""
        nulls = self._known_nulls.get(bitmap)
        if nulls is None:
            bits, places = int.from_bytes(bitmap, "little"), self._places
            asked = enumerate(self._features)
            nulls = tuple(at for at, name in asked if name in places and bits >> places[name] & 1)
            if len(self._known_nulls) < _KNOWN_BITMAPS:
                self._known_nulls[bitmap] = nulls
        return nulls

    def _with_nulls(self, bitmap: bytes, row: Sequence[Any]) -> Sequence[Any]:
        changed = list(row)
        for at in self._nulls(bitmap):
            changed[at] = None
        return changed

    def _named_with_nulls(self, bitmap: bytes, row: dict[str, Any]) -> dict[str, Any]:
        names = self._names
        for at in self._nulls(bitmap):
            row[names[at]] = None
        return row

    def _corrupt(self, value: bytes, problem: Exception) -> CorruptValueError:
        return CorruptValueError(
            f"a value does not have the layout {self.layout.layout_id:08x} that it names",
            found=f"{problem}; it begins {value[:48].hex()}",
            hint="write the view again with `feature-platform sync --rebuild`",
        )


@lru_cache(maxsize=_KNOWN_DECODERS)
def row_decoder(layout: Layout, features: tuple[str, ...], names: tuple[str, ...]) -> RowDecoder:
    """A decoder, made once in this process: a layout stands for the same columns for ever."""
    return RowDecoder(layout, features, names)


def decode(layout: Layout, value: bytes) -> dict[str, Any]:
    """All features of a row by name, in wire order.

    Raises:
        CorruptValueError: the bytes do not have this layout.
    """
    names = tuple([name for name, _ in layout.columns])
    return row_decoder(layout, names, names).named_rows((value,))[0]


def _is_attribute(name: str) -> bool:
    """Whether an object can have an attribute of this name that means nothing else."""
    return name.isascii() and name.isidentifier() and not iskeyword(name) and not name.startswith("__")


def _struct(letters: str) -> struct.Struct:
    """Little-endian and unpadded; the machine's own reading of the same bytes is a tenth faster than `struct`'s."""
    native = sys.byteorder == "little" and struct.calcsize("@" + letters) == struct.calcsize("<" + letters)
    return struct.Struct(("@" if native else "<") + letters)


def converter(type_: FeatureType) -> Converter | None:
    """From what `struct` reads of a slot, or from the bytes behind the fixed section, to the Python value.

    Texts are read where the function is written; what needs no conversion has none.
    """
    if isinstance(type_, ListType):
        return partial(_numbers, NUMBERS[type_.element], element_bytes(type_))
    if isinstance(type_, DecimalType):
        return partial(_decimal, type_.scale, long=type_.precision > LONG_DIGITS)
    simple: dict[FeatureType, Converter] = {
        ColumnType.DATE: _date,
        ColumnType.TIMESTAMPTZ: from_micros,
    }
    return simple.get(type_)


def _date(days: int) -> date:
    return date.fromordinal(days + EPOCH_DAYS)


def _numbers(letter: str, size: int, raw: bytes) -> list[Any]:
    return list(struct.unpack(f"<{len(raw) // size}{letter}", raw))


def _decimal(scale: int, raw: Any, *, long: bool) -> Any:
    # 3 ms of CPU to import: only where there are decimals
    from decimal import Decimal

    unscaled = int.from_bytes(raw, "little", signed=True) if long else raw
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))
