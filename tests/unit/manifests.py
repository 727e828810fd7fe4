"""A small, valid manifest as dbt 1.11 writes it, for tests to bend."""

from __future__ import annotations

import copy
from typing import Any

Manifest = dict[str, Any]

DELAYS = "model.flights.carrier_delays.v1"
WEATHER = "model.flights.airport_weather.v1"
STAGING = "model.flights.stg_flights"
FLIGHTS = "source.flights.raw.flights"
SERVICE = "exposure.flights.departure_delay"


def column(name: str, data_type: str | None, description: str = "what it means") -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "description": description, "constraints": []}


def view_model(
    name: str, *, entities: dict[str, str], features: dict[str, str], version: Any = 1, **meta: Any
) -> dict[str, Any]:
    columns = [column(*pair) for pair in entities.items()]
    columns += [column("event_timestamp", "timestamptz"), *(column(*pair) for pair in features.items())]
    return {
        "unique_id": f"model.flights.{name}.v{version}",
        "name": name,
        "resource_type": "model",
        "package_name": "flights",
        "language": "sql",
        "fqn": ["flights", "feature_views", name, f"v{version}"],
        "original_file_path": f"models/feature_views/{name}.sql",
        "patch_path": f"flights://models/feature_views/{name}.yml",
        "schema": "batches",
        "alias": f"{name}_v{version}",
        "version": version,
        "latest_version": version,
        "deprecation_date": None,
        "description": "what the features are about",
        "access": "public",
        "group": "operations",
        "tags": [],
        "raw_code": "select {{ rolling('avg(x)', '7 days') }} from {{ feature_rows(ref('stg_flights')) }}",
        "depends_on": {"macros": ["macro.flights.rolling", "macro.dbt.ref"], "nodes": [STAGING]},
        "columns": {item["name"]: item for item in columns},
        "config": {
            "materialized": "incremental",
            "incremental_strategy": "batch_append",
            "on_schema_change": "append_new_columns",
            "full_refresh": False,
            "contract": {"enforced": True},
            "batch_size": "day",
            "begin": "2013-01-01",
            "event_time": "event_timestamp",
            "group": "operations",
            "meta": {
                "feature_view": {
                    "entities": [*entities],
                    "ttl": "3 days",
                    "availability_delay": "90 minutes",
                    "late_data": {"policy": "recompute", "window": "7 days"},
                    "freshness": {"warn_after": "26 hours", "error_after": {"count": 50, "period": "hour"}},
                    "online": "valkey",
                    **meta,
                }
            },
        },
    }


def macro(name: str, sql: str, *, package: str = "flights", uses: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "name": name,
        "unique_id": f"macro.{package}.{name}",
        "package_name": package,
        "macro_sql": sql,
        "depends_on": {"macros": [*uses]},
    }


def manifest(*extra_models: dict[str, Any]) -> Manifest:
    models = [
        view_model(
            "carrier_delays",
            entities={"carrier": "varchar"},
            features={"flights_7d": "bigint", "dep_delay_mean_7d": "double"},
            expectations=[
                {"ExpectTableRowCountToBeBetween": {"min_value": 1}},
                {"ExpectColumnMeanToBeBetween": {"column": "dep_delay_mean_7d", "max_value": 240, "severity": "warn"}},
            ],
        ),
        view_model("airport_weather", entities={"origin": "varchar"}, features={"temperature_f": "double"}),
        {
            "unique_id": STAGING,
            "name": "stg_flights",
            "resource_type": "model",
            "package_name": "flights",
            "fqn": ["flights", "staging", "stg_flights"],
            "original_file_path": "models/staging/stg_flights.sql",
            "schema": "staging",
            "alias": "stg_flights",
            "raw_code": "select * from {{ source('raw', 'flights') }}",
            "depends_on": {"macros": [], "nodes": [FLIGHTS]},
            "config": {"materialized": "view", "meta": {}},
            "columns": {},
        },
        *extra_models,
    ]
    macros = [
        macro("rolling", "{{ window() }}", uses=("macro.flights.window",)),
        macro("window", "interval"),
        macro("unused", "nothing"),
        macro("get_incremental_batch_append_sql", "insert"),
        macro("ref", "of dbt", package="dbt"),
    ]
    return copy.deepcopy(
        {
            "metadata": {
                "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
                "dbt_version": "1.11.16",
                "adapter_type": "duckdb",
                "generated_at": "2026-03-01T10:00:00.000000Z",
            },
            "nodes": {model["unique_id"]: model for model in models},
            "sources": {
                FLIGHTS: {
                    "unique_id": FLIGHTS,
                    "name": "flights",
                    "source_name": "raw",
                    "resource_type": "source",
                    "package_name": "flights",
                    "original_file_path": "models/sources.yml",
                    "patch_path": None,
                    "schema": "sources",
                    "identifier": "flights",
                    "loaded_at_field": "ingested_at",
                    "columns": {},
                    "config": {"event_time": "known_at", "meta": {"feature_source": {"reporting_lag": "20 minutes"}}},
                }
            },
            "macros": {item["unique_id"]: item for item in macros},
            "exposures": {
                SERVICE: {
                    "unique_id": SERVICE,
                    "name": "departure_delay",
                    "type": "ml",
                    "package_name": "flights",
                    "original_file_path": "models/exposures.yml",
                    "description": "will it leave late?",
                    "owner": {"name": "Prediction", "email": "prediction@example.com"},
                    "depends_on": {"macros": [], "nodes": [WEATHER, DELAYS]},
                    "config": {
                        "meta": {
                            "feature_service": {
                                "features": {"carrier_delays": ["dep_delay_mean_7d"], "airport_weather": "all"},
                                "latency_budget": "20 ms",
                                "batch_size": 100,
                                "freshness": "3 hours",
                            }
                        }
                    },
                }
            },
            "groups": {
                "group.flights.operations": {
                    "unique_id": "group.flights.operations",
                    "name": "operations",
                    "original_file_path": "models/groups.yml",
                    "owner": {"name": "Operations", "email": "operations@example.com"},
                    "config": {"meta": {"routes": ["${OPERATIONS_URL}"]}},
                }
            },
        }
    )


def feature_view(content: Manifest, unique_id: str = DELAYS) -> dict[str, Any]:
    """The view's `meta.feature_view`, to be changed in place."""
    section: dict[str, Any] = content["nodes"][unique_id]["config"]["meta"]["feature_view"]
    return section


def config(content: Manifest, unique_id: str = DELAYS) -> dict[str, Any]:
    found: dict[str, Any] = content["nodes"][unique_id]["config"]
    return found
