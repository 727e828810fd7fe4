"""What Dagster is given: names that must not change by accident, schedules, and what loading costs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from feature_platform.declaration import load_registry
from feature_platform.declaration.manifest import load_manifest
from feature_platform.domain.feature_view import FreshnessSla, OnlineTier
from feature_platform.ledger import Ledger
from feature_platform.materialization.dbt_parse import parse
from feature_platform.orchestration import build_definitions, keys
from feature_platform.orchestration.freshness import build_freshness_sensor, native_freshness
from feature_platform.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[2]
LOADED_LAZILY = (
    "dbt",
    "duckdb",
    "great_expectations",
    "pandas",
    "numpy",
    "pyarrow",
    "psycopg2",
    "sqlglot",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data directory with the real project's manifest; nothing runs."""
    home = tmp_path_factory.mktemp("home")
    parse(PROJECT / "dbt_project", home / "dbt")
    return home


@pytest.fixture(scope="module")
def environ(home):
    return {
        PREFIX + "PROJECT": str(PROJECT),
        PREFIX + "HOME": str(home),
        PREFIX + "LEDGER_URL": "postgresql://nowhere/ledger",
        PREFIX + "LAKE_CATALOG": "dbname=nowhere",
        PREFIX + "LAKE_DATA": str(home / "lake"),
        PREFIX + "VALKEY_URL": "valkey://nowhere",
    }


@pytest.fixture(scope="module")
def repository(environ) -> dg.RepositoryDefinition:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        from feature_platform.definitions import defs

        return defs().get_repository_def()


def test_asset_keys(repository):
    assert sorted(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()) == [
        "aircraft_profile",
        "aircraft_state",
        "airport_weather",
        "audit/aircraft_profile",
        "audit/aircraft_state",
        "audit/airport_weather",
        "audit/carrier_delays",
        "audit/route_delays",
        "carrier_delays",
        "nycflights13/airlines",
        "nycflights13/airports",
        "nycflights13/assignments",
        "nycflights13/flights",
        "nycflights13/planes",
        "nycflights13/schedules",
        "nycflights13/weather",
        "online/aircraft_profile",
        "online/aircraft_state",
        "online/airport_weather",
        "online/carrier_delays",
        "online/route_delays",
        "parity/aircraft_profile",
        "parity/aircraft_state",
        "parity/airport_weather",
        "parity/carrier_delays",
        "parity/route_delays",
        "platform/maintenance",
        "route_delays",
        "service/departure_delay",
        "serving/served_features",
        "training_set/departure_delay_flights",
    ]


def test_a_view_shows_owner_code_columns_checks_and_what_it_reads(repository):
    graph = repository.asset_graph
    node = graph.get(dg.AssetKey("carrier_delays"))
    assert node.owners == ["flight-operations@example.com"]
    assert node.group_name == "flight_operations"
    assert node.kinds == {"dbt", "duckdb"}
    assert node.description
    assert node.code_version
    assert node.pools == {keys.LAKE_POOL}
    assert node.parent_keys == {dg.AssetKey(["nycflights13", "flights"])}
    assert node.backfill_policy.max_partitions_per_run == 150
    columns = node.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns][:2] == ["carrier", "event_timestamp"]
    files = [reference.file_path for reference in node.metadata["dagster/code_references"].code_references]
    assert [name.rsplit("/", 1)[1] for name in files] == ["carrier_delays.sql", "carrier_delays.yml"]
    assert all(Path(name).is_file() for name in files)
    checks = {key.name for key in graph.asset_check_keys if key.asset_key == node.key}
    assert "expect_table_row_count_to_be_between" in checks
    assert any(name.startswith("not_null_carrier_delays") for name in checks)
    assert any(name == "carrier_delays_windows_nest" for name in checks)


def test_serving_is_unpartitioned_follows_publishing_and_has_an_sla(repository):
    node = repository.asset_graph.get(dg.AssetKey(["online", "carrier_delays"]))
    assert node.partitions_def is None
    assert node.automation_condition is not None
    policy = node.freshness_policy
    assert policy.fail_window.to_timedelta() == timedelta(hours=50)
    assert policy.warn_window.to_timedelta() == timedelta(hours=26)
    (check,) = [one for one in repository.asset_graph.asset_check_keys if one.asset_key == node.key]
    assert check.name == "fresh"
    service = repository.asset_graph.get(dg.AssetKey(["service", "departure_delay"]))
    assert dg.AssetKey(["online", "airport_weather"]) in service.parent_keys


