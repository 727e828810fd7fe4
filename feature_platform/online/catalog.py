"""What a client must know to read the store, kept in the store itself: three hashes of small JSON documents.

Rule: nothing but the address is needed to decode. Fields are only added or replaced whole, so that publishing never
reads before it writes, and a layout once published stays readable.

| key | field | value |
|---|---|---|
| `feature_platform:views` | `<view>@<version>` | entities, features, layout id, ttl, freshness, latest |
| `feature_platform:layouts` | `<view>@<version>:<layout id, 8 hex digits>` | columns in wire order |
| `feature_platform:services` | `<service>` | the features of each view that it reads |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from feature_platform.domain.feature_service import FLAG_ALL, FeatureService, Remedy, ServingPolicy, ViewSelection
from feature_platform.domain.types import FeatureType
from feature_platform.errors import CorruptValueError, RequestError, UnknownNameError, chosen_from
from feature_platform.online.codec import Layout, columns_from_json
from feature_platform.online.connection import Command
from feature_platform.online.keys import LAYOUTS, SERVICES, VIEWS

if TYPE_CHECKING:
    # ten records that a client does not need, and pays for at import
    from feature_platform.domain.feature_view import FeatureView
    from feature_platform.online.writable import DocumentStore

Key = TypeVar("Key")
Document = TypeVar("Document")
Columns = tuple[tuple[str, FeatureType], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDocument:
    """One view version as a client sees it."""

    name: str
    version: int
    latest: bool
    """References without a version mean this one."""
    entities: Columns
    features: Columns
    """In declared order."""
    layout_id: int
    ttl: timedelta | None
    warn_after: timedelta | None
    error_after: timedelta | None
    owner: str
    push: bool = False
    """Whether pushed rows lie beside those of the batches."""

    @property
    def key(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def stale_after(self) -> timedelta | None:
        """The age at which the promised freshness is broken: the smaller bound that is declared."""
        return min((bound for bound in (self.warn_after, self.error_after) if bound is not None), default=None)

    def require(self, features: Iterable[str]) -> None:
        """Refuse features that the view does not have.

        Raises:
            UnknownNameError: it lacks one.
        """
        names = {name for name, _ in self.features}
        for feature in features:
            if feature not in names:
                raise UnknownNameError(
                    f"feature view {self.key} has no feature {feature!r}",
                    allowed=chosen_from(names),
                    hint="check the spelling; a new feature is served after `feature-platform deploy`",
                )

    def to_json(self) -> str:
        """The document as it lies in the store."""
        return _dump(
            {
                "view": self.name,
                "version": self.version,
                "latest": self.latest,
                "entities": _columns_to_json(self.entities),
                "features": _columns_to_json(self.features),
                "layout": f"{self.layout_id:08x}",
                "ttl_seconds": _seconds(self.ttl),
                "warn_after_seconds": _seconds(self.warn_after),
                "error_after_seconds": _seconds(self.error_after),
                "owner": self.owner,
                **({"push": True} if self.push else {}),
            }
        )

    @classmethod
    def from_json(cls, text: bytes) -> ViewDocument:
        """The document that lies in the store; fields it does not know are left alone."""
        document = json.loads(text)
        return cls(
            name=document["view"],
            version=document["version"],
            latest=document["latest"],
            entities=columns_from_json(document["entities"]),
            features=columns_from_json(document["features"]),
            layout_id=int(document["layout"], 16),
            ttl=_duration(document["ttl_seconds"]),
            warn_after=_duration(document["warn_after_seconds"]),
            error_after=_duration(document["error_after_seconds"]),
            owner=document["owner"],
            push=document.get("push", False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All documents of a store, as read at one time."""

    views: Mapping[str, ViewDocument]
    services: Mapping[str, tuple[ViewSelection, ...]]
    layouts: Mapping[tuple[str, int], Layout]
    policies: Mapping[str, ServingPolicy] = field(default_factory=dict)
    """Of the services that declare one."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Views and services whose documents this version of the platform cannot read, and why; the others are served."""

    @property
    def is_empty(self) -> bool:
        """Whether the store held no document at all: nothing was ever deployed to it, or it was emptied."""
        return not (self.views or self.services or self.layouts or self.unreadable)

    def view(self, ref: str) -> ViewDocument:
        """The view that `name`, `name@2` or `name@v2` names.

        Raises:
            UnknownNameError: the store serves no such view.
        """
        name, _, version = ref.partition("@")
        found = self.views.get(f"{name}@{version.removeprefix('v')}")
        if not version:
            found = next((view for view in self.views.values() if view.name == name and view.latest), None)
        if found is None:
            self._refuse_unreadable(f"{name}@{version.removeprefix('v')}" if version else name)
            raise UnknownNameError(
                f"the online store serves no feature view {ref!r}",
                allowed=f"services: {chosen_from(self.services)}; views: {chosen_from(self.views)}",
                hint="check the spelling; a new view is served after `feature-platform deploy`"
                if self.views
                else "the store is empty: `feature-platform sync --all` fills it",
            )
        return found

    def _refuse_unreadable(self, ref: str) -> None:
        for key, problem in self.unreadable.items():
            if ref in (key, key.partition("@")[0]):
                raise CorruptValueError(
                    f"the schema document of {key} cannot be read",
                    found=problem,
                    hint="upgrade this client; if that does not help, run `feature-platform deploy`",
                )

    def select(self, service_or_refs: str | Iterable[str]) -> tuple[ViewSelection, ...]:
        """Views and their features, in the order asked for; a view or feature asked for twice appears once.

        Args:
            service_or_refs: a service, or references `view`, `view:feature`, `view@2`, `view@2:feature`.

        Raises:
            UnknownNameError: one of them is unknown.
            RequestError: nothing is asked for.
        """
        if isinstance(service_or_refs, str):
            if service_or_refs in self.services:
                return self.services[service_or_refs]
            service_or_refs = (service_or_refs,)
        chosen: dict[str, dict[str, None]] = {}
        for ref in service_or_refs:
            view_ref, colon, feature = ref.partition(":")
            view = self.view(view_ref)
            names = (feature,) if colon else tuple(name for name, _ in view.features)
            chosen.setdefault(view.key, {}).update(dict.fromkeys(names))
        if not chosen:
            raise RequestError("no features are asked for", allowed="a feature service, or references to features")
        return tuple(
            ViewSelection(view=self.views[key].name, version=self.views[key].version, features=tuple(names))
            for key, names in chosen.items()
        )


