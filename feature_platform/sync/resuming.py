"""Going on where a sync was ended: how far it got with the newest batch is kept in the store, beside the position.

Rule: what is noted is a fact about one plan and the rows of one batch, which never change: all rows up to this number
are acknowledged at the plan's position. It lies under the nonce, so a store that lost its data has lost the note as
well, and it is believed only by a sync that finishes the very same plan. A rebuild that was asked for writes all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

NOTE_SECONDS: Final = 1.0
"""So much work is repeated at most after a crash, and what was under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """How far a plan got."""

    from_position: int
    to_position: int
    layout_id: int
    batch_id: str
    next_row: int
    """All rows of the batch with smaller numbers are written."""

    def __str__(self) -> str:
        return f"{self.from_position} {self.to_position} {self.layout_id:08x} {self.batch_id} {self.next_row}"

    @classmethod
    def parse(cls, text: str) -> Unfinished | None:
        """What was noted; None if nothing was.

        >>> str(Unfinished.parse("0 7 038e23e2 b1 20000"))
        '0 7 038e23e2 b1 20000'
        """
        parts = text.split()
        if not parts:
            return None
        start, end, layout, batch_id, row = parts
        return cls(
            from_position=int(start),
            to_position=int(end),
            layout_id=int(layout, 16),
            batch_id=batch_id,
            next_row=int(row),
        )


class Notes:
    """Follows which rows are acknowledged, in whatever order, and notes up to which there is no gap."""

    def __init__(self, next_row: int, note: Callable[[int], object], *, clock: Callable[[], float]) -> None:
        self._next = next_row
        self._note = note
        self._clock = clock
        self._ahead: dict[int, int] = {}
        self._noted_at = clock()

    @classmethod
    def start(cls, next_row: int, note: Callable[[int], object]) -> Notes:
        """Notes of a plan that begins with this row."""
        return cls(next_row, note, clock=time.monotonic)

    def acknowledged(self, rows: range) -> None:
        """These rows are written."""
        self._ahead[rows.start] = rows.stop
        moved = False
        while (stop := self._ahead.pop(self._next, None)) is not None:
            self._next, moved = stop, True
        if moved and self._clock() - self._noted_at >= NOTE_SECONDS:
            self._note(self._next)
            self._noted_at = self._clock()
