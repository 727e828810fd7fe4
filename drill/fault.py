"""What a fault is: a small generator function. Up to its `yield` it injects, after it it heals.

    @fault("Valkey is killed", seen_by=("stopped valkey", "incident"), tells=())
    def valkey_down(drill: Drill) -> Iterator[None]:
        drill.stack.kill("valkey")

Yield:
        drill.stack.up()

Rule: it says beforehand by what it must be seen and whom that must reach; waiting and measuring is `running`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drill.running import Drill

FLIGHTS, AIRPORTS = "flight_operations", "airport_operations"
PLATFORM, CONSUMER = "platform", "delay_prediction"
Inject = Callable[["Drill"], Iterator[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of the drill."""

    name: str
    what: str
    seen_by: tuple[str, ...]
    """Beginnings of signals (see `signals`), any of which counts as detection."""
    tells: tuple[str, ...]
    """Receivers that must have been told by the time it is over."""
    within: timedelta
    """Time of the stack in which it must be seen, and in which all must be well again after healing."""
    inject: Inject


FAULTS: dict[str, Fault] = {}
"""All faults, in the order in which they are injected."""


def fault(
    what: str, *, seen_by: tuple[str, ...], tells: tuple[str, ...], within: timedelta = timedelta(hours=2)
) -> Callable[[Inject], Inject]:
    """Register a fault under the function's name."""

    def register(inject: Inject) -> Inject:
        name = inject.__name__
        FAULTS[name] = Fault(name=name, what=what, seen_by=seen_by, tells=tells, within=within, inject=inject)
        return inject

    return register
