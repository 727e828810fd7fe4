"""The client: features of entities, in one round trip.

Rule: a value is judged by its event time and the client's clock, never by what Valkey's expiry has or has not removed.

    with FeatureClient.from_env() as client:
        answer = client.get_online_features("departure_delay", [{"carrier": "UA", "origin": "EWR", "dest": "SFO"}])
        answer[0].values["dep_delay_mean_7d"], answer[0].views["carrier_delays@1"].status
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from feature_platform.domain.feature_service import ViewSelection
from feature_platform.domain.naming import name_features
from feature_platform.errors import CorruptValueError, EntityError, TimestampError, UnknownNameError, chosen_from
from feature_platform.online import catalog as catalogs
from feature_platform.online.catalog import Catalog, ViewDocument
from feature_platform.online.codec import decode_prefix, layout_id_of
from feature_platform.online.connection import Command, Connection, ConnectionPool
from feature_platform.online.decoding import RowDecoder
from feature_platform.online.feature_log import FeatureLog, LogSettings
from feature_platform.online.keys import entity_key, row_key
from feature_platform.online.result import FeatureStatus, OnlineFeatures, OnlineRow, ViewReading
from feature_platform.online.settings import OnlineSettings, ValkeyAddress

Entity = Mapping[str, Any]
Entities = Sequence[Entity] | Mapping[str, Sequence[Any]]
_KNOWN_DECODERS: Final = 1024


def utc_now() -> datetime:
    """The client's clock."""
    return datetime.now(UTC)


