"""Publishing what clients need to read the store: schema documents and the server's functions.

Rule: deploy publishes the declarations; a sync only puts back what a store has lost.
"""

from __future__ import annotations

from contextlib import closing

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.online import catalog, keys
from feature_platform.online.catalog import ViewDocument
from feature_platform.online.writable import WritableStore, open_store

TIMEOUT_SECONDS = 10.0


def publish_schemas(valkey_url: str, registry: FeatureRegistry) -> None:
    """Publish the documents of all views and services served online, and load the functions. Part of deploy.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    with closing(open_store(valkey_url, TIMEOUT_SECONDS)) as store:
        store.load_functions()
        catalog.publish(store, _documents(registry), registry.services.values())


def ensure_published(store: WritableStore, registry: FeatureRegistry, view: FeatureView) -> None:
    """Make a view's rows readable before the first of them is written.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    store.load_functions()
    document = document_of(registry, view)
    _, known = store.pipeline([catalog.layout_command(document), ("HEXISTS", keys.VIEWS, view.key)])
    if not known:
        catalog.publish(store, _documents(registry), registry.services.values(), only_missing=True)


def document_of(registry: FeatureRegistry, view: FeatureView) -> ViewDocument:
    """The document that this declaration publishes."""
    return catalog.document_of(view, latest=registry.latest[view.name] == view.version)


def _documents(registry: FeatureRegistry) -> tuple[ViewDocument, ...]:
    return tuple(document_of(registry, view) for view in registry.served_views)
