"""The feature log as metrics: what waits in the store, what was taken over, and what is missing and why.

Rule: the store of this exporter has its series from the first scrape on, with zeros, so that the first request that is
lost is an increase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import Metric

from feature_platform.ledger import DrainTotals
from feature_platform.observability.families import counter, gauge
from feature_platform.observability.store_meters import StoreMeters


def waiting_metrics(meters: StoreMeters, *, store: str) -> Iterator[Metric]:
    """What lies in the store and is not in the lake yet."""
    yield gauge(
        "log_waiting_entries", "Logged requests that were not drained yet", ("store",), [((store,), meters.log_entries)]
    )
    yield gauge(
        "log_oldest_waiting_timestamp_seconds",
        "When the oldest request that was not drained yet was logged; 0 if none waits",
        ("store",),
        [((store,), meters.log_oldest_at)],
    )


def log_metrics(drained: Sequence[DrainTotals], *, store: str) -> Iterator[Metric]:
    """What drains took over, as the ledger counts it."""
    known = {one.store: one for one in drained}
    stores = sorted({*known, store})
    for name, help_, field in (
        ("log_drained_entries", "Logged requests that were brought to the lake", "entries"),
        ("log_drained_rows", "Rows of them: one per request, view and entity", "rows"),
    ):
        yield counter(name, help_, ("store",), [((one,), getattr(known.get(one), field, 0)) for one in stores])
    yield counter(
        "log_missing_entries",
        "Requests that are not in the lake: lost to the cap, dropped by clients, or unreadable",
        ("store", "reason"),
        [
            ((one, reason), getattr(known.get(one), reason, 0))
            for one in stores
            for reason in ("lost", "dropped", "unreadable")
        ],
    )
    yield gauge(
        "log_drained_timestamp_seconds",
        "When a drain last took anything over",
        ("store",),
        [((one.store,), one.last_drained_at.timestamp()) for one in drained],
    )
