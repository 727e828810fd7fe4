"""What becomes of late rows, by the policy of the view: the sensors' requests, real runs, and the command."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from offline_platform import arrow
from tiny_platform import TinyPlatform, instant

from feature_platform.cli.late import late as late_command
from feature_platform.cli.status import _read as read_status
from feature_platform.declaration.manifest import load_manifest
from feature_platform.domain.windows import Grain, adjacent, parse_partition_key
from feature_platform.errors import UnknownNameError
from feature_platform.ledger import Ledger
from feature_platform.observability import find_problems, watch
from feature_platform.observability.metrics import ledger_metrics
from feature_platform.offline import FeatureStore
from feature_platform.orchestration import build_definitions, keys
from feature_platform.orchestration.late_data import (
    build_look_job,
    build_look_sensor,
    build_recompute_sensor,
)
from feature_platform.orchestration.requests import RANGE_TAGS
from feature_platform.settings import PREFIX

LOG = logging.getLogger("test_late_data_policies")
VIEW = "user_activity@1"
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")


class Stack:
    """A deployed platform, and Dagster as far as the daemon would drive it."""

    def __init__(self, tiny: TinyPlatform, instance: dg.DagsterInstance) -> None:
        self.tiny, self.instance = tiny, instance
        self.settings, self.registry = tiny.settings, tiny.registry
        self.look_job = build_look_job(self.settings, self.registry)

    def arrive(self, *events: tuple, at: str) -> None:
        for event in events:
            self.tiny.add_events(event, late=instant(at) - instant(event[2]))
        self.tiny.load_through(at)

    def look(self) -> dg.ExecuteInProcessResult | None:
        """One tick of the first sensor, and the run it asks for."""
        sensor = build_look_sensor(self.settings, self.registry, self.look_job)
        said = sensor(dg.build_sensor_context(instance=self.instance))
        if isinstance(said, dg.SkipReason):
            return None
        return self.look_job.execute_in_process(instance=self.instance)

    def asked(self) -> list[dg.RunRequest]:
        """One tick of the second sensor."""
        said = build_recompute_sensor(self.settings, self.registry)(dg.build_sensor_context(instance=self.instance))
        return list(said.run_requests) if isinstance(said, dg.SensorResult) else []

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """As the daemon runs a request. The tiny project has no online store: what is synced is left out."""
        selection = [key for key in request.asset_selection if key.path[0] != "online"]
        job = dg.define_asset_job("asked", selection=dg.AssetSelection.assets(*selection))
        definitions = build_definitions(self.settings, self.registry, load_manifest(self.settings.manifest_path))
        repository = dg.Definitions.merge(definitions, dg.Definitions(jobs=[job])).get_repository_def()
        return repository.get_job("asked").execute_in_process(
            instance=self.instance, partition_key=request.partition_key, tags=dict(request.tags)
        )

    def problems(self, now: datetime | None = None) -> dict[str, str]:
        with Ledger.connect(self.settings.ledger_url) as ledger:
            found = find_problems(ledger, self.registry, stores=("default",), now=now or datetime.now(UTC))
        return {one.kind: one.message for one in found if one.view == VIEW}

    def watch(self) -> tuple[int, int]:
        """One tick of the sensor `incidents`: how many it told of, and how many it told are over."""
        with Ledger.connect(self.settings.ledger_url) as ledger:
            told = watch(ledger, self.registry, stores=("default",), now=datetime.now(UTC), log=lambda: LOG, environ={})
        return told.opened, told.resolved

    def numbers(self) -> dict[str, int]:
        """What `feature-platform status --json` says of the view."""
        views = read_status(self.settings, ()).views
        (late,) = [one.late for one in views if one.view == VIEW]
        return late

    def metric(self, name: str, **labels: str) -> float:
        """What the exporter says."""
        with Ledger.connect(self.settings.ledger_url) as ledger:
            families = list(ledger_metrics(ledger, self.registry, store="default", now=datetime.now(UTC)))
        samples = [sample for family in families for sample in family.samples]
        (value,) = [one.value for one in samples if one.name == f"feature_platform_{name}" and one.labels == labels]
        return value

    @property
    def values(self) -> dict[tuple[int, str], object]:
        """events_1d by user and day, as readers see it."""
        return {(row[0], f"{row[1]:%m-%d}"): row[2] for row in self.tiny.visible("user_activity")}


@pytest.fixture
def stack(tiny: TinyPlatform):
    """Three days computed from what had arrived by noon of the 5th; built when its policy is chosen."""

    with dg.DagsterInstance.ephemeral() as instance:

        def build(policy: str = "recompute") -> Stack:
            if policy != "recompute":
                tiny.edit("user_activity.yml", "policy: recompute", f"policy: {policy}")
                tiny.deploy()
            tiny.add_events((1, 10.0, "2024-01-02 09:00"), (1, 20.0, "2024-01-03 09:00"), (2, 5.0, "2024-01-04 10:00"))
            tiny.load_through("2024-01-05 12:00")
            tiny.materialize("user_activity", *DAYS)
            return Stack(tiny, instance)

        yield build


@pytest.fixture
def command(tiny: TinyPlatform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`feature-platform late …`."""
    for field in fields(tiny.settings):
        monkeypatch.setenv(PREFIX + field.name.upper(), str(getattr(tiny.settings, field.name)))
    monkeypatch.setenv(PREFIX + "VALKEY_URL", "valkey://nowhere")
    return lambda *arguments: CliRunner().invoke(late_command, arguments, catch_exceptions=False)