def test_a_view_that_is_not_served_has_its_policy_and_its_check_itself(environ, home):
    settings, registry = Settings.from_env(environ), load_registry(home / "dbt" / "manifest.json")
    view = replace(registry.view("carrier_delays"), online=OnlineTier.NONE)
    unserved = replace(registry, views=dict(registry.views) | {view.key: view})
    graph = build_definitions(settings, unserved, {"nodes": {}}).get_repository_def().asset_graph
    policy = graph.get(keys.view_key(view)).freshness_policy
    assert policy.fail_window.to_timedelta() == timedelta(hours=50)
    assert policy.warn_window.to_timedelta() == timedelta(hours=26)
    assert "fresh" in {one.name for one in graph.asset_check_keys if one.asset_key == keys.view_key(view)}
    assert not graph.has(keys.online_key(view))
    assert graph.get(keys.view_key(registry.view("route_delays"))).freshness_policy is None, (
        "its rows in the store have"
    )


def test_a_service_shows_which_features_of_which_view_its_model_is_given(repository):
    node = repository.asset_graph.get(dg.AssetKey(["service", "departure_delay"]))
    given = [column.name for column in node.metadata["dagster/column_schema"].columns]
    assert "carrier_delays@1:dep_delay_mean_7d" in given
    deps = node.metadata["dagster/column_lineage"].deps_by_column
    assert [*deps] == given
    assert deps["aircraft_profile@1:seats"] == [
        dg.TableColumnDep(asset_key=dg.AssetKey("aircraft_profile"), column_name="seats")
    ]


def test_any_other_exposure_is_downstream_of_exactly_what_it_reads(environ, home):
    manifest = load_manifest(home / "dbt" / "manifest.json")
    read = ["model.flights.carrier_delays.v1", "model.flights.stg_weather"]
    assert set(read) <= manifest["nodes"].keys()
    manifest["exposures"]["exposure.flights.weekly_report"] = {
        "name": "weekly_report",
        "type": "dashboard",
        "description": "Delays of the week.",
        "url": "https://reports.example.com/delays",
        "original_file_path": "models/exposures.yml",
        "owner": {"name": "Reporting"},
        "depends_on": {"nodes": read},
    }
    settings, registry = Settings.from_env(environ), load_registry(home / "dbt" / "manifest.json")
    repository = build_definitions(settings, registry, manifest).get_repository_def()
    node = repository.asset_graph.get(dg.AssetKey(["exposure", "weekly_report"]))
    # carrier_delays' own sources are not its: it reads the view
    assert node.parent_keys == {dg.AssetKey("carrier_delays"), dg.AssetKey(["nycflights13", "weather"])}
    assert (node.kinds, node.owners, node.is_executable) == ({"dashboard"}, [], False)
    assert node.metadata["url"].value == "https://reports.example.com/delays"


def test_a_training_set_lies_between_what_it_is_made_of_and_the_service(repository):
    node = repository.asset_graph.get(dg.AssetKey(["training_set", "departure_delay_flights"]))
    assert node.partitions_def is None
    assert node.automation_condition is None
    assert node.owners == ["delay-prediction@example.com"]
    assert {dg.AssetKey("carrier_delays"), dg.AssetKey(["nycflights13", "flights"])} <= node.parent_keys
    assert dg.AssetKey(["service", "departure_delay"]) in node.child_keys
    job = repository.get_job("make_departure_delay_flights")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {
        "training_set/departure_delay_flights"
    }


def test_no_native_policy_without_a_hard_bound():
    assert native_freshness(FreshnessSla(warn_after=timedelta(hours=1), error_after=None)) is None


@pytest.mark.parametrize(
    ("schedule", "tick", "partition"),
    [
        ("daily_features_after_90_min", "2026-11-20T01:30:00", "2026-11-19"),
        ("daily_features_after_90_min", "2026-12-01T01:30:00", "2026-11-30"),
        ("hourly_features_after_30_min", "2026-11-20T00:30:00", "2026-11-19-23:00"),
        ("monthly_features_after_90_min", "2026-11-01T01:30:00", "2026-10-01"),
        ("load_sources", "2026-11-20T00:20:00", "2026-11-20"),
    ],
)
def test_a_tick_asks_for_the_partition_that_just_became_due(repository, schedule, tick, partition):
    instant = datetime.fromisoformat(tick).replace(tzinfo=UTC)
    definition = repository.get_schedule_def(schedule)
    assert definition.execution_timezone == "UTC"
    assert definition.default_status is dg.DefaultScheduleStatus.RUNNING
    (request,) = evaluated(definition, repository, instant).run_requests
    assert request.partition_key == partition
    (again,) = evaluated(definition, repository, instant).run_requests
    assert again.run_key == request.run_key


