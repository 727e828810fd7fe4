"""Replay on real data: tick by tick, what the client reads is what plain SQL over the raw files says.

At each tick of the project's own schedules nothing but what had arrived by then is in the lake; the run that the
schedule asks for computes, audits, publishes and syncs; then every entity is read with the client's clock at the tick
and compared, feature by feature, with `raw_flights`, which shares no code with the platform.

Ticks are recent, because Valkey forgets rows by its own clock: a daily row lives for 6 days, an aircraft's state for 6
hours, and the first of its ticks lies up to 5 hours back. Which part of the data is recent is free: it is moved by
whole weeks. The week taken is one in which weather stations were silent in the hours that are replayed, if there is one
for this hour of the week.

The two readings of the raw files agree on every flight but one (VX from JFK to LAX on 3 November 2013, when clocks
showed its arrival twice: 08:14 or 09:14 UTC). No window begins or ends between the two, so nothing is left out here.
"""

from __future__ import annotations

import logging
import math
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import psycopg2
import pytest
import raw_flights

from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.lake import connect
from feature_platform.ledger import Ledger, migrate
from feature_platform.materialization import deploy
from feature_platform.offline import FeatureStore
from feature_platform.online import FeatureClient, FeatureStatus
from feature_platform.online.result import OnlineRow
from feature_platform.reference import SOURCES, fix_clock, load_source, prepare
from feature_platform.reference.clock import DATA_PRESENT
from feature_platform.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[2]
LOADING = "load_sources"
TICKS = {"monthly_features_after_90_min": 1, "daily_features_after_90_min": 5, "hourly_features_after_30_min": 5}
AIRCRAFT = 150
READS = 1_000
Key = dict[str, str]


@dataclass(kw_only=True)
class Replay:
    """A platform whose time is that of its last tick."""

    settings: Settings
    parquet_home: Path
    shift: timedelta
    raw: duckdb.DuckDBPyConnection
    repository: dg.RepositoryDefinition
    instance: dg.DagsterInstance
    now: datetime
    ends: dict[str, list[datetime]] = field(default_factory=dict)
    """Event timestamps served so far, by view."""

    @property
    def registry(self) -> FeatureRegistry:
        return load_registry(self.settings.manifest_path)

    def reveal(self, through: datetime) -> None:
        """Time passes: what arrives by then is in the lake, and nothing else."""
        self.now = through
        with Ledger.connect(self.settings.ledger_url) as ledger, closing(connect(self.settings)) as lake:
            for source in ("flights", "weather", "planes"):  # what the views read
                after = ledger.loaded_through(SOURCES[source].ledger_name)
                load_source(lake, ledger, source, home=self.parquet_home, through=through, after=after)
                (newest,) = lake.execute(f"select max(ingested_at) from lake.sources.{source}").fetchone()
                # an aircraft that was never seen before is rare
                assert through - timedelta(days=30 if source == "planes" else 0.5) < newest <= through

    def tick(self, schedule: str) -> dg.ExecuteInProcessResult:
        """What the daemon does at this instant: evaluate the schedule, execute the run it asks for."""
        definition = self.repository.get_schedule_def(schedule)
        context = dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=self.now, repository_def=self.repository
        )
        (request,) = definition.evaluate_tick(context).run_requests
        result = self.repository.get_job(definition.job_name).execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            asset_selection=list(request.asset_selection),
            tags=dict(request.tags),
        )
        assert result.success
        for key in request.asset_selection:
            if key.path[0] != "online":
                (event,) = result.asset_materializations_for_node(key.to_python_identifier())
                end = datetime.fromtimestamp(event.metadata["event_timestamp"].value, UTC)
                self.ends.setdefault(key.to_user_string(), []).append(end)
        return result

    def run(self, *assets: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        """Some assets, launched by hand."""
        selection = [dg.AssetKey.from_user_string(asset) for asset in assets]
        return self.repository.get_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance, partition_key=partition, asset_selection=selection, raise_on_error=False
        )

    def read(self, view: str, keys: list[Key]) -> tuple[OnlineRow, ...]:
        """The entities, as a client sees them at this instant."""
        with FeatureClient.connect(self.settings.valkey_url, timeout_seconds=30, clock=lambda: self.now) as client:
            return client.get_online_features([view], keys).rows

    def compare(self, view: str, keys: list[Key], ask: Callable[..., dict[str, Any] | None]) -> Counter[FeatureStatus]:
        """Read the entities and ask the raw files the same; how many reads were equal, by their status."""
        ttl = self.registry.view(view).ttl
        equal: Counter[FeatureStatus] = Counter()
        for key, row in zip(keys, self.read(view, keys), strict=True):
            # an entity that vanished from the newest partition is served from the one before, until its ttl
            answers = ((end, ask(self.raw, *key.values(), end)) for end in reversed(self.ends[view]))
            end, expected = next((answer for answer in answers if answer[1] is not None), (None, None))
            reading = row.views[f"{view}@1"]
            where = f"{view} {key} at {self.now}, data moved by {self.shift}"
            assert reading.event_timestamp == end, where
            if expected is None or self.now - end >= ttl:
                assert reading.status is (FeatureStatus.MISSING if expected is None else FeatureStatus.EXPIRED), where
                assert set(row.values.values()) == {None}, where
            else:
                assert reading.status in {FeatureStatus.FRESH, FeatureStatus.STALE}, where
                assert unequal(expected, row.values) == {}, where
            equal[reading.status] += 1
        return equal


