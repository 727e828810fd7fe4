"""Drives exchanges over sockets: pooled connections of one process, one thread at a time each.

Rule: every exchange has a deadline, and what holds a connection gives it back or closes it. After a fork the child
starts with empty pools: it closes its copies of the parent's sockets without a word.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from feature_platform.errors import ConfigurationError, StoreUnavailableError
from feature_platform.online.connection import ClosedByServerError, Connection
from feature_platform.online.exchange import Call, Outcome, Pause, Steps, Store
from feature_platform.online.forks import Forks

IDLE_CONNECTIONS: Final = 64
"""Connections kept per node; a process with more threads opens more, and closes them when they come back."""

T = TypeVar("T")


class Transport:
    """The connections of one client. Thread-safe: what threads share is changed by single operations only."""

    def __init__(self, store: Store, timeout_seconds: float) -> None:
        self._store = store
        self._patience = store.patience
        self._timeout_seconds = timeout_seconds
        self._forks = Forks.count
        self._idle: dict[str, list[Connection]] = {}
        self._closed = False

    def run(self, steps: Steps[T], timeout_seconds: float | None = None) -> T:
        """Drive an exchange to its end.

        Raises:
            StoreUnavailableError: a server cannot be reached, or did not answer in time.
            FeaturePlatformError: whatever the exchange raises.
        """
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + timeout
        patience = timeout * self._patience
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    step = steps.send(_pause(step, deadline))
                elif len(step) == 1:
                    step = steps.send((self._call(step[0], deadline, patience),))
                else:
                    step = steps.send(self._scatter(step, deadline, patience))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def close(self) -> None:
        """Close the idle connections now, and those in use when they come back."""
        self._closed = True
        self._after_fork()
        for node in list(self._idle):
            self._clear(node)

    def _call(self, call: Call, deadline: float, patience: float) -> Outcome:
        node, payload, count = call
        limit = min(deadline, time.monotonic() + patience)
        try:
            connection = self._take(node, limit)
        except StoreUnavailableError as error:
            return error
        try:
            connection.start(payload, limit - time.monotonic())
            replies = connection.finish(count, limit)
        except StoreUnavailableError as error:
            connection.close()
            self._forget(node, error)
            return error
        except BaseException:
            connection.close()  # a reply may be outstanding
            raise
        self._give_back(node, connection)
        return replies

    def _scatter(self, calls: Sequence[Call], deadline: float, patience: float) -> list[Outcome]:
        """Send to all nodes, then read from all: they work side by side."""
        limit = min(deadline, time.monotonic() + patience)
        outcomes: list[Any] = []
        under_way: list[Connection] = []
        try:
            for node, payload, _ in calls:
                try:
                    connection = self._take(node, limit)
                    under_way.append(connection)
                    connection.start(payload, limit - time.monotonic())
                    outcomes.append(connection)
                except StoreUnavailableError as error:
                    self._forget(node, error)
                    outcomes.append(error)
            for i, (node, _, count) in enumerate(calls):
                if not isinstance(connection := outcomes[i], Connection):
                    continue
                try:
                    outcomes[i] = connection.finish(count, limit)
                except StoreUnavailableError as error:
                    self._forget(node, error)
                    outcomes[i] = error
                    continue
                under_way.remove(connection)
                self._give_back(node, connection)
        finally:
            for connection in under_way:  # whose replies were not all read
                connection.close()
        return outcomes

    def _take(self, node: str, limit: float) -> Connection:
        if self._forks != Forks.count:
            self._after_fork()
        if self._closed:
            raise ConfigurationError("this client is closed", hint="connect again")
        idle = self._idle.get(node)
        if idle:
            try:
                return idle.pop()
            except IndexError:  # another thread was faster
                pass
        address, read_only = self._store.address(node)
        return Connection(address, max(limit - time.monotonic(), 1e-3), read_only=read_only)

    def _give_back(self, node: str, connection: Connection) -> None:
        idle = self._idle.setdefault(node, [])
        if self._closed or connection.forks != Forks.count or len(idle) >= IDLE_CONNECTIONS:
            connection.close()
            return
        idle.append(connection)
        if self._closed:  # meanwhile
            self._clear(node)

    def _forget(self, node: str, error: StoreUnavailableError) -> None:
        if isinstance(error, ClosedByServerError):
            self._clear(node)

    def _clear(self, node: str) -> None:
        for connection in self._idle.pop(node, []):
            connection.close()

    def _after_fork(self) -> None:
        if self._forks == Forks.count:
            return
        self._forks = Forks.count
        for node in list(self._idle):
            self._clear(node)


def _pause(pause: Pause, deadline: float) -> bool:
    if time.monotonic() + pause.seconds >= deadline:
        return False
    time.sleep(pause.seconds)
    return True
