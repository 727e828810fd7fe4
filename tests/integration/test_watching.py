"""Problems that the ledger does not know: runs, schedules and sensors, stores, routes. On a real Dagster instance."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import SerializableErrorInfo
from ledger_batches import publish_batches
from views import view_with

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_service import FeatureService, ViewSelection
from feature_platform.domain.feature_view import FeatureView, Owner, Source
from feature_platform.domain.windows import Grain, Partition, parse_partition_key, partitions_between
from feature_platform.errors import ClockSkewError
from feature_platform.ledger import Ledger, clocks
from feature_platform.observability import (
    KINDS,
    Problem,
    find_problems,
    find_unreachable,
    find_wrong_clocks,
    watch,
)
from feature_platform.observability.kinds import WATCH_KINDS
from feature_platform.observability.missing import MAX_ATTEMPTS
from feature_platform.orchestration import keys, sensors
from feature_platform.orchestration.auditing import CHECK
from feature_platform.orchestration.missing import ASKED_AFTER, build_missing_sensor
from feature_platform.orchestration.requests import RANGE_TAGS
from feature_platform.orchestration.sensors import find_elsewhere
from feature_platform.orchestration.timetable import partitions_definition
from feature_platform.orchestration.watching_audits import find_leaks
from feature_platform.orchestration.watching_automation import find_dead_automation
from feature_platform.orchestration.watching_backfills import find_failed_backfills
from feature_platform.orchestration.watching_runs import find_failed_runs, find_stuck_runs
from feature_platform.settings import Settings

LOG = logging.getLogger("test_watching")
HOUR = timedelta(hours=1)
DAY = "2026-03-05"
PLATFORM = Owner(name="platform", email="platform@example.com")
CONSUMER = Owner(name="models", email="models@example.com")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger.connect(ledger_url) as connected:
        yield connected


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def registry() -> FeatureRegistry:
    view = view_with()
    service = FeatureService(
        name="prediction",
        description="",
        owner=CONSUMER,
        selections=(ViewSelection(view=view.name, version=1, features=("delay",)),),
        latency_budget=timedelta(milliseconds=20),
        batch_size=None,
        freshness=None,
        unique_id="exposure.tiny.prediction",
        path="models/exposures.yml",
    )
    return FeatureRegistry(
        views={view.key: view},
        services={service.name: service},
        sources={},
        latest={view.name: 1},
        platform=PLATFORM,
    )


@pytest.fixture
def view(registry: FeatureRegistry) -> FeatureView:
    return registry.view("carrier_delays")


def publish(ledger: Ledger, view: FeatureView, day: str, *, passes: bool = True) -> None:
    partition = parse_partition_key(day, Grain.DAY)
    if passes:
        publish_batches(ledger, view, [partition])
    else:
        (batch,) = ledger.open_batches(view, [partition], run_id="run")
        ledger.record_failed([batch.batch_id], "a check failed")


class Jobs:
    """A view's asset, one of the platform's and a job of an op, which fail while told to."""

    def __init__(self, view: FeatureView, instance: dg.DagsterInstance) -> None:
        self.failing, self.instance = True, instance

        def work() -> None:
            if self.failing:
                raise ValueError("the source has\nno rows")

        @dg.asset(key=keys.view_key(view), partitions_def=partitions_definition(Grain.DAY, view.begin))
        def features() -> None:
            work()

        @dg.asset(key=keys.maintenance_key())
        def maintenance() -> None:
            work()

        @dg.op
        def look_op() -> None:
            work()

        @dg.job
        def look() -> None:
            look_op()

        self.repository = dg.Definitions(
            assets=[features, maintenance],
            jobs=[dg.define_asset_job("daily", [features]), dg.define_asset_job("maintain", [maintenance]), look],
            executor=dg.in_process_executor,
        ).get_repository_def()

    def run(self, name: str, partition: str | None = None) -> str:
        job = self.repository.get_job(name)
        return job.execute_in_process(instance=self.instance, partition_key=partition, raise_on_error=False).run_id


def told(problems: Iterator[Problem]) -> dict[str, Problem]:
    found = list(problems)
    assert len({problem.subject for problem in found}) == len(found)
    return {problem.subject: problem for problem in found}


def test_a_failed_run_is_a_problem_until_somebody_has_made_what_it_was_to_make(ledger, instance, registry, view):
    jobs = Jobs(view, instance)
    for _ in range(2):
        jobs.run("daily", DAY)
    jobs.run("maintain")
    jobs.run("look")
    look = lambda: told(find_failed_runs(instance, ledger, registry, now=datetime.now(UTC)))  # noqa: E731
    found = look()
    assert set(found) == {view.key, "platform/maintenance", "look"}
    problem = found[view.key]
    assert (problem.owner, problem.severity) == (view.owner, "error")
    assert "2 run(s) failed" in problem.message
    assert f"daily for {DAY}: ValueError: the source has no rows" in problem.message
    assert found["look"].owner == PLATFORM

    publish(ledger, view, "2026-03-06")  # another partition makes nothing good
    assert view.key in look()
    publish(ledger, view, DAY)  # by whomever: no run of Dagster
    assert view.key not in look()
    jobs.failing = False
    jobs.run("maintain")
    jobs.run("look")
    assert look() == {}


def test_what_the_ledger_says_of_a_failed_batch_is_told_once(ledger, instance, registry, view):
    Jobs(view, instance).run("daily", DAY)
    publish(ledger, view, DAY, passes=False)
    assert told(find_failed_runs(instance, ledger, registry, now=datetime.now(UTC))) == {}
    (problem,) = find_problems(ledger, registry, stores=("default",), now=datetime.now(UTC))
    assert problem.kind == "failing"


def audit(
    instance: dg.DagsterInstance,
    view: FeatureView,
    *,
    passed: bool,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    dies: bool = False,
) -> None:
    """A run of the asset of a view's audit that says this."""
    key = keys.audit_key(view)

    @dg.asset(key=key, check_specs=[dg.AssetCheckSpec(CHECK, asset=key)])
    def audited():
        if dies:
            raise ValueError("the lake is away")
        said = dg.AssetCheckResult(
            check_name=CHECK,
            passed=passed,
            severity=severity,
            description="leaks: delay",
            metadata={"again": f"feature-platform audit leakage {view.key} --at 2026-03-05"},
        )
        return dg.MaterializeResult(check_results=[said])

    dg.materialize([audited], instance=instance, raise_on_error=False)


