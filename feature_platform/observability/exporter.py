"""The exporter: a long-lived process that reads ledger and store whenever Prometheus asks.

Rule: a part that does not answer is a metric (`feature_platform_part_up 0`), never a scrape that fails, and the other
part is told all the same. Nothing is cached between scrapes but connections: a view goes stale though nothing runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from feature_platform.declaration import load_registry
from feature_platform.errors import FeaturePlatformError
from feature_platform.ledger import Ledger
from feature_platform.observability.metrics import ledger_metrics, store_metrics, up_metric
from feature_platform.observability.store_meters import read_store_meters
from feature_platform.settings import Settings


class PlatformCollector(Collector):
    """Reads everything anew at each `collect`."""

    def __init__(self, settings: Settings, *, log: logging.Logger) -> None:
        self._settings = settings
        self._log = log

    def collect(self) -> Iterator[Metric]:
        """All metrics of this instant."""
        here = self._settings
        ledger = self._from_ledger()
        store = self._from_store()
        yield up_metric({("ledger", ""): ledger is not None, ("store", here.store): store is not None})
        yield from ledger or ()
        yield from store or ()

    def _from_ledger(self) -> list[Metric] | None:
        try:
            registry = load_registry(self._settings.manifest_path)
            with Ledger.connect(self._settings.ledger_url) as ledger:
                # read whole: half of it, and then an error, would look like views that vanished
                return list(ledger_metrics(ledger, registry, store=self._settings.store, now=ledger.now()))
        except (FeaturePlatformError, OSError) as error:
            self._log.warning("the ledger could not be read: %s", error)
            return None

    def _from_store(self) -> list[Metric] | None:
        try:
            meters = read_store_meters(self._settings.valkey_url)
        except FeaturePlatformError as error:  # a wrong password or address, too: the ledger is told all the same
            self._log.warning("the online store could not be read: %s", error)
            return None
        return list(store_metrics(meters, store=self._settings.store))
