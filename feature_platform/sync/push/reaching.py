"""Bringing pushes to the stores that have not got them: one that did not answer, and those of other regions.

Rule: every store is tried, whatever another one says. A sync does the same, and comes with the next batch: perhaps a
day later.
"""

from __future__ import annotations

from contextlib import closing

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import FeaturePlatformError
from feature_platform.ledger import Ledger
from feature_platform.online.writable import open_store
from feature_platform.settings import Settings
from feature_platform.sync.publishing import ensure_published
from feature_platform.sync.push.replaying import replay
from feature_platform.sync.refusals import refuse_older_declarations
from feature_platform.sync.writing import TIMEOUT_SECONDS


def reach_stores(settings: Settings, registry: FeatureRegistry, view: FeatureView) -> None:
    """Write to each store the living pushes of a view that it has not acknowledged.

    Raises:
        NotDeployedError: this process has older declarations than those deployed.
        FeaturePlatformError: a store could not be reached, or refused; all others have them.
    """
    failed: FeaturePlatformError | None = None
    with Ledger.connect(settings.ledger_url) as ledger:
        refuse_older_declarations(view, ledger)
        for store, url in settings.all_stores.items():
            try:
                with closing(open_store(url, TIMEOUT_SECONDS)) as online:
                    ensure_published(online, registry, view)
                    replay(online, ledger, view, store)
            except FeaturePlatformError as error:
                failed = error
    if failed is not None:
        raise failed
