"""Runs of the real assets in this process: what they publish, what Dagster shows, and what a failed check stops."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from ledger_batches import publish_batches

import feature_platform.sync
from feature_platform.declaration import canary
from feature_platform.domain.feature_view import Expectation
from feature_platform.domain.windows import parse_partition_key, partition_starting
from feature_platform.ledger import Ledger
from feature_platform.offline import FeatureStore
from feature_platform.online import FeatureClient, LogSettings
from feature_platform.orchestration import build_definitions, keys
from feature_platform.orchestration.dead_runs import give_up_batches_of_dead_runs

VIEW = "carrier_delays"
NO_TESTS = {"nodes": {}}  # a manifest in which Dagster sees no data tests


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey.from_user_string(name)


@pytest.fixture
def ledger(platform):
    with Ledger.connect(platform.ledger_url) as connected:
        yield connected


@pytest.fixture
def days(registry):
    """Partition keys, counted from 40 days after the view's begin."""
    begin = registry.view(VIEW).begin + timedelta(days=40)
    return lambda offset: f"{begin + timedelta(days=offset):%Y-%m-%d}"


def test_one_partition_is_published_and_served_in_one_run(run_job, instance, ledger, days):
    result = run_job(VIEW, f"online/{VIEW}", partition=days(0))
    assert result.success
    (batch,) = ledger.batches(f"{VIEW}@1", run_id=result.run_id)
    assert batch.state == "published"
    (event,) = result.asset_materializations_for_node(VIEW)
    assert event.partition == days(0)
    shown = {name: value.value for name, value in event.metadata.items()}
    assert shown["batch_id"] == batch.batch.batch_id
    assert shown["rows"] == batch.row_count > 0
    assert shown["lag_event_to_published_seconds"] > 0
    assert shown["lag_source_to_published_seconds"] > 0
    assert shown["lag_opened_to_computed_seconds"] > 0 and shown["lag_computed_to_published_seconds"] > 0
    assert shown["event_timestamp"] == batch.batch.partition.end.timestamp()
    assert shown["source_watermark"] == batch.source_watermark.timestamp()
    assert shown["event_timestamp"] < shown["computed_at"] < shown["published_at"]
    (synced,) = result.asset_materializations_for_node(f"online__{VIEW}")
    assert synced.metadata["to_position"].value == batch.position
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    fresh = checks.pop("fresh")
    assert len(checks) >= 5
    assert all(check.passed for check in checks.values())
    # a partition of long ago makes nothing fresh, though Dagster's own policy counts the run
    assert (fresh.passed, fresh.severity) == (False, dg.AssetCheckSeverity.ERROR)
    lags = [fresh.metadata[f"lag_{stage}_seconds"].value for stage in ("arrival", "compute", "publish", "sync")]
    assert sum(lags) == pytest.approx(fresh.metadata["age_seconds"].value)
    assert max(lags) == lags[1]
    assert ledger.synced_position(f"{VIEW}@1", "default") == batch.position


def test_what_is_published_during_a_sync_is_synced_by_the_same_run(run_job, ledger, days, registry, monkeypatch):
    sync, view = feature_platform.sync.sync_stores, registry.view(VIEW)

    def overtaken(*args, **options):
        result = sync(*args, **options)
        if ledger.head(view.key) == head + 1:
            publish_batches(ledger, view, [parse_partition_key(days(9), view.grain)], rows=0, run_id="other")
        return result

    head = ledger.head(view.key)
    monkeypatch.setattr(feature_platform.sync, "sync_stores", overtaken)
    run_job(VIEW, f"online/{VIEW}", partition=days(8))
    assert ledger.synced_position(view.key, "default") == ledger.head(view.key) == head + 2


def test_a_range_is_one_run_with_a_batch_and_metadata_per_partition(run_job, ledger, days):
    result = run_job(VIEW, f"online/{VIEW}", partition=days(1), through=days(5))
    batches = ledger.batches(f"{VIEW}@1", run_id=result.run_id)
    assert [batch.state for batch in batches] == ["published"] * 5
    events = result.asset_materializations_for_node(VIEW)
    assert sorted(event.partition for event in events) == [days(offset) for offset in range(1, 6)]
    ids = {batch.batch.partition.key: batch.batch.batch_id for batch in batches}
    assert {event.partition: event.metadata["batch_id"].value for event in events} == ids
    for event in events:
        shown = event.metadata
        assert shown["worst_null_rate"].value >= 0
        assert "| `dep_delay_mean_7d` | " in shown["features"].value