def test_recompute_asks_for_just_the_late_partitions_once_and_publishes_them(stack, command):
    stack = stack()
    stack.arrive((7, 1.0, "2024-01-02 23:00"), (8, 1.0, "2023-12-30 12:00"), at="2024-01-06 00:00")
    looked = stack.look()
    assert looked.success
    (of_source, of_view) = [
        event.asset_observation_data.asset_observation
        for event in looked.all_events
        if event.event_type_value == "ASSET_OBSERVATION"
    ]
    assert (of_source.asset_key.to_user_string(), of_source.metadata["rows_arrived"].value) == ("tiny/events", 2)
    assert (of_view.asset_key.to_user_string(), of_view.metadata["late_partitions"].value) == ("user_activity", 3)
    assert of_view.metadata["late_lag_max_seconds"].value == timedelta(days=3, hours=1).total_seconds()
    assert stack.look() is None

    shown = json.loads(command("--json").output)
    (entry,) = shown["views"]
    assert (entry["state"], entry["late_rows"], len(entry["partitions"])) == ("due", 3, 3)
    assert entry["services"] == ["tiny_model"]
    assert "3 partition(s) due" in command("user_activity").output

    assert stack.numbers() == {"due": 3}
    assert stack.metric("view_late_rows_total", view=VIEW) == 1
    assert stack.metric("view_late_partitions", view=VIEW, state="due") == 3
    assert stack.metric("view_late_lag_seconds", view=VIEW, quantile="1") == timedelta(days=3, hours=1).total_seconds()
    assert stack.metric("source_arrival_lag_seconds", source="tiny.events", quantile="1") == 6.5 * 86400

    (request,) = stack.asked()
    assert [request.tags[tag] for tag in RANGE_TAGS] == [DAYS[0], DAYS[-1]]
    assert request.tags[keys.PRIORITY_TAG] == "-5"
    assert [key.to_user_string() for key in request.asset_selection] == ["user_activity", "online/user_activity"]
    (again,) = stack.asked()
    assert again.run_key == request.run_key, "so that the daemon asks once"
    assert stack.problems().get("late") is None
    assert (
        "nothing recomputes 2024-01-02 to 2024-01-04" in stack.problems(datetime.now(UTC) + timedelta(hours=3))["late"]
    )

    assert (7, "01-03") not in stack.values
    assert stack.run(request).success
    assert stack.values[7, "01-03"] == 1
    assert stack.asked() == []
    assert stack.numbers() == {}
    assert stack.metric("view_late_partitions", view=VIEW, state="due") == 0
    assert "nothing is late" in command().output


