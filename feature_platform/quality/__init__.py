"""Quality: profiles, the default suite of every view, and expectations under Great Expectations' names.

Rule: all of it judges exactly the rows of a batch. This is the only room that imports Great Expectations, and only
inside a call that has expectations to judge or to validate (importing it costs several seconds of CPU); profiles and
the default suite do without. Row rules belong in dbt data tests; here are distributions and volume.
"""

from __future__ import annotations

from feature_platform.quality.default_suite import judge_profiles, suite_of
from feature_platform.quality.earlier import load_earlier
from feature_platform.quality.history import BatchInHistory, FeatureInBatch, history_of, known_checks, verdict
from feature_platform.quality.judging import judge
from feature_platform.quality.profiling import profile_batches
from feature_platform.quality.rules import SUPPORTED, check_names
from feature_platform.quality.texts import drift_text, missing_text, number, range_text, said_of, value_of
from feature_platform.quality.validation import refuse_unjudgeable, validate_expectations
from feature_platform.quality.values import SAMPLES, sample

__all__ = [
    "SAMPLES",
    "SUPPORTED",
    "BatchInHistory",
    "FeatureInBatch",
    "check_names",
    "drift_text",
    "history_of",
    "judge",
    "judge_profiles",
    "known_checks",
    "load_earlier",
    "missing_text",
    "number",
    "profile_batches",
    "range_text",
    "refuse_unjudgeable",
    "said_of",
    "sample",
    "suite_of",
    "validate_expectations",
    "value_of",
    "verdict",
]