def expectations_of(result) -> list:
    return [one for one in result.get_asset_check_evaluations() if one.check_name.startswith("expect_")]


def test_a_failed_blocking_check_publishes_nothing_whoever_syncs_afterwards(  # noqa: PLR0917
    run_job, run_job_of, ledger, days, platform, registry
):
    view = registry.view(VIEW)
    run_job(VIEW, f"online/{VIEW}", partition=days(6))
    head = ledger.head(view.key)
    served = ledger.active_batches(view.key)
    impossible = Expectation(type="ExpectTableRowCountToBeBetween", arguments={"max_value": 1})
    broken = replace(view, expectations=(impossible,))
    failing = build_definitions(platform, replace(registry, views=dict(registry.views) | {view.key: broken}), NO_TESTS)
    result = run_job_of(failing)(VIEW, f"online/{VIEW}", partition=days(6), raise_on_error=False)
    assert not result.success
    assert not result.asset_materializations_for_node(VIEW)
    assert not result.asset_materializations_for_node(f"online__{VIEW}")
    (check,) = expectations_of(result)
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    (batch,) = ledger.batches(view.key, run_id=result.run_id)
    assert batch.state == "failed"
    # in a run of its own, by hand: Dagster would let it, the ledger has nothing new to give
    by_hand = run_job(f"online/{VIEW}")
    (synced,) = by_hand.asset_materializations_for_node(f"online__{VIEW}")
    assert synced.metadata["to_position"].value == head
    assert synced.metadata["written"].value == 0
    assert ledger.active_batches(view.key) == served


def test_a_warning_is_shown_and_does_not_block(run_job_of, ledger, days, platform, registry):
    view = registry.view(VIEW)
    unlikely = Expectation(type="ExpectTableRowCountToBeBetween", arguments={"max_value": 1}, severity="warn")
    warned = replace(view, expectations=(unlikely,))
    definitions = build_definitions(
        platform, replace(registry, views=dict(registry.views) | {view.key: warned}), NO_TESTS
    )
    result = run_job_of(definitions)(VIEW, partition=days(7))
    (check,) = expectations_of(result)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    (batch,) = ledger.batches(view.key, run_id=result.run_id)
    assert batch.state == "published"


def test_a_source_loads_what_has_arrived(run_job, ledger):
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    before = ledger.loaded_through("nycflights13.weather")
    result = run_job("nycflights13/weather", partition=today)
    (event,) = result.asset_materializations_for_node("nycflights13__weather")
    assert event.metadata["rows"].value >= 0
    assert ledger.loaded_through("nycflights13.weather") > before


def test_no_feature_of_the_reference_project_leaks(platform, registry, run_job):
    """What CI says of every view of the project, on the real flights."""
    result = run_job(*(f"audit/{view.name}" for view in registry.views.values()))
    assert result.success
    evaluations = {check.asset_key.path[-1]: check for check in result.get_asset_check_evaluations()}
    assert set(evaluations) == {view.name for view in registry.views.values()}
    for view, check in evaluations.items():
        verdicts = {row.data["feature"]: row.data["verdict"] for row in check.metadata["features"].records}
        assert set(verdicts.values()) == {"clean"}, view
        assert check.passed
        assert check.metadata["rows"].value > 0
        assert check.metadata["arrival"].value in ("in time", "late-informed")


def test_a_declared_training_set_is_kept_by_its_job(definitions, instance, platform, registry):
    job = definitions.get_repository_def().get_job("make_departure_delay_flights")
    result = job.execute_in_process(instance=instance)
    (event,) = result.asset_materializations_for_node("training_set__departure_delay_flights")
    store = FeatureStore(platform, registry)
    kept = store.training_set("departure_delay_flights")
    manifest = kept.manifest
    assert event.metadata["training_set"].value == kept.key == "departure_delay_flights@1"
    assert event.metadata["dagster/row_count"].value == manifest.row_count > 100_000
    assert event.metadata["sha256"].value == manifest.data.sha256
    assert manifest.created_by == f"Dagster run {result.run_id}"
    assert (manifest.service, manifest.mode) == (registry.services["departure_delay"], "modelled")
    assert {used.view for used in manifest.batches} == {one.key for one in manifest.service.selections}
    # the labels are read in one order, so that the same ones and the same batches are the same bytes
    again = store.create_declared_training_set("departure_delay_flights")
    assert (again.manifest.version, again.manifest.labels.content_hash) == (2, manifest.labels.content_hash)
    assert again.manifest.data.sha256 == manifest.data.sha256


