"""Keys in Valkey: `<view>@<version>:{<entity key>}`.

Rule: two different entities never share a key. An entity key is its components in key order, each as its one exact
text, escaped and joined with commas. Escaping touches four characters: `%` becomes `%25`, `,` `%2C`, `{` `%7B`, `}`
`%7D`; every other byte of the UTF-8 text, NUL included, stays as it is. An empty component becomes a lone `%`, which
no escaped text can be, so the hash tag between the braces is never empty and, without a brace inside, ends where it
should: all views of one entity lie in one slot of a cluster.

Types are fixed per view version, so the text carries none; a value of another type is refused, never converted
(`1.7`, `True` and `"1"` are not the integer 1).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from datetime import date, datetime

from feature_platform.domain.types import INTEGER_RANGES, ColumnType, FeatureType
from feature_platform.errors import EntityError, chosen_from

ESCAPES = (("%", "%25"), (",", "%2C"), ("{", "%7B"), ("}", "%7D"))
"""In the order in which they must be applied: `%` first."""

SEPARATOR = ","
EMPTY = "%"
PREFIX = "feature_platform:"
"""Keys that hold no rows begin with this; no view name contains a colon."""

PUSHED = b":push"
"""What the key of a pushed row ends with; the brace before it ends the key of every other row."""

VIEWS = PREFIX + "views"
LAYOUTS = PREFIX + "layouts"
SERVICES = PREFIX + "services"

_EXPECTED: dict[FeatureType, str] = {
    ColumnType.BOOLEAN: "True or False",
    ColumnType.VARCHAR: "a str",
    ColumnType.DATE: "a datetime.date",
    **{type_: f"an int from {allowed.start} to {allowed.stop - 1}" for type_, allowed in INTEGER_RANGES.items()},
}


def position_key(view: str) -> str:
    """Where the store keeps how far it holds this view (`name@version`)."""
    return f"{PREFIX}position:{view}"


def escape(text: str) -> str:
    """One component of an entity key.

    >>> escape("50% {a,b}"), escape("")
    ('50%25 %7Ba%2Cb%7D', '%')
    """
    for plain, escaped in ESCAPES:
        text = text.replace(plain, escaped)
    return text or EMPTY


def entity_key(types: Sequence[tuple[str, FeatureType]], entity: Mapping[str, object]) -> bytes:
    """The encoded key of one entity.

    Args:
        types: name and type of each key column, in key order.
        entity: a value for each of them; further columns are ignored.

    Raises:
        EntityError: a column is missing, null or of the wrong type.

    >>> entity_key([("origin", ColumnType.VARCHAR), ("gate", ColumnType.INTEGER)], {"origin": "EWR", "gate": 7})
    b'EWR,7'
    """
    components = []
    for name, type_ in types:
        if name not in entity:
            raise EntityError(
                f"entity column {name!r} is missing",
                found=chosen_from(entity.keys()),
                allowed=chosen_from(column for column, _ in types),
                hint=f"give every entity a value for {name!r}",
            )
        components.append(escape(canonical_text(name, type_, entity[name])))
    try:
        return SEPARATOR.join(components).encode()
    except UnicodeEncodeError as error:
        raise EntityError(
            "an entity key is no valid Unicode text", found=repr(components), hint="remove lone surrogates"
        ) from error


def canonical_text(name: str, type_: FeatureType, value: object) -> str:
    """The one text of a key value, before escaping.

    Raises:
        EntityError: the value is null or of the wrong type.

    >>> canonical_text("day", ColumnType.DATE, date(2013, 1, 9)), canonical_text("up", ColumnType.BOOLEAN, True)
    ('2013-01-09', 'true')
    """
    if value is None:
        raise EntityError(
            f"entity column {name!r} is null",
            allowed=_EXPECTED.get(type_, type_.value),
            hint="an entity without a key has no features; leave it out of the request",
        )
    if type_ is ColumnType.VARCHAR and isinstance(value, str):
        return str.__str__(value)
    if type_ is ColumnType.BOOLEAN and isinstance(value, bool):
        return "true" if value else "false"
    if type_ is ColumnType.DATE and isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if type_ in INTEGER_RANGES and not isinstance(value, bool):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
        else:
            if number in INTEGER_RANGES[type_]:
                return str(number)
    raise EntityError(
        f"entity column {name!r} has a value of the wrong type",
        found=f"{value!r} ({type(value).__name__})",
        allowed=f"{_EXPECTED.get(type_, type_.value)}, since its type is {type_.value}",
        hint="convert the value before asking; keys are never converted silently",
    )


def parse_text(name: str, type_: FeatureType, text: str) -> object:
    """A key value as a person types it on a command line.

    Raises:
        EntityError: the text does not spell a value of this type.

    >>> parse_text("gate", ColumnType.INTEGER, "7"), parse_text("up", ColumnType.BOOLEAN, "true")
    (7, True)
    """
    try:
        if type_ is ColumnType.BOOLEAN:
            return {"true": True, "false": False}[text.lower()]
        if type_ in INTEGER_RANGES:
            return int(text)
        if type_ is ColumnType.DATE:
            return date.fromisoformat(text)
    except (KeyError, ValueError) as error:
        raise EntityError(
            f"{text!r} is no value of entity column {name!r}", allowed=f"{_EXPECTED[type_]} ({type_.value})"
        ) from error
    return text


def row_key(view: str, entity: bytes) -> bytes:
    """The key under which a view's row of an entity lies.

    >>> row_key("carrier_delays@1", b"UA")
    b'carrier_delays@1:{UA}'
    """
    return b"%s:{%s}" % (view.encode(), entity)


def push_key(row: bytes) -> bytes:
    """The key under which a pushed row lies, given that of the entity's row. Both share a slot.

    >>> push_key(b"carrier_delays@1:{UA}")
    b'carrier_delays@1:{UA}:push'
    """
    return row + PUSHED


def push_position_key(view: str) -> str:
    """Where the store keeps through which push it holds this view."""
    return f"{PREFIX}push_position:{view}"
