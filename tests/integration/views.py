"""A feature view for tests that need no dbt project."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from feature_platform.domain.feature_view import (
    Column,
    Expectation,
    FeatureView,
    FreshnessSla,
    LateData,
    LatePolicy,
    OnlineTier,
    Owner,
)
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def view_with(*expectations: Expectation) -> FeatureView:
    return FeatureView(
        name="carrier_delays",
        version=1,
        description="",
        entities=(Column(name="carrier", type=ColumnType.VARCHAR),),
        features=(
            Column(name="delay", type=ColumnType.DOUBLE),
            Column(name="flights", type=ColumnType.BIGINT),
            Column(name="Half", type=ColumnType.BIGINT),
            Column(name="seen_on", type=ColumnType.DATE),
        ),
        grain=Grain.DAY,
        begin=DAY,
        ttl=None,
        availability_delay=timedelta(minutes=90),
        late_data=LateData(policy=LatePolicy.RECOMPUTE, window=timedelta(days=7)),
        freshness=FreshnessSla(warn_after=None, error_after=None),
        online=OnlineTier.VALKEY,
        owner=Owner(name="ops", email="ops@example.com"),
        group="ops",
        access="public",
        tags=(),
        deprecation_date=None,
        sources=(),
        expectations=expectations,
        unique_id="model.tiny.carrier_delays.v1",
        table="carrier_delays_v1",
        sql_path="models/carrier_delays.sql",
        yaml_path="models/carrier_delays.yml",
        code_version="1",
    )