def test_before_its_first_partition_a_view_is_left_alone(repository):
    definition = repository.get_schedule_def("daily_features_after_90_min")
    data = evaluated(definition, repository, datetime(2012, 6, 1, 1, 30, tzinfo=UTC))
    assert not data.run_requests
    assert "no view begins" in data.skip_message


def evaluated(definition, repository, instant):
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=instant, repository_def=repository
        )
        return definition.evaluate_tick(context)


def test_the_upkeep_is_nightly_and_says_when_it_has_not_succeeded_for_long(repository):
    schedule = repository.get_schedule_def("maintain_lake_nightly")
    assert (schedule.cron_schedule, schedule.default_status) == ("40 3 * * *", dg.DefaultScheduleStatus.RUNNING)
    policy = repository.asset_graph.get(keys.maintenance_key()).freshness_policy
    assert policy.fail_window.to_timedelta() == timedelta(days=4)


def test_scheduled_runs_overtake_backfills(repository):
    for name in ("daily_features_after_90_min", "hourly_features_after_30_min", "load_sources"):
        assert repository.get_job(name).tags[keys.PRIORITY_TAG] == "10"


def test_sensors_run_by_default(repository):
    assert {sensor.name: sensor.default_status for sensor in repository.sensor_defs} == {
        "audit_what_other_code_computed": dg.DefaultSensorStatus.RUNNING,
        "canary": dg.DefaultSensorStatus.RUNNING,
        "judge_freshness": dg.DefaultSensorStatus.RUNNING,
        "incidents": dg.DefaultSensorStatus.RUNNING,
        "look_for_late_rows": dg.DefaultSensorStatus.RUNNING,
        "compute_missing_partitions": dg.DefaultSensorStatus.RUNNING,
        "recompute_late_partitions": dg.DefaultSensorStatus.RUNNING,
        "look_at_online_store": dg.DefaultSensorStatus.RUNNING,
        "sync_what_was_published": dg.DefaultSensorStatus.RUNNING,
    }


def test_a_verdict_is_said_when_it_changes_and_once_an_hour(environ, home, ledger_url, instance, monkeypatch):
    """Nothing runs here at all: views that were never served become overdue by the clock alone."""
    settings = Settings.from_env(environ | {PREFIX + "LEDGER_URL": ledger_url})
    registry = load_registry(home / "dbt" / "manifest.json")
    with Ledger.connect(ledger_url) as ledger:
        ledger.record_deployment(platform_version="1", manifest_hash="h", views={key: {} for key in registry.views})
    sensor = build_freshness_sensor(settings, registry)
    cursor = None

    def look(after: timedelta) -> dict[str, dg.AssetCheckEvaluation]:
        nonlocal cursor
        monkeypatch.setattr(Ledger, "now", lambda _: began + after)
        said = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
        if isinstance(said, dg.SkipReason):
            return {}
        cursor = said.cursor
        return {event.asset_key.to_user_string(): event for event in said.asset_events}

    began = datetime.now(UTC)
    first = look(timedelta(0))
    assert set(first) == {f"online/{view.name}" for view in registry.views.values()}
    assert all(event.passed and event.check_name == "fresh" for event in first.values())
    assert look(timedelta(minutes=1)) == {}
    assert len(look(timedelta(minutes=61))) == len(registry.views)
    overdue = look(timedelta(hours=7))
    hourly = overdue["online/airport_weather"]
    assert (hourly.passed, hourly.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "nothing was ever served in store default" in hourly.description
    assert overdue["online/carrier_delays"].passed


def test_loading_imports_nothing_heavy(environ):
    program = (
        "import json, sys\n"
        "from feature_platform.definitions import defs\n"
        "defs().get_repository_def()\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], env={"PATH": "", **environ}, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout))
    assert not loaded & set(LOADED_LAZILY)
    assert "BetaWarning" not in answer.stderr


def test_what_is_not_deployed_says_what_to_do(environ, monkeypatch, tmp_path):
    from feature_platform.definitions import defs
    from feature_platform.errors import NotDeployedError

    for name, value in (environ | {PREFIX + "HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NotDeployedError, match="feature-platform deploy"):
        defs()