def document_of(view: FeatureView, *, latest: bool) -> ViewDocument:
    """The document that a declaration publishes."""
    features = tuple((column.name, column.type) for column in view.features)
    return ViewDocument(
        name=view.name,
        version=view.version,
        latest=latest,
        entities=tuple((column.name, column.type) for column in view.entities),
        features=features,
        layout_id=Layout.of(features).layout_id,
        ttl=view.ttl,
        warn_after=view.freshness.warn_after,
        error_after=view.freshness.error_after,
        owner=view.owner.email,
        push=view.push,
    )


def layout_command(document: ViewDocument) -> Command:
    """The command that makes values of this document's layout readable. A layout never changes; repeating is harmless.

    It is sent before the first value in that layout.
    """
    layout = Layout.of(document.features)
    name = f"{document.key}:{layout.layout_id:08x}"
    return ("HSET", LAYOUTS, name, _dump(_columns_to_json(layout.columns)))


def publish(
    store: DocumentStore,
    views: Iterable[ViewDocument],
    services: Iterable[FeatureService],
    *,
    only_missing: bool = False,
) -> None:
    """Publish the documents of a project: everything declared, and nothing else of a service.

    Documents of views that are no longer declared stay, so that a client can still read what it was written for.

    Args:
        store: where to.
        views: documents of all view versions served online.
        services: all services.
        only_missing: leave documents alone that are there: what a sync does with a store that lost its data, since
            its own declarations may be older than those of the last deploy.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    documents = tuple(views)
    declared = {service.name: _service_json(service) for service in services}
    verb = "HSETNX" if only_missing else "HSET"
    commands = [layout_command(document) for document in documents]
    commands += [(verb, VIEWS, document.key, document.to_json()) for document in documents]
    commands += [(verb, SERVICES, name, text) for name, text in declared.items()]
    if not only_missing:
        names = {name.decode() for name in store.call("HKEYS", SERVICES)}
        commands += [("HDEL", SERVICES, name) for name in sorted(names - declared.keys())]
        commands += _no_longer_latest(store, documents)
    if commands:
        store.transaction(commands)


DOCUMENTS: tuple[str, ...] = (VIEWS, SERVICES, LAYOUTS)
"""The hashes that hold all documents, in the order in which `parse` wants them."""


def load(store: DocumentStore) -> Catalog:
    """All documents, in one round trip.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    return parse(store.pipeline([("HGETALL", key) for key in DOCUMENTS]))