class FeatureClient:
    """Reads features from the online store. Thread-safe, fork-safe; close it, or use it as a context manager."""

    def __init__(
        self, settings: OnlineSettings, *, clock: Callable[[], datetime] = utc_now, log: LogSettings | None = None
    ) -> None:
        self._settings = settings
        # a connection of its own: what is logged never waits for what is served, nor the other way round
        self._log_pool = ConnectionPool(settings.address, settings.timeout_seconds)
        self.log = FeatureLog(log, self._send_log) if log is not None else None
        """What becomes of the requests that are logged; None without `log`."""
        self._clock = clock
        self._pool = ConnectionPool(settings.address, settings.timeout_seconds)
        # one tuple, replaced whole: threads see the old or the new, never a mixture
        self._cached: tuple[float, Catalog] | None = None
        # by view, layout and features: a layout's id stands for the same columns for ever
        self._decoders: dict[tuple[str, int, tuple[str, ...]], RowDecoder] = {}

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        log: LogSettings | None = None,
    ) -> Self:
        """A client of the store that the environment or the data directory names. Connects at the first request.

        With `log`, what is served is logged (docs/reference/feature-log.md).

        Raises:
            ConfigurationError: the address is set nowhere, or malformed.
        """
        return cls(OnlineSettings.from_env(environ), clock=clock, log=log)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        timeout_seconds: float = 1.0,
        clock: Callable[[], datetime] = utc_now,
        log: LogSettings | None = None,
    ) -> Self:
        """A client of the store at this address, known to answer.

        Raises:
            ConfigurationError: the address is malformed.
            StoreUnavailableError: nothing answers there.
        """
        settings = OnlineSettings(address=ValkeyAddress.parse(url), timeout_seconds=timeout_seconds)
        client = cls(settings, clock=clock, log=log)
        client.ping()
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send what waits to be logged, for a few seconds at most, and close all connections."""
        if self.log is not None:
            self.log.close()
        self._log_pool.close()
        self._pool.close()

    def ping(self) -> None:
        """Check that the store answers.

        Raises:
            StoreUnavailableError: it does not.
        """
        self._pool.run(lambda connection: connection.call("PING"))

    def describe(self, service_or_refs: str | Iterable[str]) -> tuple[ViewDocument, ...]:
        """The views that a request would read: their entities, features, ttl and promised freshness.

        Raises:
            UnknownNameError: a service, view or feature is unknown.
            StoreUnavailableError: the store cannot be reached.
        """
        refs = _listed(service_or_refs)
        catalog, selections = self._selected(refs)
        return tuple(catalog.views[selection.key] for selection in selections)

    def get_online_features(
        self, service_or_refs: str | Iterable[str], entities: Entities, *, request_id: str | None = None
    ) -> OnlineFeatures:
        """The features of these entities.

        Args:
            service_or_refs: a feature service, or references `view`, `view:feature`, `view@2`, `view@2:feature`.
            entities: a dict per entity, or a dict of columns; every view's key columns and nothing else.
            request_id: under which the request is logged, if the client logs (default: one is made).

        Raises:
            UnknownNameError: a service, view or feature is unknown.
            EntityError: a key column is missing, unexpected, null or of the wrong type.
            StoreUnavailableError: the store cannot be reached or did not answer in time.
            CorruptValueError: a value cannot be read.
            TimestampError: the client's clock has no time zone.
        """
        asked = _listed(service_or_refs)
        catalog, selections = self._selected(asked)
        rows = _as_rows(entities)
        views = tuple(catalog.views[selection.key] for selection in selections)
        _refuse_unexpected(rows, views)
        keys = [[row_key(view.key, entity_key(view.entities, row)) for row in rows] for view in views]
        values = self._fetch(key for of_view in keys for key in of_view)
        now = self._clock()
        if now.tzinfo is None:
            raise TimestampError("the client's clock has no time zone", hint="return datetime.now(UTC) from it")
        names = iter(name_features(selections, {name for view in views for name, _ in view.entities}))
        columns = [
            _Column(view=view, features=selection.features, names=tuple(next(names) for _ in selection.features))
            for view, selection in zip(views, selections, strict=True)
        ]
        answers = []
        for i, row in enumerate(rows):
            found: dict[str, Any] = {}
            readings = {}
            for column, of_view in zip(columns, keys, strict=True):
                readings[column.view.key] = self._read(column, values[of_view[i]], now, found)
            answers.append(OnlineRow(entity=dict(row), values=found, views=readings))
        if self.log is not None:
            parts = [
                (view.key, of_view, [values[key] for key in of_view]) for view, of_view in zip(views, keys, strict=True)
            ]
            request_id = self.log.offer(asked, request_id, now, parts)
        return OnlineFeatures(rows=tuple(answers), request_id=request_id)

    def _send_log(self, commands: Sequence[Command]) -> None:
        self._log_pool.run(lambda connection: connection.pipeline(commands))

    def _read(self, column: _Column, value: bytes | None, now: datetime, found: dict[str, Any]) -> ViewReading:
        """Judge one value and put its features into `found`."""
        found.update(dict.fromkeys(column.names))
        if value is None:
            return ViewReading(status=FeatureStatus.MISSING, event_timestamp=None, age=None, position=None)
        prefix = decode_prefix(value)
        event_timestamp = prefix.event_timestamp
        if event_timestamp is None:
            return ViewReading(status=FeatureStatus.MISSING, event_timestamp=None, age=None, position=prefix.position)
        view, age = column.view, now - event_timestamp
        status = FeatureStatus.FRESH
        if view.ttl is not None and age >= view.ttl:
            status = FeatureStatus.EXPIRED
        else:
            if view.stale_after is not None and age >= view.stale_after:
                status = FeatureStatus.STALE
            # a row written before a feature was added has none of it: NULL, as in the lake
            found.update(zip(column.names, self._decoder(column, value).decode(value), strict=True))
        return ViewReading(status=status, event_timestamp=event_timestamp, age=age, position=prefix.position)

    def _decoder(self, column: _Column, value: bytes) -> RowDecoder:
        """What reads the column's features of values in this layout: made once, and used by every later request."""
        view, layout_id = column.view.key, layout_id_of(value)
        known = (view, layout_id, column.features)
        decoder = self._decoders.get(known)
        if decoder is not None:
            return decoder
        key = (view, layout_id)
        layout = self._catalog().layouts.get(key) or self._refreshed().layouts.get(key)
        if layout is None:
            raise CorruptValueError(
                f"a value of feature view {view} has a layout that was never published",
                found=f"layout {layout_id:08x}",
                hint="write the view again with `feature-platform sync --rebuild`",
            )
        decoder = RowDecoder(layout, column.features)
        if len(self._decoders) >= _KNOWN_DECODERS:
            self._decoders.clear()
        self._decoders[known] = decoder
        return decoder

    def _fetch(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        unique = tuple(dict.fromkeys(keys))
        if not unique:
            return {}
        replies = self._pool.run(lambda connection: connection.call("MGET", *unique))
        return dict(zip(unique, replies, strict=True))

    def _selected(self, service_or_refs: str | tuple[str, ...]) -> tuple[Catalog, tuple[ViewSelection, ...]]:
        """What is asked for; a name that is unknown may have been published since the catalog was read."""
        catalog = self._catalog()
        try:
            return catalog, _select(catalog, service_or_refs)
        except UnknownNameError:
            catalog = self._refreshed()
            return catalog, _select(catalog, service_or_refs)

    def _catalog(self) -> Catalog:
        cached = self._cached
        if cached is not None and time.monotonic() < cached[0]:
            return cached[1]
        return self._refreshed()

    def _refreshed(self) -> Catalog:
        catalog: Catalog = self._pool.run(_load_catalog)
        self._cached = (time.monotonic() + self._settings.catalog_seconds, catalog)
        return catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """What one view contributes to every row."""

    view: ViewDocument
    features: tuple[str, ...]
    """As the view names them."""
    names: tuple[str, ...]
    """As the answer names them."""


def _load_catalog(connection: Connection) -> Catalog:
    return catalogs.load(connection)


def _listed(service_or_refs: str | Iterable[str]) -> str | tuple[str, ...]:
    return service_or_refs if isinstance(service_or_refs, str) else tuple(service_or_refs)


def _select(catalog: Catalog, service_or_refs: str | tuple[str, ...]) -> tuple[ViewSelection, ...]:
    selections = catalog.select(service_or_refs)
    for selection in selections:
        catalog.view(selection.key).require(selection.features)
    return selections


def _as_rows(entities: Entities) -> Sequence[Entity]:
    if not isinstance(entities, Mapping):
        rows = tuple(entities)
        for row in rows:
            if not isinstance(row, Mapping):
                raise EntityError(
                    "an entity is no dict", found=repr(row), allowed="a dict per entity, or a dict of columns"
                )
        return rows
    for name, column in entities.items():
        if isinstance(column, str) or not isinstance(column, Iterable):
            raise EntityError(
                f"entity column {name!r} is no list",
                found=repr(column),
                allowed="a dict per entity, or a dict of columns",
                hint="for one entity write [{…}]",
            )
    columns = {name: list(column) for name, column in entities.items()}
    if len({len(column) for column in columns.values()}) > 1:
        raise EntityError(
            "the entity columns differ in length",
            found=", ".join(f"{name}: {len(column)}" for name, column in columns.items()),
        )
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _refuse_unexpected(rows: Iterable[Entity], views: Iterable[ViewDocument]) -> None:
    known = {name for view in views for name, _ in view.entities}
    for row in rows:
        if unexpected := row.keys() - known:
            raise EntityError(
                f"unknown entity column {chosen_from(unexpected)}",
                allowed=chosen_from(known),
                hint="leave out columns that are no key of the views asked for",
            )