def test_a_leak_is_told_to_owner_and_consumers_until_an_audit_finds_none(instance, registry, view):
    look = lambda: told(find_leaks(instance, registry))  # noqa: E731
    assert look() == {}
    audit(instance, view, passed=False)
    problem = look()[view.key]
    assert (problem.kind, problem.severity, problem.owner, problem.consumers) == (
        "leaks", "error", view.owner, (CONSUMER,),
    )  # fmt: skip
    assert problem.message.startswith(f"{view.key} leaks: delay")
    assert f"feature-platform audit leakage {view.key} --at 2026-03-05" in problem.message
    audit(instance, view, passed=True, dies=True)
    assert view.key in look(), "an audit that failed has found nothing out"
    audit(instance, view, passed=False, severity=dg.AssetCheckSeverity.WARN)
    assert look() == {}, "unknown"
    audit(instance, view, passed=False)
    audit(instance, view, passed=True)
    assert look() == {}


def test_a_run_that_will_be_tried_again_has_not_failed_yet(ledger, instance, registry, view):
    run_id = Jobs(view, instance).run("look")
    instance.add_run_tags(run_id, {"dagster/will_retry": "true"})
    look = lambda minutes: told(  # noqa: E731
        find_failed_runs(instance, ledger, registry, now=datetime.now(UTC) + timedelta(minutes=minutes))
    )
    assert look(0) == {}
    assert set(look(11)) == {"look"}  # the code server was away when Dagster was to make the next run: there is none
    instance.add_run_tags(run_id, {"dagster/auto_retry_run_id": "the next"})
    assert look(11) == {}


class Missing:
    """A view that was deployed just now, and the platform some days later."""

    def __init__(self, ledger, ledger_url, registry, instance, monkeypatch) -> None:
        self.ledger, self.registry, self.instance = ledger, registry, instance
        (self.view,) = registry.views.values()
        ledger.record_deployment(platform_version="1", manifest_hash="h", views={self.view.key: {}})
        self.deployed_at = ledger.first_deployed(self.view.key)
        # nothing is due at the very moment at which it is looked at
        self.now = (self.deployed_at + timedelta(days=4)).replace(hour=12, minute=30)
        monkeypatch.setattr(Ledger, "now", lambda _: self.now)
        self.settings = Settings(
            project=Path(),
            home=Path(),
            ledger_url=ledger_url,
            lake_catalog="",
            lake_data="",
            valkey_url="valkey://127.0.0.1:1",
            store="default",
            duckdb_memory="1GB",
        )
        self.sensor = build_missing_sensor(self.settings, registry)

    @property
    def due(self) -> list[Partition]:
        since, delay = self.deployed_at, self.view.availability_delay
        every = partitions_between(since - timedelta(days=40), self.now + timedelta(days=1), self.view.grain)
        return [one for one in every if since < one.end + delay <= self.now]

    def asked(self) -> list[dg.RunRequest]:
        said = self.sensor(dg.build_sensor_context(instance=self.instance))
        return list(said.run_requests) if isinstance(said, dg.SensorResult) else []

    def ranges(self) -> list[tuple[str, str]]:
        return [
            (one.partition_key,) * 2 if one.partition_key else tuple(one.tags[tag] for tag in RANGE_TAGS)
            for one in self.asked()
        ]

    def told(self) -> str:
        found = find_problems(self.ledger, self.registry, stores=("default",), now=self.now)
        return "; ".join(one.message for one in found if one.kind == "missing")