def parse(replies: Sequence[Sequence[bytes]]) -> Catalog:
    """The documents in the replies to a HGETALL of each of `DOCUMENTS`.

    A newer platform may have written what this one cannot read, a column type for example: that document is left out,
    and who asks for it is told.
    """
    views, services, layouts = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in replies)
    unreadable: dict[str, str] = {}
    read = dict(_read_all(services, str, _service, unreadable))
    return Catalog(
        views=dict(_read_all(views, str, ViewDocument.from_json, unreadable)),
        layouts=dict(_read_all(layouts, _layout_key, lambda text: Layout(columns_from_json(json.loads(text))), {})),
        services={name: selections for name, (selections, _) in read.items()},
        policies={name: policy for name, (_, policy) in read.items() if policy != FLAG_ALL},
        unreadable=unreadable,
    )


def _read_all(
    texts: Mapping[bytes, bytes],
    read_key: Callable[[str], Key],
    read: Callable[[bytes], Document],
    unreadable: dict[str, str],
) -> Iterator[tuple[Key, Document]]:
    for key, text in texts.items():
        try:
            yield read_key(key.decode()), read(text)
        except (ValueError, KeyError, TypeError) as error:
            unreadable[key.decode("utf-8", "replace")] = f"{type(error).__name__}: {error}"


def _no_longer_latest(store: DocumentStore, documents: Iterable[ViewDocument]) -> list[Command]:
    """A version that left the declarations must not stay the one that its bare name means."""
    current = {document.key for document in documents}
    names = {document.name for document in documents}
    flat = store.call("HGETALL", VIEWS)
    commands: list[Command] = []
    for key, text in zip(flat[::2], flat[1::2], strict=True):
        if key.decode() in current or key.decode().partition("@")[0] not in names:
            continue
        document = json.loads(text)
        if document["latest"]:
            commands.append(("HSET", VIEWS, key, _dump(document | {"latest": False})))
    return commands


def _service_json(service: FeatureService) -> str:
    return _dump(
        {
            "service": service.name,
            "views": [{"view": selection.key, "features": selection.features} for selection in service.selections],
            "latency_budget_seconds": _seconds(service.latency_budget),
            "batch_size": service.batch_size,
            "freshness_seconds": _seconds(service.freshness),
            "owner": service.owner.email,
        }
        | ({} if service.policy == FLAG_ALL else {"policy": _policy_json(service.policy)})
    )


def _policy_json(policy: ServingPolicy) -> dict[str, Any]:
    remedies = {"stale": policy.stale, "expired": policy.expired, "missing": policy.missing}
    return {name: remedy.value for name, remedy in remedies.items()} | {"defaults": policy.defaults}


def _service(text: bytes) -> tuple[tuple[ViewSelection, ...], ServingPolicy]:
    document = json.loads(text)
    declared = document.get("policy", {})
    remedies = {name: Remedy(declared.get(name, Remedy.FLAG)) for name in ("stale", "expired", "missing")}
    return _selections(document), ServingPolicy(**remedies, defaults=declared.get("defaults", {}))


def _selections(document: Mapping[str, Any]) -> tuple[ViewSelection, ...]:
    selections = []
    for entry in document["views"]:
        name, _, version = entry["view"].partition("@")
        selections.append(ViewSelection(view=name, version=int(version), features=tuple(entry["features"])))
    return tuple(selections)


def _layout_key(field: str) -> tuple[str, int]:
    view, _, layout_id = field.rpartition(":")
    return view, int(layout_id, 16)


def _columns_to_json(columns: Columns) -> list[list[str]]:
    return [[name, type_.value] for name, type_ in columns]


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _dump(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
