"""Parity: is what the online store holds what the ledger derives?

Rule: a difference is counted whatever its cause; a cause is named only where store, ledger and lake prove it.
"""

from feature_platform.sync.parity.checking import Progress, check_parity, repair
from feature_platform.sync.parity.judging import Cause, Outcome
from feature_platform.sync.parity.report import Difference, ParityReport

__all__ = ["Cause", "Difference", "Outcome", "ParityReport", "Progress", "check_parity", "repair"]
