"""Why something of Dagster's failed, in one line for a notice."""

from __future__ import annotations

from typing import Any

_LONGEST = 300


def reason(error: Any) -> str:
    """What an error that Dagster recorded began with; it knows its cause, and that may have one, too."""
    while error is not None and error.cause is not None:
        error = error.cause
    return one_line(error.message if error else "")


def one_line(text: str | None) -> str:
    """A message as a line that is not too long."""
    return " ".join((text or "").split())[:_LONGEST] or "no reason is known"