def unequal(expected: dict[str, Any], found: Any) -> dict[str, tuple[Any, Any]]:
    """The features that differ. Means may differ in their last bits: rows are summed in another order."""
    return {
        name: (value, found[name])
        for name, value in expected.items()
        if value != found[name]
        and not (
            isinstance(found[name], float) and value is not None and math.isclose(value, found[name], rel_tol=1e-9)
        )
    }


def ticks(cron: str, *, before: datetime, count: int) -> list[datetime]:
    """The last instants of a cron line `M H D * *`, oldest first."""
    minute, hour, day, *_ = cron.split()
    found: list[datetime] = []
    instant = before.replace(second=0, microsecond=0)
    while len(found) < count:
        if instant.minute == int(minute) and hour in {"*", str(instant.hour)} and day in {"*", str(instant.day)}:
            found.insert(0, instant)
        instant -= timedelta(minutes=1)
    return found


def chosen_weeks(now: datetime) -> int:
    """By how many weeks to move the data so that the last hours lack observations."""
    observed = {(row[0], row[-2]) for row in raw_flights.weather()}
    hour = now.replace(minute=0, second=0, microsecond=0)
    last = (now - datetime(2013, 12, 28, tzinfo=UTC)) // timedelta(weeks=1) + 1

    def missing(weeks: int) -> int:
        hours = [hour - timedelta(weeks=weeks, hours=ago) for ago in range(1, 9)]
        return sum((origin, at) not in observed for origin in ("EWR", "JFK", "LGA") for at in hours)

    return max(range(last, last + 45), key=missing)


@pytest.fixture(scope="module")
def databases(postgres_server) -> Iterator[list[str]]:
    names = [f"replay_{uuid.uuid4().hex}" for _ in range(2)]

    def administer(statement: str) -> None:
        with closing(psycopg2.connect(f"dbname=postgres {postgres_server.keywords}")) as connection:
            connection.autocommit = True
            for name in names:
                connection.cursor().execute(statement.format(name))

    administer("create database {} template template0")
    yield names
    administer("drop database if exists {} with (force)")


@pytest.fixture(scope="module")
def replay(postgres_server, valkey_server: str, service_home: Path, databases: list[str]) -> Iterator[Replay]:
    import valkey

    with closing(valkey.Valkey.from_url(valkey_server)) as client:
        client.flushall()
        client.function_flush("SYNC")
    home = service_home / databases[0]
    (home / "lake").mkdir(parents=True)
    settings = Settings(
        project=PROJECT,
        home=home,
        ledger_url=postgres_server.url(databases[0]),
        lake_catalog=f"dbname={databases[1]} {postgres_server.keywords}",
        lake_data=str(home / "lake"),
        valkey_url=valkey_server,
        store="default",
        duckdb_memory="1GB",
    )
    now = datetime.now(UTC)
    migrate(settings.ledger_url)
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
        clock = fix_clock(ledger, now=DATA_PRESENT + timedelta(weeks=chosen_weeks(now)))
        prepare(lake, ledger)
    deploy(settings, environ=clock.dbt_environment)
    there = now - clock.shift
    with (
        dg.instance_for_test() as instance,
        closing(
            raw_flights.raw_database(
                shift=clock.shift, since=there - timedelta(days=40), until=there + timedelta(days=1)
            )
        ) as raw,
    ):
        yield Replay(
            settings=settings,
            parquet_home=service_home,
            shift=clock.shift,
            raw=raw,
            repository=code_location(settings),
            instance=instance,
            now=now - timedelta(weeks=1),
        )


def code_location(settings: Settings) -> dg.RepositoryDefinition:
    """The definitions as Dagster's code server builds them, from the environment."""
    from feature_platform.definitions import defs

    with pytest.MonkeyPatch.context() as environ, warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        for name in ("project", "home", "ledger_url", "lake_catalog", "lake_data", "valkey_url"):
            environ.setenv(PREFIX + name.upper(), str(getattr(settings, name)))
        return defs().get_repository_def()


