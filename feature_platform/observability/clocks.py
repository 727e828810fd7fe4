"""Machines whose clock is wrong, as one problem, however many they are.

Rule: the watch and whoever else judges age ask the ledger what time it is, so a wrong clock is told as what it is, and
not as views that seem stale, or fresh.
"""

from __future__ import annotations

from collections.abc import Iterator

from feature_platform.declaration import FeatureRegistry
from feature_platform.ledger import Ledger
from feature_platform.observability.kinds import Problem, problem_of_platform

_MOST_NAMED = 5


def find_wrong_clocks(ledger: Ledger, registry: FeatureRegistry) -> Iterator[Problem]:
    """The machines that refused to begin anything lately, and this one, if its clock is wrong."""
    ledger.look_at_clock()
    wrong = ledger.wrong_clocks()
    if not wrong:
        return
    more = f", and of {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
    yield problem_of_platform(
        "clock",
        "workers",
        registry,
        severity="error",
        message=f"{'; '.join(map(str, wrong[:_MOST_NAMED]))}{more}; nothing is computed, loaded or synced there",
    )