@pytest.fixture
def scheduled_instance() -> Iterator[dg.DagsterInstance]:
    """One that keeps the state of schedules."""
    with dg.instance_for_test() as kept:
        yield kept


@pytest.fixture
def missing(ledger, ledger_url, registry, scheduled_instance, monkeypatch) -> Missing:
    return Missing(ledger, ledger_url, registry, scheduled_instance, monkeypatch)


def test_what_came_due_and_was_never_begun_is_asked_for_and_told(missing, ledger, view):
    due = missing.due
    assert len(due) in (4, 5)
    (request,) = missing.asked()
    assert missing.ranges() == [(due[0].key, due[-1].key)], "nothing before the view was deployed"
    assert request.asset_selection == [keys.view_key(view), keys.online_key(view)]
    assert request.tags[keys.PRIORITY_TAG] == keys.LATE_PRIORITY
    assert f"no batch of {len(due)} partition(s) that came due ({due[0].key} to {due[-1].key})" in missing.told()
    missing.now += timedelta(minutes=29)
    assert missing.asked()[0].run_key == request.run_key, "once within the hour"
    missing.now += timedelta(minutes=1)
    assert missing.asked()[0].run_key != request.run_key, "and again, should that run have come to nothing"
    publish(ledger, view, due[1].key)
    publish(ledger, view, due[-1].key, passes=False)  # which another kind tells
    assert missing.ranges() == [(due[0].key, due[0].key), (due[2].key, due[-2].key)]
    for one in due:
        publish(ledger, view, one.key)
    assert (missing.asked(), missing.told()) == ([], "")


def test_nothing_is_asked_for_before_its_schedule_had_the_time(missing, view):
    *_, newest = missing.due
    missing.now = newest.end + view.availability_delay + ASKED_AFTER - timedelta(seconds=1)
    assert missing.ranges()[-1][-1] != newest.key
    missing.now += timedelta(seconds=1)
    assert missing.ranges()[-1][-1] == newest.key


def test_what_waits_for_its_sources_is_asked_for_when_they_are_there(  # noqa: PLR0917
    ledger, ledger_url, registry, scheduled_instance, monkeypatch, view
):
    source = Source(
        name="shop.flights",
        schema="shop",
        table="flights",
        event_time="at",
        loaded_at_field="loaded_at",
        reporting_lag=HOUR,
        freshness=view.freshness,
        unique_id="source.tiny.shop.flights",
    )
    late = replace(registry, views={view.key: replace(view, sources=(source,))}, sources={source.unique_id: source})
    missing = Missing(ledger, ledger_url, late, scheduled_instance, monkeypatch)
    due = missing.due
    assert missing.asked() == []
    assert f"; {len(due)} of them wait for their sources" in missing.told()
    ledger.record_source_load(
        source.name, loaded_through=due[1].end + HOUR, row_count=1, watermark=due[1].end, run_id="run"
    )
    assert missing.ranges() == [(due[0].key, due[1].key)]
    assert f"; {len(due) - 2} of them wait for their sources" in missing.told()


def test_a_view_that_somebody_is_at_is_left_alone(missing, scheduled_instance, view):
    instance = scheduled_instance
    run = create_run_for_test(
        instance, job_name="any", asset_selection={keys.view_key(view)}, status=dg.DagsterRunStatus.STARTING
    )
    assert missing.asked() == []
    instance.delete_run(run.run_id)
    name = "daily_features_after_90_min"
    run = create_run_for_test(instance, job_name=name, status=dg.DagsterRunStatus.STARTED)
    assert missing.asked() == [], "a job of the view's, as a whole"
    instance.delete_run(run.run_id)
    create_run_for_test(instance, job_name="another", status=dg.DagsterRunStatus.STARTED)
    assert missing.asked()


def test_a_switched_off_schedule_is_not_gone_round(missing, scheduled_instance):
    assert missing.asked()
    state = InstigatorState(
        RemoteInstigatorOrigin(origin("__repository__"), "daily_features_after_90_min"),
        InstigatorType.SCHEDULE,
        InstigatorStatus.STOPPED,
        ScheduleInstigatorData("30 1 * * *", start_timestamp=0.0),
    )
    scheduled_instance.add_instigator_state(state)
    assert missing.asked() == []


