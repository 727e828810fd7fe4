"""What was served, logged: off the path of the request, into a capped stream of the online store.

Rule: logging never slows, fails or outgrows serving. A request leaves references to the bytes it was answered with in a
bounded queue; a thread encodes and sends them. What does not fit is dropped and counted, and the count is logged.

    with FeatureClient.from_env(log=LogSettings(values=0.1)) as client:
        answer = client.get_online_features("departure_delay", entities, request_id="order-17")
        client.log.counts()
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from feature_platform.errors import ConfigurationError, FeaturePlatformError, RequestError, StoreUnavailableError
from feature_platform.online.connection import Command
from feature_platform.online.forks import Forks
from feature_platform.online.keys import PREFIX
from feature_platform.online.log_format import CLIENT_BYTES, LogEntry, LoggedView, text_bytes

if TYPE_CHECKING:
    from feature_platform.online.writable import DocumentStore

STREAM: Final = PREFIX + "log"
FIELD: Final = "e"
_ENTRIES_PER_SEND: Final = 200
_SECONDS_BETWEEN_SENDS: Final = 0.05
_SECONDS_TO_CLOSE: Final = 5.0
_ID_BYTES: Final = 12
_UNITS: Final = 1 << 32
_MOST_DROPPED: Final = (1 << 32) - 1

Send = Callable[[Sequence[Command]], object]
"""Runs commands against the online store."""
Part = tuple[str, Sequence[bytes], Sequence[bytes | None]]
"""A view, the keys that were read of it (`view@1:{key}`), and what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how much of it may wait or lie in the store."""

    values: float = 1.0
    """Share of requests whose values are logged whole; of the others only which row was served. By the request's id,
    so that all clients choose the same."""
    waiting_values: int = 100_000
    """Values that may wait to be sent; beyond that requests are dropped."""
    stream_entries: int = 1_000_000
    """About so many requests stay in the store; the oldest make room, drained or not."""

    def __post_init__(self) -> None:
        if not 0 <= self.values <= 1 or self.waiting_values < 1 or self.stream_entries < 1:
            raise ConfigurationError(
                "the settings of the feature log are impossible",
                found=str(self),
                allowed="values from 0 to 1, the others from 1",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCounts:
    """What became of the requests of one client."""

    logged: int
    """Acknowledged by the store."""
    waiting: int
    dropped: int
    """No room to wait, or refused by the store."""
    error: str
    """Why the last attempt to send failed; empty if it did not."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One request that is still to be encoded."""

    asked: str | tuple[str, ...]
    request_id: str
    at: datetime
    parts: Sequence[Part]
    weight: int


class FeatureLog:
    """The log of one client. Thread-safe and fork-safe: a forked child logs its own requests only."""

    def __init__(self, settings: LogSettings, send: Send) -> None:
        self._settings = settings
        self._send = send
        self._begin()

    def _begin(self) -> None:
        self._forks = Forks.count
        self._client = os.urandom(CLIENT_BYTES)
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._weight = self._number = self._logged = self._dropped = self._dropped_told = 0
        self._error = ""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        # encoded and sent at least once, not acknowledged: sent again, by the same number
        self._unsure: list[Command] = []
        self._in_flight = 0

    def offer(self, asked: str | tuple[str, ...], request_id: str | None, at: datetime, parts: Sequence[Part]) -> str:
        """Log one request, if there is room; the request's id, which is made if there is none.

        Raises:
            RequestError: the id is no text.
        """
        if self._forks != Forks.count:
            self._begin()
        if request_id is None:
            request_id = os.urandom(_ID_BYTES).hex()
        elif not isinstance(request_id, str):
            raise RequestError(
                "a request id is a text", found=repr(request_id), allowed="a str, or None to have one made"
            )
        weight = sum([len(keys) for _, keys, _ in parts])
        with self._lock:
            # a request larger than the whole queue is taken when nothing else waits
            if self._waiting and self._weight + weight > self._settings.waiting_values:
                self._dropped += 1
                return request_id
            self._weight += weight
            self._waiting.append(_Waiting(asked, request_id, at, parts, weight))
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="feature-log", daemon=True)
                self._thread.start()
        return request_id

    def counts(self) -> LogCounts:
        """What became of the requests so far."""
        with self._lock:
            return LogCounts(
                logged=self._logged,
                waiting=len(self._waiting) + self._in_flight,
                dropped=self._dropped,
                error=self._error,
            )

    def close(self) -> None:
        """Send what waits, for a few seconds at most; what is left then is dropped and counted."""
        if self._forks != Forks.count:
            return
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_SECONDS_TO_CLOSE)
        with self._lock:
            self._dropped += len(self._waiting) + self._in_flight
            self._waiting.clear()
            self._unsure, self._in_flight = [], 0

    def _run(self) -> None:
        while True:
            closing = self._closing.wait(_SECONDS_BETWEEN_SENDS)
            # all that waits, then a pause; where the store does not answer, one attempt per pause
            while self._flush():
                pass
            if closing:
                return

    def _flush(self) -> bool:
        """Send one batch; False if nothing waits or the store does not take it now."""
        if not self._unsure:
            with self._lock:
                taken = [self._waiting.popleft() for _ in range(min(_ENTRIES_PER_SEND, len(self._waiting)))]
                self._weight -= sum(one.weight for one in taken)
                dropped, self._dropped_told = self._dropped - self._dropped_told, self._dropped
                self._in_flight = len(taken)
            if not taken:
                return False
            self._unsure = [*self._encode(taken, dropped)]
        try:
            self._send(self._unsure)
        except StoreUnavailableError as error:
            self._error = str(error)
            return False
        except FeaturePlatformError as error:  # it would be refused again
            self._settle(str(error), dropped=True)
            return True
        self._settle("", dropped=False)
        return True

    def _settle(self, error: str, *, dropped: bool) -> None:
        with self._lock:
            self._error = error
            if dropped:
                self._dropped += self._in_flight
            else:
                self._logged += self._in_flight
            self._unsure, self._in_flight = [], 0

    def _encode(self, taken: Iterable[_Waiting], dropped: int) -> Iterable[Command]:
        for one in taken:
            entry = LogEntry(
                client=self._client,
                number=self._number,
                dropped=min(dropped, _MOST_DROPPED),
                requested_at=one.at,
                request_id=one.request_id,
                asked=one.asked if isinstance(one.asked, str) else ",".join(one.asked),
                is_whole=zlib.crc32(text_bytes(one.request_id)) < self._settings.values * _UNITS,
                views=tuple(
                    # behind `view@1:{`, before `}`
                    LoggedView(view=view, keys=[key[len(view) + 2 : -1] for key in keys], values=values)
                    for view, keys, values in one.parts
                ),
            )
            self._number, dropped = self._number + 1, 0
            yield ("XADD", STREAM, "MAXLEN", "~", self._settings.stream_entries, "*", FIELD, entry.encode())


def waiting_entries(store: DocumentStore) -> int:
    """How many requests lie in the store, to be drained."""
    return int(store.call("XLEN", STREAM))
