"""Migrations have one number each."""

from __future__ import annotations

import pytest

from feature_platform.errors import ConfigurationError
from feature_platform.ledger.migrating import Migration, in_order, load_migrations


def test_ours_are_numbered_from_one_without_gaps() -> None:
    assert [one.version for one in load_migrations()] == [*range(1, len(load_migrations()) + 1)]


def test_two_of_one_number_are_refused() -> None:
    """Git merges two such files without a word."""
    with pytest.raises(ConfigurationError, match=r"number 0007[\s\S]*0007_a.sql and 0007_b.sql"):
        in_order(Migration(version=7, name=name, sql="") for name in ("0007_b.sql", "0007_a.sql"))
