"""What a caller asks of a point-in-time join: what would have been seen, or what was served, and with which outages."""

from __future__ import annotations

import enum

from feature_platform.domain.training_set import Mode
from feature_platform.errors import RequestError, chosen_from


def parse_mode(name: str) -> Mode:
    """The mode of this name.

    Raises:
        RequestError: there is none.
    """
    try:
        return Mode(name)
    except ValueError as error:
        raise RequestError(
            f"no point-in-time mode {str(name)!r}",
            allowed=chosen_from(Mode),
            hint='pass mode="auto": served where the view was live, modelled before',
        ) from error


class Outages(enum.StrEnum):
    """What is made of the times in which the store was lost; None: what it held then is unknown."""

    AS_RECORDED = "as_recorded"
    """They happened: labels in them are answered by the service's `outage` policy, also where they are modelled."""
    NEVER_HAPPENED = "never_happened"
    """Labels in them are modelled."""


def parse_outages(name: str | None, mode: str) -> Outages | None:
    """How outages are replayed.

    Raises:
        RequestError: there is no such way, or the mode does not replay any.
    """
    if name is None:
        return None
    if mode == Mode.SERVED:
        raise RequestError(
            "mode 'served' asks what the store held, outages included",
            found=f"outages={str(name)!r}",
            hint='leave `outages` out, or pass mode="auto"',
        )
    try:
        return Outages(name)
    except ValueError as error:
        raise RequestError(f"outages are not replayed {str(name)!r}", allowed=chosen_from(Outages)) from error
