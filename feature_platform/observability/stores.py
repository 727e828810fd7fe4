"""Looking at online stores: what they say of themselves goes to the ledger, where losses are derived from it.

Rule: a look reads the store and creates nothing in it. A store that cannot be reached is no sighting, and nothing is
recorded: until it is seen again, nobody knows what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.serving_history import Sighting
from feature_platform.errors import FeaturePlatformError
from feature_platform.ledger import Ledger
from feature_platform.observability.kinds import Problem, problem_of_platform
from feature_platform.online.keys import VIEWS
from feature_platform.online.writable import open_store

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What a look at a store found."""

    store: str
    views: int
    is_news: bool
    """Something differs from the store's last record."""

    def __str__(self) -> str:
        return f"store {self.store} holds {self.views} view(s)" + (", changed since the last look" * self.is_news)


def look_at_store(ledger: Ledger, registry: FeatureRegistry, *, store: str, valkey_url: str) -> StoreReport | None:
    """Ask the store where it is with every view that is served online, and record it; None if no view is.

    Raises:
        StoreUnavailableError: it cannot be reached.
    """
    views = [view.key for view in registry.served_views]
    if not views:
        return None
    asked = ledger.ask()
    with closing(open_store(valkey_url, TIMEOUT_SECONDS)) as online:
        look = online.probe(views)
    seen = {
        view: Sighting(nonce=held[0], position=held[1]) if held else Sighting(nonce=None, position=0)
        for view, held in look.positions.items()
    }
    is_news = ledger.record_look(store, asked, seen, server_run_id=look.server_run_id)
    return StoreReport(store=store, views=sum(held is not None for held in look.positions.values()), is_news=is_news)


def find_unreachable(registry: FeatureRegistry, stores: Mapping[str, str]) -> Iterator[Problem]:
    """The stores, name to address, that do not answer twice in a row."""
    for store, url in stores.items():
        error = _silence(url) and _silence(url)
        if error is not None:
            yield problem_of_platform(
                "unreachable",
                f"store {store}",
                registry,
                severity="error",
                message=f"online store {store} does not answer: {error}",
            )


def _silence(valkey_url: str) -> FeaturePlatformError | None:
    """Why a store does not answer; None if it does."""
    try:
        with closing(open_store(valkey_url, TIMEOUT_SECONDS)) as online:
            online.call("EXISTS", VIEWS)
            online.probe(())  # of a cluster, every primary
    except FeaturePlatformError as error:  # a password that is refused, too: clients are answered no better
        return error
    return None
