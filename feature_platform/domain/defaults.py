"""Defaults of features: what a service wants served in the place of a value that is not there.

Rule: a default is written in YAML and carried in JSON, so it is a bool, a number, a text or a list of numbers; what it
is in the type of its feature is said here, for the one who validates it and the one who serves it.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from feature_platform.domain.types import INTEGER_RANGES, ColumnType, DecimalType, FeatureType, ListType

_FLOATS = (ColumnType.FLOAT, ColumnType.DOUBLE)


def parse_default(type_: FeatureType, value: Any) -> Any:
    """A declared default in the type of its feature.

    Raises:
        ValueError: it is none of this type.

    >>> parse_default(ColumnType.DOUBLE, 0), parse_default(ColumnType.DATE, "2013-01-09"), parse_default(ListType(
    ...     element=ColumnType.FLOAT, length=2), [1, 2])
    (0.0, datetime.date(2013, 1, 9), [1.0, 2.0])
    """
    if isinstance(type_, ListType):
        if not isinstance(value, list) or type_.length not in (None, len(value)):
            raise ValueError(f"not a list of {type_.length or 'any number of'} numbers")
        return [parse_default(type_.element, element) for element in value]
    if isinstance(type_, DecimalType):
        return _decimal(type_, value)
    if type_ in INTEGER_RANGES:
        return _whole(INTEGER_RANGES[type_], value)
    if type_ in _FLOATS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("not a number")
        return float(value)
    if type_ is ColumnType.BOOLEAN and isinstance(value, bool):
        return value
    if type_ is ColumnType.BOOLEAN or not isinstance(value, str):
        raise ValueError("not true or false" if type_ is ColumnType.BOOLEAN else "not a text")
    return _text(type_, value)


def _whole(allowed: range, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        raise ValueError(f"not a whole number from {allowed.start} to {allowed.stop - 1}")
    return int(value)


def _text(type_: FeatureType, value: str) -> Any:
    if type_ is ColumnType.VARCHAR:
        return value
    if type_ is ColumnType.BLOB:
        return bytes.fromhex(value)
    if type_ is ColumnType.DATE:
        return date.fromisoformat(value)
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError("an instant without a time zone")
    return instant


def _decimal(type_: DecimalType, value: Any) -> Any:
    # 3 ms of CPU to import: only where there are decimals
    from decimal import Decimal, InvalidOperation

    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    try:
        number = Decimal(str(value))
        exact = number.quantize(Decimal(1).scaleb(-type_.scale))
    except InvalidOperation as error:
        raise ValueError("not a number of this precision") from error
    if exact != number or abs(exact) >= Decimal(10) ** (type_.precision - type_.scale):
        raise ValueError(f"not a number with {type_.scale} digits behind the point and {type_.precision} in all")
    return exact