def test_the_page_of_a_view_says_from_which_source_columns_each_feature_is_computed(definitions, registry):
    graph = definitions.get_repository_def().asset_graph
    flights, planes = dg.AssetKey(["nycflights13", "flights"]), dg.AssetKey(["nycflights13", "planes"])

    def read(view, column) -> set[tuple[dg.AssetKey, str]]:
        lineage = graph.get(dg.AssetKey(view)).metadata["dagster/column_lineage"]
        return {(dep.asset_key, dep.column_name) for dep in lineage.deps_by_column[column]}

    assert read("carrier_delays", "carrier") == {(flights, "carrier")}
    assert read("carrier_delays", "flights_28d") == set()  # count(*) over all that the view reads
    assert read("carrier_delays", "late_share_28d") == {(flights, "dep_delay")}  # through the staging model's left_late
    assert read("carrier_delays", "late_share_7d") == {(flights, "dep_delay"), (flights, "known_at")}
    assert (flights, "arr_delay") in read("aircraft_state", "last_arr_delay")
    assert (planes, "seats") in read("aircraft_profile", "seats")
    for view in registry.views.values():
        columns = graph.get(keys.view_key(view)).metadata["dagster/column_schema"].columns
        described = {column.name: column.description for column in columns}
        for name in (*view.entity_names, *view.feature_names):
            assert "\n\nFrom " in described[name], (view.key, name)


def test_what_was_served_is_drained_when_there_is_something(run_job, platform, definitions, instance):
    schedule = definitions.get_repository_def().get_schedule_def("drain_feature_log")

    def tick():
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC))
        return schedule.evaluate_tick(context)

    assert tick().skip_message == "nothing was logged"
    with FeatureClient.connect(platform.valkey_url, log=LogSettings()) as client:
        client.get_online_features(VIEW, [{"carrier": "UA"}, {"carrier": "AA"}])
    assert len(tick().run_requests) == 1
    (event,) = run_job("serving/served_features").asset_materializations_for_node("serving__served_features")
    assert {name: event.metadata[name].value for name in ("requests", "rows", "lost")} == {
        "requests": 1, "rows": 2, "lost": 0
    }  # fmt: skip
    assert tick().skip_message == "nothing was logged"


def test_the_lake_is_maintained(run_job, platform, registry):
    (event,) = run_job("platform/maintenance").asset_materializations_for_node("platform__maintenance")
    metadata = event.metadata
    assert {name: metadata[name].value for name in ("rows_deleted", "files_removed", "bytes_freed")} == {
        "rows_deleted": 0, "files_removed": 0, "bytes_freed": 0
    }  # fmt: skip
    assert {row.data["table"] for row in metadata["tables"].records} == {
        *registry.views, canary.KEY, "serving.served_features"
    }  # fmt: skip


def test_only_batches_of_runs_that_are_over_are_given_up(ledger, registry):
    view = registry.view("route_delays")
    with dg.DagsterInstance.ephemeral() as instance:
        runs = {
            status: create_run_for_test(instance, status=status).run_id
            for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELED)
        }
        every = [partition_starting(view.begin + timedelta(days=n), view.grain) for n in range(5)]
        days = iter(every)
        dead = ledger.open_batches(view, [next(days), next(days)], run_id=runs[dg.DagsterRunStatus.FAILURE])
        ledger.open_batches(view, [next(days)], run_id=runs[dg.DagsterRunStatus.CANCELED])
        alive = ledger.open_batches(view, [next(days)], run_id=runs[dg.DagsterRunStatus.STARTED])
        unknown = ledger.open_batches(view, [next(days)], run_id="by hand")
        assert give_up_batches_of_dead_runs(ledger, instance) == 3
        assert give_up_batches_of_dead_runs(ledger, instance) == 0
        assert {one.batch.batch_id for one in ledger.unfinished()} == {b.batch_id for b in (*alive, *unknown)}
        (first, _) = ledger.batches(view.key, run_id=runs[dg.DagsterRunStatus.FAILURE])
        assert first.failure == "its run ended as failure and left it unfinished"
        assert first.batch.batch_id in {batch.batch_id for batch in dead}
        cut_off = ledger.cut_off(view.key, every[0], every[-1], before=ledger.now(), attempts=2, again=False)
        assert cut_off == tuple(every[:2]), "and not what somebody has canceled"
        ledger.record_failed([b.batch_id for b in (*alive, *unknown)], "end of the test")
