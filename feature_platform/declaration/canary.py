"""The canary: a feature view of the platform's own, with one entity for each online store.

Rule: it is declared here and in no project. No registry that a project makes holds it, so no listing, schedule, asset,
training set or bill of a project shows it; only what writes, syncs, reads and maintains it asks for it by name.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from feature_platform.declaration.registry import FeatureRegistry
from feature_platform.domain.feature_view import (
    Column,
    FeatureView,
    FreshnessSla,
    LateData,
    LatePolicy,
    OnlineTier,
)
from feature_platform.domain.retention import Retention
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain

NAME: Final = "feature_platform_canary"
"""Reserved: `validate` refuses a model of this name."""
VERSION: Final = 1
"""Another one whenever a column or type below changes: within a version, tables and layouts stay."""
KEY: Final = f"{NAME}@{VERSION}"

TTL: Final = timedelta(hours=1)
WARN_AFTER: Final = timedelta(minutes=15)


def canary_view(registry: FeatureRegistry) -> FeatureView:
    """The view, owned by the people of the platform."""
    return FeatureView(
        name=NAME,
        version=VERSION,
        description="Values that the platform writes, syncs and reads to see that this works.",
        entities=(Column(name="store", type=ColumnType.VARCHAR, description="Name of an online store."),),
        features=(
            Column(name="number", type=ColumnType.BIGINT, description="Number of the batch in the ledger."),
            Column(name="fraction", type=ColumnType.DOUBLE, description="Drawn at random."),
            Column(name="token", type=ColumnType.VARCHAR, description="Drawn at random."),
            Column(name="written_at", type=ColumnType.TIMESTAMPTZ, description="When, by the ledger's clock."),
            Column(name="nothing", type=ColumnType.DOUBLE, description="Always NULL."),
        ),
        grain=Grain.DAY,
        begin=datetime(2026, 1, 1, tzinfo=UTC),
        ttl=TTL,
        availability_delay=timedelta(0),
        late_data=LateData(policy=LatePolicy.IGNORE, window=timedelta(0)),
        freshness=FreshnessSla(warn_after=WARN_AFTER, error_after=None),
        online=OnlineTier.VALKEY,
        owner=registry.platform,
        group=registry.platform.name,
        access="private",
        tags=(),
        deprecation_date=None,
        sources=(),
        expectations=(),
        unique_id=f"canary.{KEY}",
        table=f"{NAME}_v{VERSION}",
        sql_path="",
        yaml_path="",
        code_version=f"canary-{VERSION}",
        retention=Retention(superseded=timedelta(days=1)),
    )


def with_canary(registry: FeatureRegistry) -> FeatureRegistry:
    """The registry and the canary: for what writes to the lake and to online stores, never for what lists."""
    view = canary_view(registry)
    return replace(registry, views={**registry.views, view.key: view}, latest={**registry.latest, NAME: VERSION})