def test_a_thousand_reads_are_what_the_raw_files_say(replay: Replay) -> None:
    now = datetime.now(UTC)
    due: dict[datetime, list[str]] = {}
    for schedule, count in TICKS.items():
        cron = replay.repository.get_schedule_def(schedule).cron_schedule
        for instant in ticks(cron, before=now, count=count):
            due.setdefault(instant, []).append(schedule)
    carriers, routes = all_carriers(replay.raw), all_routes(replay.raw)
    airports = [{"origin": origin} for origin in ("EWR", "JFK", "LGA")]
    register = some_aircraft(replay.raw, "select tailnum from planes", count=AIRCRAFT)
    served: Counter[FeatureStatus] = Counter()
    silent = 0
    for instant in sorted(due):
        replay.reveal(instant)
        for schedule in due[instant]:
            replay.tick(schedule)
        if "monthly_features_after_90_min" in due[instant]:
            served += replay.compare("aircraft_profile", register, raw_flights.aircraft_profile)
        if "daily_features_after_90_min" in due[instant]:
            served += replay.compare("carrier_delays", carriers, raw_flights.carrier_delays)
            served += replay.compare("route_delays", routes, raw_flights.route_delays)
        if "hourly_features_after_30_min" in due[instant]:
            served += replay.compare("airport_weather", airports, raw_flights.airport_weather)
            served += replay.compare("aircraft_state", aircraft_landed_before(replay), raw_flights.aircraft_state)
            silent += sum(
                (row.values["observation_age_minutes"] or 0) > 60 for row in replay.read("airport_weather", airports)
            )
    logging.getLogger(__name__).info(
        "%s reads at %s ticks equal: %s; %s of a silent station", served.total(), len(due), dict(served), silent
    )
    assert served[FeatureStatus.FRESH] >= READS


def some_aircraft(raw: duckdb.DuckDBPyConnection, query: str, *parameters: object, count: int) -> list[Key]:
    """Some of the aircraft that a query finds, always the same of one answer."""
    rows = raw.execute(f"from ({query}) order by md5(tailnum) limit {count}", list(parameters)).fetchall()
    return [{"tailnum": tailnum} for (tailnum,) in rows]


def aircraft_landed_before(replay: Replay) -> list[Key]:
    """Aircraft that landed within 16 hours: the oldest are in no row of the newest batches, nor are future ones."""
    recent = "select distinct tailnum from flights where tailnum is not null and landed_at between ? and ?"
    now, ahead = replay.now, timedelta(hours=2)
    return [
        *some_aircraft(replay.raw, recent, now - timedelta(hours=16), now, count=AIRCRAFT // 3),
        *some_aircraft(replay.raw, recent, now, now + ahead, count=AIRCRAFT // 30),
    ]


def all_carriers(raw: duckdb.DuckDBPyConnection) -> list[Key]:
    rows = raw.execute("select distinct carrier from flights order by 1").fetchall()
    return [{"carrier": carrier} for (carrier,) in rows]


def all_routes(raw: duckdb.DuckDBPyConnection) -> list[Key]:
    rows = raw.execute("select distinct origin, dest from flights order by all").fetchall()
    return [{"origin": origin, "dest": dest} for origin, dest in rows]


def test_a_batch_that_fails_its_checks_is_neither_served_nor_trained_on(replay: Replay) -> None:
    daily = "daily_features_after_90_min"
    (instant,) = ticks(replay.repository.get_schedule_def(daily).cron_schedule, before=datetime.now(UTC), count=1)
    if replay.now < instant:
        replay.reveal(instant)
    route = {"origin": "JFK", "dest": "LAX"}
    replay.now = instant
    replay.tick(daily)
    (served,) = replay.read("route_delays", [route])
    trained = training_row(replay, route)
    assert served.values["flights_28d"] > 0
    assert {name: trained[name] for name in served.values} == served.values

    # a report of a flight of two years comes in late; the view's own data test on the mean time in the air catches it
    end = replay.ends["route_delays"][-1]
    with closing(connect(replay.settings)) as lake:
        lake.execute(
            "insert into lake.sources.flights by name select * replace ('wrong' as flight_id, 1000000 as air_time)"
            " from lake.sources.flights where origin = 'JFK' and dest = 'LAX' and air_time > 0 and known_at < ?"
            " order by known_at desc limit 1",
            [end],
        )
    partition = f"{end - timedelta(days=1):%Y-%m-%d}"
    recomputed = replay.run("route_delays", "online/route_delays", partition=partition)
    assert not recomputed.success
    failed = [check.check_name for check in recomputed.get_asset_check_evaluations() if not check.passed]
    assert len(failed) == 1
    assert "air_time_mean_28d" in failed[0]
    with Ledger.connect(replay.settings.ledger_url) as ledger:
        (batch,) = ledger.batches("route_delays@1", run_id=recomputed.run_id)
    assert batch.state == "failed"
    with closing(connect(replay.settings, read_only=True)) as lake:
        (wrong,) = lake.execute(
            "select air_time_mean_28d from lake.batches.route_delays_v1"
            " where origin = 'JFK' and dest = 'LAX' and _batch_id = ?",
            [batch.batch.batch_id],
        ).fetchone()
    assert wrong > 900  # it is in the lake, and nobody can come by it

    assert replay.run("online/route_delays").success
    assert replay.read("route_delays", [route]) == (served,)
    assert training_row(replay, route) == trained


def training_row(replay: Replay, route: Key) -> dict[str, Any]:
    """The route's features in a training set, for a label at this instant."""
    store = FeatureStore(replay.settings, replay.registry)
    labels = duckdb.sql(
        "select $1 as origin, $2 as dest, $3::timestamptz as event_timestamp", params=[*route.values(), replay.now]
    ).to_arrow_table()
    (row,) = store.get_historical_features(labels, ["route_delays"], mode="modelled").to_arrow().to_pylist()
    return row
