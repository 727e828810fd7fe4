"""Quality: expectations under Great Expectations' names, judged on exactly the rows of a batch.

Rule: this is the only room that imports Great Expectations, and only inside a call that has something to judge
(importing it costs several seconds of CPU). Row rules belong in dbt data tests; here are distributions and volume.
"""

from __future__ import annotations

from feature_platform.quality.judging import judge
from feature_platform.quality.rules import SUPPORTED, check_names, find_problems, refuse_unjudgeable
from feature_platform.quality.validation import validate_expectations

__all__ = ["SUPPORTED", "check_names", "find_problems", "judge", "refuse_unjudgeable", "validate_expectations"]
