"""Metric families under the platform's prefix.

Rule: a family is told even when it has no sample, so that a scrape names everything that the exporter can say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

PREFIX: Final = "feature_platform_"

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, in the order of the labels, and the value."""


def gauge(name: str, help_: str, labels: Sequence[str], samples: Samples) -> Metric:
    """A value that goes up and down, or an instant."""
    family = GaugeMetricFamily(PREFIX + name, help_, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, help_: str, labels: Sequence[str], samples: Samples) -> Metric:
    """A total that only grows; Prometheus is told `name` with `_total`."""
    family = CounterMetricFamily(PREFIX + name, help_, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
