"""A feature view: one dbt model, and everything the platform derives from its declaration."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from feature_platform.domain.quality_rules import QualityRules
from feature_platform.domain.retention import Retention
from feature_platform.domain.types import ColumnType, FeatureType, usual_bytes
from feature_platform.domain.windows import Grain

EVENT_TIMESTAMP = "event_timestamp"
"""Name of the column every feature view has: the instant as of which a row is true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """An entity key or a feature: name, type and what it means."""

    name: str
    type: FeatureType
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who answers for a view or a service: a dbt group or an exposure's owner."""

    name: str
    email: str
    routes: tuple[str, ...] = ()
    """Where alerts go: Apprise URLs, as written (they may name environment variables as `${NAME}`)."""
    remind_after: timedelta | None = None
    """How long a problem may stay open before it is told again, to the routes of escalation as well."""
    escalation_routes: tuple[str, ...] = ()

    @property
    def contact(self) -> str:
        """The e-mail address; without one, the name."""
        return self.email or self.name


class LatePolicy(enum.StrEnum):
    """What happens when source rows arrive for a partition that was computed already."""

    RECOMPUTE = "recompute"
    VERSION = "version"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class LateData:
    """Late-data policy, and how far back it reaches."""

    policy: LatePolicy
    window: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessSla:
    """How old the newest served `event_timestamp` may be. Either bound may be absent."""

    warn_after: timedelta | None
    error_after: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dbt source that a view reads, directly or through staging models."""

    unique_id: str
    name: str
    schema: str
    table: str
    loaded_at_field: str
    event_time: str | None
    reporting_lag: timedelta
    """How long after its event time a row may take to reach us and still be on time."""
    freshness: FreshnessSla = FreshnessSla(warn_after=None, error_after=None)
    """How old the newest row that reached us may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One expectation under Great Expectations' own name and arguments."""

    type: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    severity: str = "error"
    """`error` blocks publishing, `warn` is recorded."""


class OnlineTier(enum.StrEnum):
    """Where a view is served from."""

    NONE = "none"
    VALKEY = "valkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView:
    """One version of a feature view, as declared. Immutable; two runs with the same `code_version` run the same SQL."""

    name: str
    version: int
    description: str
    entities: tuple[Column, ...]
    features: tuple[Column, ...]
    grain: Grain
    begin: datetime
    ttl: timedelta | None
    availability_delay: timedelta
    late_data: LateData
    freshness: FreshnessSla
    online: OnlineTier
    owner: Owner
    group: str
    access: str
    tags: tuple[str, ...]
    deprecation_date: date | None
    sources: tuple[Source, ...]
    expectations: tuple[Expectation, ...]
    unique_id: str
    """dbt's unique id of the model, e.g. `model.flights.carrier_delays.v1`."""
    table: str
    """Name of the physical table in the lake's schema `batches`."""
    sql_path: str
    yaml_path: str
    code_version: str
    """Hash over the SQL and the declaration of the model and of everything upstream of it, and the macros it uses."""
    retention: Retention = field(default_factory=Retention)
    push: bool = False
    """Whether fresher rows than those of the batches may be pushed to the online store."""
    quality: QualityRules = field(default_factory=QualityRules)

    @property
    def key(self) -> str:
        """`name@version`: the identity in the ledger, the online store and in feature references."""
        return f"{self.name}@{self.version}"

    @property
    def is_served(self) -> bool:
        """Whether its rows are brought to the online stores."""
        return self.online is not OnlineTier.NONE

    @property
    def entity_names(self) -> tuple[str, ...]:
        """Names of the key columns, in key order."""
        return tuple(column.name for column in self.entities)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in declared order."""
        return tuple(column.name for column in self.features)

    @property
    def row_bytes(self) -> int:
        """About how many bytes a row takes in memory: what is read or written at once is bounded by it."""
        types = (ColumnType.TIMESTAMPTZ, *(column.type for column in (*self.entities, *self.features)))
        return sum(map(usual_bytes, types))