def test_what_failed_runs_tell_of_is_not_told_as_missing_too(missing, ledger, registry, view):
    def opened() -> set[str]:
        also = find_elsewhere(
            dg.build_sensor_context(instance=missing.instance), missing.settings, registry, ledger, now=missing.now
        )
        watch(ledger, registry, stores=("default",), now=missing.now, log=lambda: logging.getLogger("test"), also=also)
        return {one.kind for one in ledger.incidents(open_only=True)} & {"missing", "run_failed"}

    assert opened() == {"missing"}
    Jobs(view, missing.instance).run("daily", DAY)
    opened()
    assert opened() == {"run_failed"}


def test_what_was_cut_off_with_its_run_is_asked_for_again_some_times(missing, ledger, view):
    first, second, *rest = missing.due
    for one in rest:
        publish(ledger, view, one.key)
    publish(ledger, view, second.key, passes=False)  # found bad: the same rows would be bad again

    def cut_off() -> None:
        (batch,) = ledger.open_batches(view, [first], run_id="dead")
        assert missing.ranges() == [], "somebody may be computing it"
        ledger.record_failed([batch.batch_id], "its run ended as failure and left it unfinished", interrupted=True)

    for _ in range(MAX_ATTEMPTS - 1):
        cut_off()
        assert missing.ranges() == [(first.key, first.key)]
        assert missing.told() == "", "that it failed is told already"
    cut_off()
    assert missing.ranges() == []


def test_a_run_that_says_nothing_for_long_and_a_queue_that_stands_still(instance, registry):
    create_run_for_test(
        instance,
        job_name="waits",
        status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=RemoteJobOrigin(origin("__repository__"), "waits"),
    )
    now = datetime.now(UTC)
    assert told(find_stuck_runs(instance, registry, now=now)) == {}
    assert set(told(find_stuck_runs(instance, registry, now=now + HOUR / 2))) == {"queue"}
    run = create_run_for_test(instance, job_name="hangs", status=dg.DagsterRunStatus.STARTED)
    assert told(find_stuck_runs(instance, registry, now=now + HOUR / 2)) == {}
    found = told(find_stuck_runs(instance, registry, now=now + 2 * HOUR))
    assert set(found) == {f"run {run.run_id}"}
    assert "of hangs is in progress and has said nothing for" in found[f"run {run.run_id}"].message


def test_after_a_pause_nothing_is_judged_that_was_away_itself(missing, ledger, registry):
    def judged(last_tick: datetime | None) -> set[str]:
        context = dg.build_sensor_context(instance=missing.instance)
        context._last_tick_completion_time = last_tick and last_tick.timestamp()
        return set(find_elsewhere(context, missing.settings, registry, ledger, now=missing.now))

    at_once = {"unreachable", "clock", "leaks", "run_failed"}
    assert judged(None) == judged(missing.now - HOUR) == at_once
    assert judged(missing.now - HOUR / 60) == at_once | {"run_stuck", "canary"}


def test_the_watch_looks_for_every_kind_that_the_ledger_does_not_know(missing, ledger, registry, view, repository):
    """One of each at once: what a look finds is what people are told."""
    instance = missing.instance
    Jobs(view, instance).run("daily", DAY)
    audit(instance, view, passed=False)
    create_run_for_test(instance, job_name="hangs", status=dg.DagsterRunStatus.STARTED)
    with pytest.raises(ClockSkewError):
        ledger.check_clock(machine="ahead", clock=lambda: datetime.now(UTC) + 2 * HOUR)
    context = dg.build_sensor_context(instance=instance, repository_def=repository, sensor_name="incidents")
    context._last_tick_completion_time = (missing.now - HOUR / 60).timestamp()
    found = find_elsewhere(context, missing.settings, registry, ledger, now=missing.now)
    found_of = {kind: {one.subject for one in problems} for kind, problems in found.items()}
    assert found_of["unreachable"] == {"store default"}
    assert found_of["clock"] == {"workers"}
    assert found_of["run_failed"] == {view.key}
    assert found_of["leaks"] == {view.key}
    assert len(found_of["run_stuck"]) == 1
    assert found_of["canary"] == {"store default"}
    assert found_of["automation"] == {"schedule every_ten", "sensor looks"}
    # the routes are judged by the notices that are sent
    assert {*found, "route"} == {*WATCH_KINDS}


@pytest.fixture
def repository() -> dg.RepositoryDefinition:
    @dg.job
    def work() -> None: ...

    @dg.schedule(
        job=work, cron_schedule="*/10 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING, name="every_ten"
    )
    def every_ten(): ...

    @dg.schedule(job=work, cron_schedule="0 4 * * *", name="by_hand")
    def by_hand(): ...

    @dg.sensor(name="looks", minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING, job=work)
    def looks(): ...

    return dg.Definitions(jobs=[work], schedules=[every_ten, by_hand], sensors=[looks]).get_repository_def()


