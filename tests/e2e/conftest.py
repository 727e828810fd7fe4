"""Fixtures of the small platform, for tests that need no more than one."""

from __future__ import annotations

from tiny_platform import tiny, tiny_template

__all__ = ["tiny", "tiny_template"]
