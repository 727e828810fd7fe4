"""On how many examples a property is tried: enough for each change in CI, ten times as many in a nightly run.

HYPOTHESIS_PROFILE=thorough .venv/bin/python -m pytest tests/property

Corpora against which wrong code is held (the mutants) are of one size in both: each mutant must be caught in CI.
"""

from __future__ import annotations

import os

from hypothesis import settings

_TIMES = {"default": 1, "thorough": 10}
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")


def examples(count: int) -> int:
    """The `max_examples` of a property that needs so many in CI."""
    return count * _TIMES[_PROFILE]


settings.register_profile("thorough", max_examples=examples(settings.get_profile("default").max_examples))
settings.load_profile(_PROFILE)
