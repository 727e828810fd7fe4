"""What options of more than one command are given as."""

from __future__ import annotations

from datetime import datetime

import click


class Instant(click.ParamType):  # type: ignore[type-arg]
    """An instant of ISO 8601 that says its zone."""

    name = "instant"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it, or end as click ends a wrong call."""
        try:
            instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no instant of ISO 8601, e.g. 2026-03-05T12:00:00+00:00", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no time zone; write {instant.isoformat()}Z for UTC", param, ctx)
        return instant
