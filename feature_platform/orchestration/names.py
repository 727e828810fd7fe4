"""Names of assets, without Dagster, so that a command can speak of them quickly.

Rule: a name never depends on what else is declared, because runs and history hang on it: a second version of a view
changes nothing of the first one's. Version 1 has the bare name; later versions end in `_v<n>`.
"""

from __future__ import annotations

from feature_platform.domain.feature_service import FeatureService
from feature_platform.domain.feature_view import FeatureView, Source
from feature_platform.domain.training_set import DeclaredTrainingSet


def view_path(view: FeatureView) -> list[str]:
    """The asset of the view's published batches: `carrier_delays`, `carrier_delays_v2`."""
    return [view.name if view.version == 1 else f"{view.name}_v{view.version}"]


def online_path(view: FeatureView) -> list[str]:
    """The asset of the view's rows in the online store: `online/carrier_delays`."""
    return ["online", *view_path(view)]


def audit_path(view: FeatureView) -> list[str]:
    """The asset of the view's last leakage audit: `audit/carrier_delays`."""
    return ["audit", *view_path(view)]


def parity_path(view: FeatureView) -> list[str]:
    """The asset of the last comparison of the view's served rows: `parity/carrier_delays`."""
    return ["parity", *view_path(view)]


def pushed_path(view: FeatureView) -> list[str]:
    """The asset of the rows pushed to the view, in the lake: `pushed/carrier_delays`."""
    return ["pushed", *view_path(view)]


def source_path(source: Source) -> list[str]:
    """The asset of a source table, under dbt's two names for it: `nycflights13/flights`."""
    return source_path_of(source.unique_id)


def source_path_of(unique_id: str) -> list[str]:
    """The same, by dbt's unique id of the source."""
    return unique_id.split(".")[-2:]


def service_path(service: FeatureService) -> list[str]:
    """The asset that stands for a consumer: `service/departure_delay`."""
    return ["service", service.name]


def exposure_path(name: str) -> list[str]:
    """The asset of an exposure that is no feature service: `exposure/weekly_report`."""
    return ["exposure", name]


def feature_log_path() -> list[str]:
    """The asset of what was served, as clients logged it: `serving/served_features`."""
    return ["serving", "served_features"]


def maintenance_path() -> list[str]:
    """The asset of the tables' upkeep: `platform/maintenance`."""
    return ["platform", "maintenance"]


def training_set_path(declared: DeclaredTrainingSet) -> list[str]:
    """The asset of a declared training set: `training_set/departure_delay_flights`."""
    return ["training_set", declared.name]
