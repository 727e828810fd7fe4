"""A request as a value: which keys it reads, and how what comes back becomes an answer. No input or output.

Rule: all that depends only on what is asked for is worked out once, in a `ReadPlan`, and used by every request for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from feature_platform.domain.defaults import parse_default
from feature_platform.domain.feature_service import FLAG_ALL, Remedy, ServingPolicy, ViewSelection
from feature_platform.domain.naming import name_features
from feature_platform.domain.types import INTEGER_RANGES, ColumnType, FeatureType
from feature_platform.errors import CorruptValueError, EntityError, UnusableFeaturesError, chosen_from
from feature_platform.online.catalog import Catalog, ViewDocument
from feature_platform.online.codec import HEADER_BYTES, PREFIX_BYTES, decode_prefix, duration_micros, to_micros
from feature_platform.online.decoding import row_decoder
from feature_platform.online.keys import SEPARATOR, canonical_text, escape
from feature_platform.online.result import OnlineFeatures
from feature_platform.online.view_values import FeatureStatus, ViewForm, ViewValues

Entity = Mapping[str, Any]
Entities = Sequence[Entity] | Mapping[str, Sequence[Any]]
EntityColumns = dict[str, list[Any]]

_SHOWN: Final = 3
_LAYOUT: Final[Callable[[Any], bytes]] = itemgetter(slice(PREFIX_BYTES, HEADER_BYTES))


class UnknownLayout(NamedTuple):
    """A layout that the catalog lacks: it may have been published since."""

    view: str
    layout_id: bytes


class Request(NamedTuple):
    """The entities of one request, and the keys to read: per view one for each entity, and each key once.

    `asked` is the number of keys before the repeated ones went.
    """

    entities: EntityColumns
    keys_of: Sequence[Sequence[bytes]]
    unique: Sequence[bytes]
    asked: int


class ViewPlan:
    """One view of a plan."""

    def __init__(
        self, view: ViewDocument, features: tuple[str, ...], names: tuple[str, ...], policy: ServingPolicy
    ) -> None:
        self.view = view
        self.keys = key_maker(view)
        declared = {
            FeatureStatus.STALE: policy.stale,
            FeatureStatus.EXPIRED: policy.expired,
            FeatureStatus.MISSING: policy.missing,
        }
        types, defaults = dict(view.features), policy.defaults.get(view.key, {})
        self._form = ViewForm(
            key=view.key,
            features=features,
            names=names,
            types=tuple(types[name] for name in features),
            ttl=duration_micros(view.ttl),
            stale_after=duration_micros(view.stale_after),
            remedies={status: remedy for status, remedy in declared.items() if remedy is not Remedy.FLAG},
            defaults=tuple(
                None if defaults.get(name) is None else parse_default(types[name], defaults[name]) for name in features
            ),
        )

    def answer(self, values: Sequence[bytes | None], now: int, catalog: Catalog) -> ViewValues | UnknownLayout:
        """The view's part of an answer, judged at this instant (microseconds); or a layout that the catalog lacks.

        Raises:
            CorruptValueError: a value is too short to say what it is.
        """
        form, decoders = self._form, self._form.decoders
        whole = None not in values
        # a third faster where nothing is missing
        found: set[bytes] = set(
            map(_LAYOUT, values) if whole else [_LAYOUT(value) for value in values if value is not None]
        )
        if not decoders.keys() >= found and (unknown := self._unknown(found, values, catalog)) is not None:
            return unknown
        alike = decoders.get(next(iter(found))) if whole and len(found) == 1 else None
        return ViewValues(form, values, alike=alike, now=now)

    def _unknown(self, found: set[bytes], values: Sequence[bytes | None], catalog: Catalog) -> UnknownLayout | None:
        """Learn to read the layouts that are met for the first time; the first that the catalog lacks."""
        form, decoders = self._form, self._form.decoders
        for layout_id in found - decoders.keys():
            if len(layout_id) < HEADER_BYTES - PREFIX_BYTES:
                continue  # "no row", or too short to be a value
            layout = catalog.layouts.get((form.key, int.from_bytes(layout_id, "big")))
            if layout is None:
                return UnknownLayout(form.key, layout_id)
            decoders[layout_id] = row_decoder(layout, form.features, form.names)
        for value in values:
            if value is not None and len(value) < HEADER_BYTES:
                decode_prefix(value)  # a tombstone, or nothing that can be read
        return None

    @property
    def refuses(self) -> frozenset[FeatureStatus]:
        """Statuses with which a request is refused."""
        return frozenset(status for status, remedy in self._form.remedies.items() if remedy is Remedy.RAISE)


class ReadPlan:
    """What a request for certain features reads, and how it is answered."""

    def __init__(self, catalog: Catalog, selections: Sequence[ViewSelection], policy: ServingPolicy = FLAG_ALL) -> None:
        self.catalog = catalog
        views = [catalog.views[one.key] for one in selections]
        self._entities = {name: type_ for view in views for name, type_ in view.entities}
        self._columns = tuple(self._entities)
        names = iter(name_features(selections, self._entities.keys()))
        self.views = tuple(
            ViewPlan(view, tuple(one.features), tuple(islice(names, len(one.features))), policy)
            for view, one in zip(views, selections, strict=True)
        )
        self._has_pushable = any(view.push for view in views)
        self._refusing = tuple((index, part.refuses) for index, part in enumerate(self.views) if part.refuses)

    def pushable(self, request: Request) -> Sequence[bytes]:
        """The keys of a request beside which a pushed row may lie."""
        if not self._has_pushable:
            return ()
        found = (keys for part, keys in zip(self.views, request.keys_of, strict=True) if part.view.push)
        return [*dict.fromkeys(key for keys in found for key in keys)]

    def request(self, entities: Entities) -> Request:
        """The keys that these entities ask for.

        Raises:
            EntityError: a key column is missing, unexpected, null or of the wrong type.
        """
        columns = entity_columns(entities, self._columns)
        keys_of = [part.keys(columns) for part in self.views]
        unique = keys_of[0] if len(keys_of) == 1 else [key for keys in keys_of for key in keys]
        asked = len(unique)
        if len(set(unique)) < asked:
            unique = list(dict.fromkeys(unique))
        return Request(columns, keys_of, unique, asked)

    def answer(self, request: Request, values: Sequence[bytes | None], now: datetime) -> OnlineFeatures | UnknownLayout:
        """The answer; or a layout that the catalog lacks, to be asked of one that has it.

        Raises:
            CorruptValueError: a value is too short to say what it is.
            UnusableFeaturesError: the service declares that such values must not be served.
        """
        asked = request.asked
        by_key = dict(zip(request.unique, values, strict=True)) if len(values) < asked else None
        micros = to_micros(now)
        parts = []
        start = 0
        for part, keys in zip(self.views, request.keys_of, strict=True):
            if by_key is not None:
                own: Sequence[bytes | None] = [by_key[key] for key in keys]
            else:
                own = values if len(keys) == asked else values[start : start + len(keys)]
                start += len(keys)
            answer = part.answer(own, micros, self.catalog)
            if isinstance(answer, UnknownLayout):
                return answer
            parts.append(answer)
        if self._refusing:
            self._refuse_unusable(parts)
        return OnlineFeatures(
            entities=request.entities,
            entity_types=self._entities,
            by_view=parts,
            keys_of=request.keys_of,
            requested_at=now,
        )

    def _refuse_unusable(self, parts: Sequence[ViewValues]) -> None:
        unusable = [
            (index, parts[number].form.key, status.value)
            for number, refused in self._refusing
            for index, status in enumerate(parts[number].statuses())
            if status in refused
        ]
        if unusable:
            shown = ", ".join(f"{view} is {status} for entity {index}" for index, view, status in unusable[:_SHOWN])
            raise UnusableFeaturesError(
                "the feature service does not want values like these",
                unusable=tuple(unusable),
                found=shown + (f", and {len(unusable) - _SHOWN} more" if len(unusable) > _SHOWN else ""),
                hint="fall back as the model's owner decided; the service declares it under `meta.feature_service`",
            )


def unknown_layout(unknown: UnknownLayout) -> CorruptValueError:
    """The error for a value in a layout that was never published, or has types that came after this client."""
    return CorruptValueError(
        f"a value of feature view {unknown.view} has a layout that was never published",
        found=f"layout {unknown.layout_id.hex()}",
        hint="write the view again with `feature-platform sync --rebuild`, or upgrade this client",
    )


KeyMaker = Callable[[Mapping[str, Sequence[Any]]], list[bytes]]


def key_maker(view: ViewDocument) -> KeyMaker:
    """A function from key columns to row keys: the same as `keys.row_key`, a column at a time."""
    opening = f"{view.key}:{{"
    between = f"}}\0{opening}"
    makers = [(name, _text_maker(name, type_)) for name, type_ in view.entities]
    ((first, make_first), *others) = makers

    def make(columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
        texts = make_first(columns[first])
        if others:
            rest = [make_other(columns[name]) for name, make_other in others]
            texts = list(map(SEPARATOR.join, zip(texts, *rest, strict=True)))
        try:
            # encoded together, which is faster; no text has a zero byte, or there are too many pieces
            keys = f"{opening}{between.join(texts)}}}".encode().split(b"\0")
            return keys if len(keys) == len(columns[first]) else [f"{opening}{text}}}".encode() for text in texts]
        except UnicodeEncodeError as error:
            raise EntityError(
                "an entity key is no valid Unicode text", found=repr(error.object), hint="remove lone surrogates"
            ) from error

    return make


def _text_maker(name: str, type_: FeatureType) -> Callable[[Sequence[Any]], Sequence[str]]:
    """A function from a key column to the texts of its values; what is plain as a whole is not looked at one by one."""

    def checked(values: Sequence[Any]) -> list[str]:
        return [escape(canonical_text(name, type_, value)) for value in values]

    def whole(values: Sequence[Any]) -> Sequence[str]:
        if set(map(type, values)) == {int} and min(values) in allowed and max(values) in allowed:
            return list(map(str, values))
        return checked(values)

    def text(values: Sequence[Any]) -> Sequence[str]:
        if set(map(type, values)) == {str} and "" not in values and "".join(values).isalnum():
            return values
        return checked(values)

    allowed = INTEGER_RANGES.get(type_, range(0))
    if type_ is ColumnType.VARCHAR:
        return text
    return whole if type_ in INTEGER_RANGES else checked


def entity_columns(entities: Entities, names: Sequence[str]) -> EntityColumns:
    """The key columns of a request, whichever form it has.

    Raises:
        EntityError: a key column is missing or unexpected, or the columns differ in length.
    """
    if not isinstance(entities, list | tuple):
        if isinstance(entities, Mapping):
            return _checked_columns(entities, names)
        entities = tuple(entities)
    rows: Sequence[Entity] = entities
    try:
        columns = {name: [row[name] for row in rows] for name in names}
        width = len(names)
        if set(map(len, rows)) <= {width}:
            return columns
    except (KeyError, TypeError, IndexError):
        pass
    for row in rows:
        if not isinstance(row, Mapping):
            raise EntityError(
                "an entity is no dict", found=repr(row), allowed="a dict per entity, or a dict of columns"
            )
        _check_names(row.keys(), names)
    return columns


def _checked_columns(entities: Mapping[str, Sequence[Any]], names: Sequence[str]) -> EntityColumns:
    columns: EntityColumns = {}
    for name, column in entities.items():
        if isinstance(column, str) or not isinstance(column, Iterable):
            raise EntityError(
                f"entity column {name!r} is no list",
                found=repr(column),
                allowed="a dict per entity, or a dict of columns",
                hint="for one entity write [{…}]",
            )
        # arrays of numpy, Arrow and pandas: their own scalars are no Python values
        to_list = getattr(column, "tolist", None)
        columns[name] = to_list() if callable(to_list) else list(column)
    _check_names(columns.keys(), names)
    if len({len(column) for column in columns.values()}) > 1:
        raise EntityError(
            "the entity columns differ in length",
            found=", ".join(f"{name}: {len(column)}" for name, column in columns.items()),
        )
    return columns


def _check_names(found: Iterable[str], names: Sequence[str]) -> None:
    found = set(found)
    if unexpected := found.difference(names):
        raise EntityError(
            f"unknown entity column {chosen_from(unexpected)}",
            allowed=chosen_from(names),
            hint="leave out columns that are no key of the views asked for",
        )
    for name in names:
        if name not in found:
            raise EntityError(
                f"entity column {name!r} is missing",
                found=chosen_from(found),
                allowed=chosen_from(names),
                hint=f"give every entity a value for {name!r}",
            )