def test_version_holds_what_it_computed_until_somebody_approves(stack, command):
    stack = stack("version")
    stack.watch()
    stack.arrive((2, 9.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    stack.look()
    (request,) = stack.asked()
    assert (request.partition_key, request.tags[keys.HOLD_TAG]) == ("2024-01-04", "true")
    assert [key.to_user_string() for key in request.asset_selection] == ["user_activity"]
    assert stack.run(request).success
    assert stack.values[2, "01-05"] == 1, "the old batch goes on"
    assert stack.asked() == []
    assert "held since" in stack.problems()["held"]
    assert [stack.watch(), stack.watch()] == [(1, 0), (0, 0)], "told once"
    assert "unfinished" not in stack.problems(datetime.now(UTC) + timedelta(hours=5))
    assert "late approve" in command("user_activity").output

    (difference,) = json.loads(command("diff", "user_activity", "--json").output)
    assert (difference["partition"], difference["changed"], difference["added"]) == ("2024-01-04", 1, 0)
    assert difference["features"]["events_1d"] == 1
    assert "2024-01-04" in command("diff", "user_activity").output
    with pytest.raises(UnknownNameError, match="2024-01-03"):
        command("approve", "user_activity", "2024-01-03")
    with Ledger.connect(stack.settings.ledger_url) as ledger:
        ledger.approve(ledger.waiting(VIEW))  # the command also syncs, and there is no store here
    assert stack.values[2, "01-05"] == 2
    assert {"held", "late"} & stack.problems().keys() == set()
    assert [stack.watch(), stack.watch()] == [(0, 1), (0, 0)], "and once that it is over"


def test_a_request_of_before_a_deploy_is_held_by_the_policy_of_now(stack):
    """The code location that asked was not restarted since; the run reads the declarations anew."""
    stack = stack()
    stack.arrive((2, 9.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    stack.look()
    (request,) = stack.asked()
    assert keys.HOLD_TAG not in request.tags
    stack.tiny.edit("user_activity.yml", "policy: recompute", "policy: version")
    stack.tiny.deploy()
    stack.registry = stack.tiny.registry
    assert stack.run(request).success
    assert stack.values[2, "01-05"] == 1
    assert stack.numbers() == {"held": 1}


def test_late_names_all_kept_sets_without_the_rows_and_just_the_late_partitions(stack, command):
    stack = stack()
    labels = arrow([{"user_id": 2, "event_timestamp": instant("2024-01-05 12:00")}])
    store = FeatureStore(stack.settings, stack.registry)
    store.create_training_set(labels, "user_activity", name="first")
    stack.arrive((2, 9.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    stack.look()
    (request,) = stack.asked()
    stack.run(request)
    store.create_training_set(labels, "user_activity", name="second")
    for event in ("2024-01-04 22:00", "2024-01-02 22:00"):
        stack.tiny.add_events((2, 9.0, event), late=instant("2024-01-20 00:00") - instant(event))
    stack.tiny.load_through("2024-01-20 00:00")
    stack.look()
    (entry,) = json.loads(command("--json").output)["views"]
    assert entry["training_sets"] == ["first@1", "second@1"]
    spans = adjacent([parse_partition_key(one["partition"], Grain.DAY) for one in entry["partitions"]], at_most=9)
    assert entry["next"].count("feature-platform backfill") == len(spans)


def test_what_is_rejected_is_not_computed_again_for_the_same_rows(stack, command):
    stack = stack("version")
    stack.arrive((2, 9.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    stack.look()
    (request,) = stack.asked()
    stack.run(request)
    told = command("reject", "user_activity", "--reason", "a test of the sender", "--json")
    assert json.loads(told.output)["rejected"] == ["2024-01-04"]
    assert stack.values[2, "01-05"] == 1
    assert stack.asked() == []
    assert "rejected" in command().output
    stack.arrive((2, 9.0, "2024-01-04 23:30"), at="2024-01-07 00:00")
    stack.look()
    (other,) = stack.asked()
    assert other.run_key != request.run_key


def test_ignore_records_and_beyond_the_window_is_told(stack, command):
    stack = stack("ignore")
    stack.watch()
    stack.arrive((2, 9.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    stack.look()
    assert stack.asked() == []
    assert "1 partition(s) ignored" in command().output
    assert "late" not in stack.problems()
    stack.arrive((2, 9.0, "2024-01-04 22:00"), at="2024-01-30 00:00")
    stack.look()
    assert stack.asked() == []
    told = stack.problems()["late"]
    assert "2024-01-04" in told
    assert "nothing is recomputed by itself" in told
    assert "feature-platform late user_activity@1" in told
    assert [stack.watch(), stack.watch()] == [(1, 0), (0, 0)], "told once"


def test_what_is_already_running_is_not_asked_for(stack):
    stack = stack()
    stack.arrive((2, 9.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    stack.look()
    view = stack.registry.view("user_activity")
    with Ledger.connect(stack.settings.ledger_url) as ledger:
        ledger.open_batches(view, stack.tiny.partitions("user_activity", "2024-01-04"), run_id="somebody")
    assert stack.asked() == []
