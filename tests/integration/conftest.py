"""Fixtures of the integration tests."""

from __future__ import annotations

from tiny_platform import tiny, tiny_template
from used_platform import used

__all__ = ["tiny", "tiny_template", "used"]
