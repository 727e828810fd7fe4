"""The client: features of entities, in one round trip.

Rule: a value is judged by its event time and the client's clock, never by what Valkey's expiry has or has not removed.

    with FeatureClient.from_env() as client:
        answer = client.get_online_features("departure_delay", [{"carrier": "UA", "origin": "EWR", "dest": "SFO"}])
        answer[0].values["dep_delay_mean_7d"], answer[0].views["carrier_delays@1"].status
        answer.to_columns(), answer.to_arrow()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

from feature_platform.online.catalog import ViewDocument
from feature_platform.online.connection import Command
from feature_platform.online.feature_log import STREAM, FeatureLog, LogSettings
from feature_platform.online.hot import HotKey
from feature_platform.online.reading import Reading, utc_now
from feature_platform.online.request import Entities
from feature_platform.online.result import OnlineFeatures
from feature_platform.online.settings import OnlineSettings
from feature_platform.online.transport import Transport


class FeatureClient:
    """Reads features from the online store. Thread-safe, fork-safe; close it, or use it as a context manager."""

    def __init__(
        self, settings: OnlineSettings, *, clock: Callable[[], datetime] = utc_now, log: LogSettings | None = None
    ) -> None:
        self._reading = Reading(settings, clock)
        self._transport = Transport(self._reading.store, settings.timeout_seconds)
        # connections of its own: what is logged never waits for what is served, nor the other way round
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

        With `log`, what is served is logged (docs/reference/feature-log.md).

        Raises:
            ConfigurationError: the address is set nowhere, or malformed.
        """
        return cls(OnlineSettings.from_env(environ), clock=clock, log=log)

    @classmethod
    def connect(
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
        client.ping()
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send what waits to be logged, for a few seconds at most, and close all connections."""
        if self.log is not None:
            self.log.close()
        self._log_transport.close()
        self._transport.close()

    def ping(self) -> None:
        """Check that the store answers.

        Raises:
            StoreUnavailableError: it does not.
        """
        self._transport.run(self._reading.ping())

    def describe(self, service_or_refs: str | Iterable[str]) -> tuple[ViewDocument, ...]:
        """The views that a request would read: their entities, features, ttl and promised freshness.

        Raises:
            UnknownNameError: a service, view or feature is unknown.
            StoreUnavailableError: the store cannot be reached.
        """
        return self._transport.run(self._reading.describe(service_or_refs))

    def get_online_features(
        self,
        service_or_refs: str | Iterable[str],
        entities: Entities,
        *,
        request_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> OnlineFeatures:
        """The features of these entities.

        Args:
            service_or_refs: a feature service, or references `view`, `view:feature`, `view@2`, `view@2:feature`.
            entities: a dict per entity, or a dict of columns; every view's key columns and nothing else.
            request_id: under which the request is logged, if the client logs (default: one is made).
            timeout_seconds: deadline of this call, connecting and trying again included (default: the client's).

        Raises:
            UnknownNameError: a service, view or feature is unknown.
            EntityError: a key column is missing, unexpected, null or of the wrong type.
            StoreUnavailableError: the store cannot be reached or did not answer in time.
            UnusableFeaturesError: values are stale, expired or missing, and the service declares `raise` for that.
            CorruptValueError: a value cannot be read.
            TimestampError: the client's clock has no time zone.
        """
        asked = service_or_refs if isinstance(service_or_refs, str) else tuple(service_or_refs)
        answer = self._transport.run(self._reading.get(asked, entities), timeout_seconds)
        if self.log is not None:
            answer.request_id = self.log.offer(asked, request_id, answer.requested_at, answer.logged_parts)
        return answer

    def hot_keys(self, view: str | None = None) -> tuple[HotKey, ...]:
        """The entities that this client is asked for most, from a sample; of one view (`name@version`) or of all."""
        return self._reading.hot_keys(view)

    def _send_log(self, commands: Sequence[Command]) -> None:
        self._log_transport.run(self._reading.store.run([(STREAM.encode(), command) for command in commands]))
