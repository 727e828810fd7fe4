"""From the platform's errors to Dagster's: what may succeed later is asked for again, everything else fails at once.

Rule: by the type `Transient`, never by name or message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from feature_platform.errors import FeaturePlatformError, Transient

MAX_RETRIES = 5
SECONDS_TO_WAIT = 30.0


@contextmanager
def dagster_failures() -> Iterator[None]:
    """Raise Dagster's `RetryRequested` for transient errors of the platform and a final `Failure` for the others."""
    try:
        yield
    except FeaturePlatformError as error:
        if isinstance(error, Transient):
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=SECONDS_TO_WAIT) from error
        raise dg.Failure(
            description=str(error),
            metadata={
                name: text
                for name, text in (("found", error.found), ("allowed", error.allowed), ("next", error.hint))
                if text
            },
            allow_retries=False,
        ) from error
