"""What the clients do, as exchanges: both drive these, one over sockets, one over asyncio. No input or output.

Rule: whatever is decided here is decided for both. The schema documents are read by one caller at a time: the others
go on with the documents they have, or wait where they cannot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from feature_platform.domain.feature_service import FLAG_ALL
from feature_platform.errors import StoreUnavailableError, TimestampError, UnknownNameError
from feature_platform.online import catalog as catalogs
from feature_platform.online.catalog import Catalog, ViewDocument
from feature_platform.online.codec import later_row
from feature_platform.online.exchange import Pause, Standalone, Steps, Store
from feature_platform.online.forks import Forks
from feature_platform.online.hot import HotKey, HotKeys, ValueCache
from feature_platform.online.keys import VIEWS, push_key
from feature_platform.online.request import Entities, ReadPlan, UnknownLayout, unknown_layout
from feature_platform.online.result import OnlineFeatures
from feature_platform.online.settings import OnlineSettings

_POLL_SECONDS: Final = 0.002
_MAX_PLANS: Final = 1024
_UNKNOWN_SECONDS: Final = 1.0
"""So long a layout or name that the store was just asked for in vain counts as unknown without asking again."""
_MAX_UNKNOWN: Final = 1024

Refs = str | tuple[str, ...]


class _Documents:
    """The documents as read at one time, and what was worked out from them."""

    __slots__ = ("catalog", "expires", "plans")

    def __init__(self, catalog: Catalog, expires: float) -> None:
        self.catalog = catalog
        self.expires = expires
        self.plans: dict[Refs, ReadPlan] = {}


class Reading:
    """The state of one client: documents, plans, cached values."""

    def __init__(self, settings: OnlineSettings, clock: Callable[[], datetime]) -> None:
        self.store = _store(settings)
        self._clock = clock
        self._catalog_seconds = settings.catalog_seconds
        # replaced whole: threads see the old or the new, never a mixture
        self._documents: _Documents | None = None
        self._lock = threading.Lock()
        self._forks = Forks.count
        self._unknown: dict[object, float] = {}
        self._cache = ValueCache(settings.cache_seconds, settings.cache_entries) if settings.cache_seconds else None
        self._hot = HotKeys()

    def ping(self) -> Steps[None]:
        """Nothing, if the store answers."""
        yield from self.store.run([(VIEWS.encode(), ("PING",))])

    def describe(self, service_or_refs: str | Iterable[str]) -> Steps[tuple[ViewDocument, ...]]:
        """The views that a request would read."""
        plan = yield from self._plan(_listed(service_or_refs))
        return tuple(part.view for part in plan.views)

    def get(self, service_or_refs: str | Iterable[str], entities: Entities) -> Steps[OnlineFeatures]:
        """The features of these entities."""
        refs = _listed(service_or_refs)
        documents = self._documents
        plan = documents.plans.get(refs) if documents is not None else None
        if documents is None or plan is None or time.monotonic() >= documents.expires:
            plan = yield from self._plan(refs)
        request = plan.request(entities)
        self._hot.observe(request.unique)
        keys, pushable = request.unique, plan.pushable(request)
        values: Sequence[bytes | None] = ()
        if keys:
            values = yield from (self._later(keys, pushable) if pushable else self._values(keys))
        now = self._clock()
        if now.tzinfo is None:
            raise TimestampError("the client's clock has no time zone", hint="return datetime.now(UTC) from it")
        while isinstance(answer := plan.answer(request, values, now), UnknownLayout):
            # a sync wrote in a layout that was published after the documents were read
            plan = yield from self._plan_that_reads(refs, plan, answer)
        return answer

    def hot_keys(self, view: str | None = None) -> tuple[HotKey, ...]:
        """The keys asked for most, of one view (`name@version`) or of all."""
        return self._hot.report(view)

    def _later(self, keys: Sequence[bytes], pushable: Sequence[bytes]) -> Steps[Sequence[bytes | None]]:
        """What each key's entity has: of views that take pushes, the later of the batch's row and the pushed one."""
        values = yield from self._values([*keys, *map(push_key, pushable)])
        pushed = dict(zip(pushable, values[len(keys) :], strict=True))
        return [later_row(value, pushed.get(key)) for key, value in zip(keys, values, strict=False)]

    def _values(self, keys: Sequence[bytes]) -> Steps[Sequence[bytes | None]]:
        return self.store.read(keys) if self._cache is None else self._cached(self._cache, keys)

    def _cached(self, cache: ValueCache, keys: Sequence[bytes]) -> Steps[Sequence[bytes | None]]:
        now = time.monotonic()
        held = cache.get(keys, now)
        if missing := [key for key in keys if key not in held]:
            read = yield from self.store.read(missing)
            fresh = dict(zip(missing, read, strict=True))
            cache.put(fresh, now)
            held.update(fresh)
        return [held[key] for key in keys]

    def _plan(self, refs: Refs) -> Steps[ReadPlan]:
        documents = yield from self._current()
        try:
            return _planned(documents, refs)
        except UnknownNameError:
            # it may have been published since
            if not self._worth_asking(refs):
                raise
        documents = yield from self._newer_than(documents)
        try:
            return _planned(documents, refs)
        except UnknownNameError:
            self._remember_unknown(refs)
            raise

    def _plan_that_reads(self, refs: Refs, plan: ReadPlan, unknown: UnknownLayout) -> Steps[ReadPlan]:
        documents = self._documents
        if documents is not None and documents.catalog is not plan.catalog:
            return _planned(documents, refs)  # read meanwhile
        if documents is None or not self._worth_asking(unknown):
            raise unknown_layout(unknown)
        documents = yield from self._newer_than(documents)
        if (unknown.view, int.from_bytes(unknown.layout_id, "big")) not in documents.catalog.layouts:
            self._remember_unknown(unknown)
            raise unknown_layout(unknown)
        return _planned(documents, refs)

    def _current(self) -> Steps[_Documents]:
        """The documents; read again if they are too old, by one caller, while the others go on with the old ones."""
        documents = self._documents
        if documents is not None and (time.monotonic() < documents.expires or self._busy()):
            return documents
        return (yield from self._newer_than(documents))

    def _newer_than(self, known: _Documents | None) -> Steps[_Documents]:
        """Documents other than these: read by one caller, awaited by the others."""
        lock = self._forked_lock()
        while not lock.acquire(blocking=False):
            if not (yield Pause(_POLL_SECONDS)):
                raise StoreUnavailableError(
                    "the schema documents of the online store did not come in time",
                    hint="check that Valkey runs (`feature-platform status`); the same call may succeed later",
                )
        try:
            if self._documents is None or self._documents is known:
                commands = [(key.encode(), ("HGETALL", key)) for key in catalogs.DOCUMENTS]
                catalog = catalogs.parse((yield from self.store.run(commands)))
                if self._documents is not None and catalog.is_empty:
                    # the store was emptied: what it is asked for is missing until a sync, and no name is unknown
                    catalog = self._documents.catalog
                self._documents = _Documents(catalog, time.monotonic() + self._catalog_seconds)
            return self._documents
        finally:
            lock.release()

    def _busy(self) -> bool:
        return self._forked_lock().locked()

    def _forked_lock(self) -> threading.Lock:
        if self._forks != Forks.count:
            # another thread of the parent may have held it: the child's copy would stay locked for ever
            self._forks, self._lock = Forks.count, threading.Lock()
        return self._lock

    def _worth_asking(self, what: object) -> bool:
        return self._unknown.get(what, 0.0) <= time.monotonic()

    def _remember_unknown(self, what: object) -> None:
        if len(self._unknown) >= _MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[what] = time.monotonic() + _UNKNOWN_SECONDS


def _store(settings: OnlineSettings) -> Store:
    if not settings.seeds:
        return Standalone(settings.address)
    # a tenth of the client's import, for those who have a cluster
    from feature_platform.online.cluster import Cluster

    return Cluster(settings.seeds, from_replicas=settings.from_replicas)


def utc_now() -> datetime:
    """The clients' clock."""
    return datetime.now(UTC)


def _planned(documents: _Documents, refs: Refs) -> ReadPlan:
    plan = documents.plans.get(refs)
    if plan is None:
        catalog = documents.catalog
        selections = catalog.select(refs)
        for selection in selections:
            catalog.view(selection.key).require(selection.features)
        policy = catalog.policies.get(refs, FLAG_ALL) if isinstance(refs, str) else FLAG_ALL
        plan = ReadPlan(catalog, selections, policy)
        if len(documents.plans) >= _MAX_PLANS:
            documents.plans.clear()
        documents.plans[refs] = plan
    return plan


def _listed(service_or_refs: str | Iterable[str]) -> Any:
    return service_or_refs if isinstance(service_or_refs, str) else tuple(service_or_refs)
