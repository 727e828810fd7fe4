"""The client for asyncio: the same requests and answers, a task waits where a thread would.

Rule: everything but the waiting is shared with `FeatureClient`. It is imported from here, since asyncio takes longer to
import than all of the client that does without:

    from feature_platform.online.aio import AsyncFeatureClient

    async with AsyncFeatureClient.from_env() as client:
        answer = await client.get_online_features("departure_delay", [{"carrier": "UA", ...}])
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

from feature_platform.online.aio_transport import AioTransport
from feature_platform.online.catalog import ViewDocument
from feature_platform.online.connection import Command
from feature_platform.online.feature_log import STREAM, FeatureLog, LogSettings
from feature_platform.online.hot import HotKey
from feature_platform.online.reading import Reading, utc_now
from feature_platform.online.request import Entities
from feature_platform.online.result import OnlineFeatures
from feature_platform.online.settings import OnlineSettings
from feature_platform.online.transport import Transport


class AsyncFeatureClient:
    """Reads features from the online store. Any number of tasks of one event loop may share it."""

    def __init__(
        self, settings: OnlineSettings, *, clock: Callable[[], datetime] = utc_now, log: LogSettings | None = None
    ) -> None:
        self._reading = Reading(settings, clock)
        self._transport = AioTransport(self._reading.store, settings.timeout_seconds)
        # the log has a thread and connections of its own: nothing of it waits on the event loop
        self._log_transport = Transport(self._reading.store, settings.timeout_seconds)
        self.log = FeatureLog(log, self._send_log) if log is not None else None
        """What becomes of the requests that are logged; None without `log`."""

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        log: LogSettings | None = None,
    ) -> Self:
        """A client of the store that the environment or the data directory names. Connects at the first request.

        Raises:
            ConfigurationError: the address is set nowhere, or malformed.
        """
        return cls(OnlineSettings.from_env(environ), clock=clock, log=log)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        timeout_seconds: float = 1.0,
        clock: Callable[[], datetime] = utc_now,
        log: LogSettings | None = None,
    ) -> Self:
        """A client of the store at this address, known to answer.

        Raises:
            ConfigurationError: the address is malformed.
            StoreUnavailableError: nothing answers there.
        """
        client = cls(OnlineSettings.parse(url, timeout_seconds=timeout_seconds), clock=clock, log=log)
        await client.ping()
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what waits to be logged, for a few seconds at most, and close all connections."""
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
        self._log_transport.close()
        await self._transport.close()

    async def ping(self) -> None:
        """Check that the store answers.

        Raises:
            StoreUnavailableError: it does not.
        """
        await self._transport.run(self._reading.ping())

    async def describe(self, service_or_refs: str | Iterable[str]) -> tuple[ViewDocument, ...]:
        """The views that a request would read; as `FeatureClient.describe`."""
        return await self._transport.run(self._reading.describe(service_or_refs))

    async def get_online_features(
        self,
        service_or_refs: str | Iterable[str],
        entities: Entities,
        *,
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> OnlineFeatures:
        """The features of these entities; arguments and errors as in `FeatureClient.get_online_features`."""
        asked = service_or_refs if isinstance(service_or_refs, str) else tuple(service_or_refs)
        answer = await self._transport.run(self._reading.get(asked, entities), timeout_seconds)
        if self.log is not None:
            answer.request_id = self.log.offer(asked, request_id, answer.requested_at, answer.logged_parts)
        return answer

    def hot_keys(self, view: str | None = None) -> tuple[HotKey, ...]:
        """The entities that this client is asked for most; as `FeatureClient.hot_keys`."""
        return self._reading.hot_keys(view)

    def _send_log(self, commands: Sequence[Command]) -> None:
        self._log_transport.run(self._reading.store.run([(STREAM.encode(), command) for command in commands]))