def origin(repository: str) -> RemoteRepositoryOrigin:
    return RemoteRepositoryOrigin(InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file="x.py")), repository)


class Daemon:
    """What a daemon leaves of its rounds."""

    def __init__(self, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> None:
        self.instance = instance
        self.repository = origin(repository.name)

    def state(self, name: str, *, ticked_at: datetime, status: InstigatorStatus) -> InstigatorState:
        at = ticked_at.timestamp()
        if name == "looks":
            kind, data = InstigatorType.SENSOR, SensorInstigatorData(last_tick_timestamp=at, min_interval=60)
        else:
            kind, data = InstigatorType.SCHEDULE, ScheduleInstigatorData("*/10 * * * *", start_timestamp=at)
        return InstigatorState(RemoteInstigatorOrigin(self.repository, name), kind, status, data)

    def saw(
        self, name: str, *, ticked_at: datetime, status: InstigatorStatus = InstigatorStatus.DECLARED_IN_CODE
    ) -> None:
        state = self.state(name, ticked_at=ticked_at, status=status)
        if self.instance.get_instigator_state(state.instigator_origin_id, state.selector_id):
            self.instance.update_instigator_state(state)
        else:
            self.instance.add_instigator_state(state)

    def failed(self, name: str, *, at: datetime, status: TickStatus = TickStatus.FAILURE) -> None:
        state = self.state(name, ticked_at=at, status=InstigatorStatus.DECLARED_IN_CODE)
        self.instance.create_tick(
            TickData(
                instigator_origin_id=state.instigator_origin_id,
                instigator_name=name,
                instigator_type=state.instigator_type,
                status=status,
                timestamp=at.timestamp(),
                error=SerializableErrorInfo("it broke", [], None) if status is TickStatus.FAILURE else None,
                selector_id=state.selector_id,
            )
        )


def test_schedules_and_sensors_that_are_off_silent_or_failing(repository, registry):
    with dg.instance_for_test() as instance:
        check_automation(instance, repository, registry)


def check_automation(instance, repository, registry) -> None:
    now = datetime(2026, 3, 5, 12, 5, tzinfo=UTC)
    daemon = Daemon(instance, repository)

    def dead() -> dict[str, str]:
        found = told(find_dead_automation(instance, repository, registry, now=now, itself="incidents"))
        assert all(problem.owner == PLATFORM for problem in found.values())
        return {subject: problem.message.removeprefix(subject) for subject, problem in found.items()}

    never = " was never seen by the daemon"
    assert dead() == {"schedule every_ten": never, "sensor looks": never}
    daemon.saw("every_ten", ticked_at=now - timedelta(minutes=25))
    daemon.saw("looks", ticked_at=now - timedelta(minutes=9))
    assert dead() == {}
    daemon.saw("every_ten", ticked_at=now - timedelta(minutes=36))
    daemon.saw("looks", ticked_at=now - timedelta(minutes=11))
    assert dead() == {
        "schedule every_ten": " has not ticked since 2026-03-05T11:29+00:00, for 3 of its intervals",
        "sensor looks": " has not ticked for 11 min",
    }
    for name in ("every_ten", "looks"):
        daemon.saw(name, ticked_at=now, status=InstigatorStatus.STOPPED)
    off = " is switched off, though it is declared to run"
    assert dead() == {"schedule every_ten": off, "sensor looks": off}
    for name in ("every_ten", "looks"):
        daemon.saw(name, ticked_at=now)
        for minute in (3, 2):
            daemon.failed(name, at=now - timedelta(minutes=minute))
    assert set(dead()) == {"schedule every_ten"}  # a sensor tries again within a minute
    daemon.failed("looks", at=now)
    assert set(dead()) == {"schedule every_ten", "sensor looks"}
    for name in ("every_ten", "looks"):  # the next one is under way while it is looked at
        daemon.failed(name, at=now, status=TickStatus.STARTED)
    assert set(dead()) == {"schedule every_ten", "sensor looks"}


def test_a_store_that_does_not_answer_is_felt_by_consumers_with_a_need(registry, valkey_server):
    stores = {"eu": valkey_server, "us": "valkey://127.0.0.1:1"}
    needless = replace(
        registry.service("prediction"), name="report", latency_budget=None, owner=replace(CONSUMER, name="reporting")
    )
    services = dict(registry.services) | {"report": needless}
    (problem,) = find_unreachable(replace(registry, services=services), stores)
    assert (problem.subject, problem.owner, problem.consumers) == ("store us", PLATFORM, (CONSUMER,))
    assert "read by prediction, report" in problem.impact


def test_a_machine_whose_clock_is_wrong_begins_nothing_until_it_is_right_again(ledger, registry, monkeypatch):
    monkeypatch.setattr(clocks, "_ASKED_AGAIN_AFTER_SECONDS", 0.0)
    assert ledger.clock_ahead() == timedelta(0)
    ledger.check_clock(machine="right")
    assert not told(find_wrong_clocks(ledger, registry))

    for machine, ahead in (("ahead", 2 * HOUR), ("behind", -2 * HOUR)):
        with pytest.raises(ClockSkewError, match=f"on {machine}"):
            ledger.check_clock(machine=machine, clock=lambda by=ahead: datetime.now(UTC) + by)
    ((subject, problem),) = told(find_wrong_clocks(ledger, registry)).items()
    assert subject == "workers"
    assert problem.owner == PLATFORM
    assert "the clock of ahead is 2 h ahead of the ledger's; the clock of behind is 2 h behind" in problem.message

    # what differs by less than a minute is network and drift
    ledger.check_clock(machine="ahead", clock=lambda: datetime.now(UTC) + timedelta(seconds=50))
    ledger.check_clock(machine="behind")
    assert not told(find_wrong_clocks(ledger, registry))

    # a clock that is set while it is looked at was never wrong
    looks = iter([2 * HOUR, 2 * HOUR, timedelta(0), timedelta(0)])
    ledger.check_clock(machine="woken", clock=lambda: datetime.now(UTC) + next(looks))


def test_a_difference_stays_open_until_the_same_entities_are_found_equal(ledger, registry, view):
    def check(seed: str, differing: int, *, fraction: float = 0.1, only_late: bool = False) -> set[str]:
        ledger.record_parity(
            view=view.key,
            store="default",
            compared=10,
            differing=differing,
            only_late=only_late,
            fraction=fraction,
            seed=seed,
            outcomes={},
            causes={"lost write": differing},
            seconds=0.1,
        )
        return {problem.kind for problem in find_problems(ledger, registry, stores=("default",), now=view.begin)}

    assert check("a", 0) == set()
    assert check("a", 2, only_late=True) == set()
    assert check("a", 2) == {"parity"}
    assert check("b", 0) == {"parity"}, "another sample proves nothing"
    assert check("a", 0, fraction=0.05) == {"parity"}, "a part of the sample proves nothing of the rest"
    assert check("a", 0) == set()
    assert check("c", 1) == {"parity"}
    assert check("d", 0, fraction=1.0) == set()


def test_a_service_is_told_of_values_older_than_it_needs_if_the_view_can_be_that_fresh(ledger, registry, view):
    def needs(freshness: timedelta) -> list[Problem]:
        service = replace(registry.services["prediction"], freshness=freshness)
        declared = FeatureRegistry(
            views=registry.views, services={service.name: service}, sources={}, latest=registry.latest
        )
        return list(find_problems(ledger, declared, stores=("eu", "us"), now=view.begin + timedelta(days=3)))

    publish(ledger, view, "2026-03-01")
    sync_id = ledger.begin_sync(view.key, "eu", 0, 1, server_run_id="s", run_id="r")
    ledger.end_sync(sync_id, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)
    assert needs(timedelta(days=4)) == []
    assert needs(3 * HOUR) == [], "a daily view never is three hours fresh"
    found = needs(timedelta(hours=40))
    assert [(one.kind, one.subject, one.owner) for one in found] == [
        ("need", f"{view.key} in store {store} for prediction", CONSUMER) for store in ("eu", "us")
    ]


def test_who_is_told_what_once_and_again(ledger, registry, tmp_path):
    """Owner, consumer, escalation; a route that fails is told to the platform's people and gets its notices later."""
    taken: dict[str, list[str]] = {}
    broken: set[str] = set()
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notice = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = self.path.strip("/")
            if name not in broken:
                taken.setdefault(name, []).append(f"{notice['status']} {notice['kind']} {notice['severity']}")
            self.send_response(503 if name in broken else 200)
            self.end_headers()

        def log_message(self, *_) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environ = {
        name: f"http://127.0.0.1:{server.server_port}/{name}" for name in ("owner", "consumer", "boss", "platform")
    }
    owner = Owner(
        name="ops",
        email="ops@example.com",
        routes=("${owner}",),
        remind_after=4 * HOUR,
        escalation_routes=("${boss}",),
    )
    consumer = replace(CONSUMER, routes=("${consumer}",))
    view, service = registry.view("carrier_delays"), registry.service("prediction")
    declared = FeatureRegistry(
        views={view.key: replace(view, owner=owner)},
        services={service.name: replace(service, owner=consumer)},
        sources={},
        latest=registry.latest,
        platform=replace(PLATFORM, routes=("${platform}",)),
    )

    def look(*, severity: str | None, hours: int = 0) -> int:
        problem = Problem(
            kind="lost",
            subject="carrier_delays@1 in store eu",
            severity=severity or "warn",
            owner=owner,
            message="it is lost",
            consumers=(consumer,),
        )
        report = watch(
            ledger,
            declared,
            stores=("eu",),
            now=datetime.now(UTC) + hours * HOUR,
            log=lambda: LOG,
            also={"lost": [problem] if severity else []},
            environ=environ,
        )
        return report.untold

    try:
        broken.add("owner")
        assert look(severity="warn") == 1
        assert taken == {"consumer": ["firing lost warn"], "platform": ["firing route error"]}
        broken.clear()
        assert look(severity="warn") == 0
        assert look(severity="warn") == 0
        assert taken["owner"] == ["firing lost warn"]
        assert taken["platform"] == ["firing route error", "resolved route error"]
        look(severity="error")
        look(severity="warn")  # it got better: recorded, and nobody is woken
        look(severity="error", hours=5)
        look(severity="error", hours=6)
        assert taken["owner"] == ["firing lost warn", *["firing lost error"] * 2]
        assert taken["boss"] == ["firing lost error"]
        for _ in range(2):
            look(severity=None)
        assert {name: notices[-1] for name, notices in taken.items()} == {
            "owner": "resolved lost error",
            "consumer": "resolved lost error",
            "boss": "resolved lost error",
            "platform": "resolved route error",
        }
        assert ledger.incidents(open_only=True) == ()
        assert "watch" in ledger.heartbeats()
        variable = environ.pop("owner")  # the watch was begun again, in a shell without it
        look(severity=None)
        (incident,) = ledger.incidents(open_only=True)
        assert (incident.kind, incident.subject) == ("route", "route 1 of ops")
        assert "a variable that it names is not set" in incident.message
        environ["owner"] = variable
        look(severity=None)
        assert ledger.incidents(open_only=True) == ()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_silence_hides_notices_and_nothing_else_and_says_at_its_end_what_is_open(ledger, registry, caplog):
    caplog.set_level(logging.INFO, logger=LOG.name)

    def look(*kinds: str, minutes: int = 0) -> list[str]:
        """The notices of a look at problems of these kinds."""
        caplog.clear()
        problems = {
            kind: [Problem(kind=kind, subject="carrier_delays@1", severity="error", owner=PLATFORM, message=kind)]
            for kind in kinds
        }
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        everything = {kind: problems.get(kind, []) for kind in ("lost", "parity", "failing")}
        watch(ledger, registry, stores=("eu",), now=now, log=lambda: LOG, also=everything, environ={})
        return [record.message for record in caplog.records]

    assert len(look("lost")) == 1
    ledger.add_silence(view="carrier_delays@1", kind=None, why="it is moved", made_by="me", lasts=HOUR)
    ledger.add_silence(view=None, kind="stale", why="another kind", made_by="me", lasts=3 * HOUR)
    assert look("lost", "parity", "failing") == []
    assert {one.kind for one in ledger.incidents(open_only=True)} == {"lost", "parity", "failing"}
    assert look("lost", "parity") == [], "it began and was over, and nobody was told of either"
    after = look("lost", "parity", minutes=61)
    assert len(after) == 2
    assert all("the silence is over (it is moved), and this is still open" in message for message in after)
    assert look("lost", "parity", minutes=62) == []
    assert [message.partition(" ")[0] for message in look(minutes=63)] == ["[resolved]"] * 2


def test_a_kind_that_was_not_looked_for_stays_as_it_is(ledger, registry):
    problem = Problem(kind="run_stuck", subject="queue", severity="error", owner=PLATFORM, message="it stands still")
    now = datetime.now(UTC)
    watch(ledger, registry, stores=("eu",), now=now, log=lambda: LOG, also={"run_stuck": [problem]}, environ={})
    watch(ledger, registry, stores=("eu",), now=now, log=lambda: LOG, environ={})
    assert [one.kind for one in ledger.incidents(open_only=True)] == ["run_stuck"]
    watch(ledger, registry, stores=("eu",), now=now, log=lambda: LOG, also={"run_stuck": []}, environ={})
    assert ledger.incidents(open_only=True) == ()


def test_every_kind_says_what_it_means_for_whom_and_what_to_run():
    for kind in KINDS.values():
        assert kind.impact
        assert kind.page.endswith(".md")
        assert kind.command.startswith("feature-platform ")


def test_what_fails_all_the_time_does_not_hide_what_failed_once(ledger, instance, registry, view, monkeypatch):
    """Of 60 failed runs the first is of another job."""
    jobs = Jobs(view, instance)
    jobs.run("maintain")
    for _ in range(60):
        create_run_for_test(instance, job_name="look", status=dg.DagsterRunStatus.FAILURE)
    found = told(find_failed_runs(instance, ledger, registry, now=datetime.now(UTC)))
    assert set(found) == {"platform/maintenance", "look"}
    assert "60 run(s) failed" in found["look"].message


def test_a_failed_comparison_of_a_view_does_not_hide_its_missing_partitions(missing, ledger, registry, view):
    @dg.asset(key=keys.parity_key(view))
    def compares() -> None:
        raise ValueError("no store")

    dg.materialize([compares], instance=missing.instance, raise_on_error=False)

    def opened() -> set[tuple[str, str]]:
        also = find_elsewhere(
            dg.build_sensor_context(instance=missing.instance), missing.settings, registry, ledger, now=missing.now
        )
        watch(ledger, registry, stores=("default",), now=missing.now, log=lambda: LOG, also=also, environ={})
        return {(one.kind, one.subject) for one in ledger.incidents(open_only=True)} - {("stale", "x")}

    opened()
    place = f"{view.key} in asset {keys.parity_key(view).to_user_string()}"
    assert {("run_failed", place), ("missing", view.key)} <= opened()


def test_failed_runs_of_a_backfill_are_told_apart_from_what_is_due(ledger, instance, registry, view):
    jobs = Jobs(view, instance)
    run_id = jobs.run("daily", DAY)
    instance.add_run_tags(run_id, {"dagster/backfill": "history"})
    look = lambda: set(told(find_failed_runs(instance, ledger, registry, now=datetime.now(UTC))))  # noqa: E731
    assert look() == {f"{view.key} in runs of backfill history"}
    jobs.run("daily", "2026-03-06")
    assert look() == {f"{view.key} in runs of backfill history", view.key}


def test_a_run_that_was_never_queued_is_told(instance, registry):
    run = create_run_for_test(instance, job_name="daily", status=dg.DagsterRunStatus.NOT_STARTED)
    now = datetime.now(UTC)
    assert told(find_stuck_runs(instance, registry, now=now + HOUR / 2)) == {}
    found = told(find_stuck_runs(instance, registry, now=now + 2 * HOUR))
    assert "of daily was made" in found[f"run {run.run_id}"].message


def test_one_kind_that_cannot_be_judged_leaves_the_others_and_is_told(missing, ledger, registry, monkeypatch):
    context = dg.build_sensor_context(instance=missing.instance)
    state = {"automation": "switched off"}
    ledger.open_incident(kind="automation", subject="sensor x", severity="error", owner="platform", message="off")

    def breaks(*_: object, **__: object):
        raise KeyError(state["automation"])

    monkeypatch.setattr(sensors, "find_failed_runs", breaks)
    found = find_elsewhere(context, missing.settings, registry, ledger, now=missing.now)
    assert "run_failed" not in found
    assert [one.subject for one in found["unreachable"]] == ["store default"]
    assert [one.subject for one in found["automation"]] == ["sensor x", "look for run_failed"], "what is open stays"
    monkeypatch.undo()
    assert "automation" not in find_elsewhere(context, missing.settings, registry, ledger, now=missing.now)


def test_a_store_that_refuses_the_password_is_told_and_the_watch_goes_on(registry, valkey_server):
    (problem,) = find_unreachable(registry, {"eu": valkey_server.replace("://", "://nobody:wrong@")})
    assert problem.subject == "store eu"
    assert "wrong@" not in problem.message


def test_a_beat_ahead_of_the_clock_does_not_keep_a_dead_part_alive(ledger):
    now = datetime.now(UTC)
    ledger.beat({"watch": now + 24 * HOUR})  # the clock of Postgres was a day ahead, and was set back
    ledger.beat({"watch": now})
    assert ledger.heartbeats()["watch"] == now
    ledger.beat({"watch": now - HOUR})
    assert ledger.heartbeats()["watch"] == now


def test_a_backfill_that_was_given_up_is_told_until_its_partitions_are_published(missing, ledger, registry, view):
    jobs = Jobs(view, missing.instance)
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="lost",
        asset_graph=jobs.repository.asset_graph,
        partition_names=[DAY, "2026-03-06"],
        asset_selection=[keys.view_key(view)],
        backfill_timestamp=datetime.now(UTC).timestamp(),
        tags={},
        dynamic_partitions_store=missing.instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    error = SerializableErrorInfo("the code server\nwent away", [], None)
    look = lambda: told(  # noqa: E731
        find_failed_backfills(missing.instance, ledger, registry, now=datetime.now(UTC))
    )
    missing.instance.add_backfill(backfill)
    assert look() == {}
    missing.instance.update_backfill(backfill.with_status(BulkActionStatus.FAILED).with_error(error))
    publish(ledger, view, DAY)
    ((subject, problem),) = look().items()
    assert subject == f"{view.key} in backfill lost"
    assert "1 of its 2 partition(s)" in problem.message and "the code server went away" in problem.message
    publish(ledger, view, "2026-03-06")
    assert look() == {}
