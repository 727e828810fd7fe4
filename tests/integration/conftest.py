"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster_support import Cluster, running_cluster
from tiny_platform import tiny, tiny_template
from used_platform import used

__all__ = ["cluster", "tiny", "tiny_template", "used"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three primaries and their replicas; whoever ends one starts it again."""
    with running_cluster() as cluster:
        yield cluster
