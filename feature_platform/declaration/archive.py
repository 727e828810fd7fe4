"""Records as JSON and back, for what must outlive a deploy: a training set is made again by the views it was made of.

Rule: what is written today is read by every later version. A field that an archive lacks takes its default, one that
the code no longer knows is left out.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from feature_platform.domain.feature_view import Owner
from feature_platform.errors import ConfigurationError

_Record = TypeVar("_Record")
_MICROSECOND = timedelta(microseconds=1)


def to_archive(value: Any) -> Any:
    """A declaration (or a part of one) in what JSON has; durations are whole microseconds."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_archive(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_archive(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_archive(inner) for inner in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return value // _MICROSECOND if isinstance(value, timedelta) else value


def from_archive(kind: type[_Record], archived: Mapping[str, Any]) -> _Record:
    """The declaration again.

    Args:
        kind: its class, e.g. `FeatureView`.
        archived: what `to_archive` gave.

    Raises:
        ConfigurationError: it is not what any version wrote.
    """
    try:
        record: _Record = _read(kind, archived)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"an archived {kind.__name__} cannot be read",
            found=repr(error),
            hint="was it written by a newer version of feature-platform, or edited?",
        ) from error
    return record


@cache
def _types(kind: type[Any]) -> dict[str, Any]:
    # a service's module imports this name for type checkers only
    return typing.get_type_hints(kind, localns={"Owner": Owner})


def _read(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if value is not None and origin in (typing.Union, types.UnionType):
        return _read(next(one for one in arguments if one is not type(None)), value)
    if origin is tuple:
        return tuple(_read(arguments[0], inner) for inner in value)
    if origin is collections.abc.Mapping:
        return {name: _read(arguments[1], inner) for name, inner in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        known = _types(kind)
        return kind(**{name: _read(known[name], inner) for name, inner in value.items() if name in known})
    return _read_plain(kind, value)


def _read_plain(kind: Any, value: Any) -> Any:
    if kind is timedelta:
        return value * _MICROSECOND
    if kind in (date, datetime):
        return kind.fromisoformat(value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, enum.Enum) else value
