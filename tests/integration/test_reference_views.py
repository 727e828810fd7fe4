"""The feature views on the real flights, against plain SQL that asks one question at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from dbt_runs import Dbt, arguments, batches_of, dbt_environment, parse

from feature_platform import lake
from feature_platform.declaration import load_registry
from feature_platform.domain.windows import Grain, partitions_between
from feature_platform.lake.sql import build_create_table
from feature_platform.ledger import Ledger
from feature_platform.reference import load_source, prepare
from feature_platform.reference.clock import FACT
from feature_platform.settings import Settings

PROJECT = Path(__file__).parents[2] / "dbt_project"
THROUGH = datetime(2013, 4, 2, tzinfo=UTC)


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory):
    target = tmp_path_factory.mktemp("reference_target")
    manifest = parse(PROJECT, target)
    return target, manifest, load_registry(target / "manifest.json")


@pytest.fixture
def dbt(parsed, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    target, manifest, registry = parsed
    home = tmp_path_factory.getbasetemp() / "reference_views"
    home.mkdir(exist_ok=True)
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        ledger.record_fact(FACT, "0")
        prepare(connection, ledger)
        for source in ("flights", "weather", "planes"):
            load_source(connection, ledger, source, home=home, through=THROUGH)
        for schema in ("staging", "batches"):
            connection.execute(f"create schema lake.{schema}")
        for view in registry.views.values():
            for statement in build_create_table(view):
                connection.execute(statement)
    dbt = Dbt(PROJECT, target, manifest, dbt_environment(settings))
    dbt.run("staging")
    return dbt


def rounded(rows: list[tuple]) -> list[tuple]:
    """Means of doubles may differ in their last bits: rows are summed in another order."""
    return [tuple(round(value, 9) if isinstance(value, float) else value for value in row) for row in rows]


def test_ninety_days_of_carrier_delays_in_one_run(dbt: Dbt, settings: Settings) -> None:
    days = list(partitions_between(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC), Grain.DAY))
    assert len(days) == 90
    batches = dbt.run("carrier_delays", batches_of(days))
    assert dbt.invoke(["test", "--select", "carrier_delays", "--exclude", "test_type:unit"], batches).success
    with lake.connect(settings) as connection:
        assert connection.execute(
            "select count(distinct _batch_id), count(distinct event_timestamp),"
            " bool_and(event_timestamp = _partition_start + interval 1 day) from lake.batches.carrier_delays_v1"
        ).fetchone() == (90, 90, True)
        written = connection.execute(
            "select * exclude (_batch_id, _partition_start) from lake.batches.carrier_delays_v1"
            " where day(event_timestamp) % 10 = 1 order by event_timestamp, carrier"
        ).fetchall()
        ends = sorted({row[1] for row in written})
        assert len(ends) == 11
        expected = [row for end in ends for row in _carrier_delays(connection, end)]
    assert rounded(written) == rounded(expected)


def _carrier_delays(connection: duckdb.DuckDBPyConnection, end: datetime) -> list[tuple]:
    """What carrier_delays should say as of one instant: a plain query per window."""
    windows = [
        {
            row[0]: row[1:]
            for row in connection.execute(
                """
                select carrier, count(*), avg(dep_delay),
                    count(*) filter (dep_delay > 15) / nullif(count(dep_delay), 0),
                    count(*) filter (cancelled) / count(*), avg(arr_delay), max(dep_delay)
                from lake.sources.flights where known_at < $end and known_at >= $end - to_days($days) group by carrier
                """,
                {"end": end, "days": days},
            ).fetchall()
        }
        for days in (1, 7, 28)
    ]
    nothing = (0, None, None, None, None, None)
    rows = []
    for carrier in sorted(windows[2]):
        day, week, month = (window.get(carrier, nothing) for window in windows)
        rows.append((carrier, end, *day[:4], *week[:4], *month[:4], *week[4:]))
    return rows


def test_routes_and_weather_of_some_partitions(dbt: Dbt, settings: Settings) -> None:
    day = list(partitions_between(datetime(2013, 3, 9, tzinfo=UTC), datetime(2013, 3, 12, tzinfo=UTC), Grain.DAY))
    hours = list(partitions_between(datetime(2013, 3, 9, tzinfo=UTC), datetime(2013, 3, 12, tzinfo=UTC), Grain.HOUR))
    batches = dbt.run("route_delays", batches_of([day[2], day[0]]))
    assert dbt.invoke(["test", "--select", "route_delays", "--exclude", "test_type:unit"], batches).success
    batches = dbt.run("airport_weather", batches_of(hours))
    assert dbt.invoke(["test", "--select", "airport_weather", "--exclude", "test_type:unit"], batches).success
    with lake.connect(settings) as connection:
        routes = connection.execute(
            "select origin, dest, flights_28d, dep_delay_mean_28d, flights_7d, air_time_mean_28d"
            " from lake.batches.route_delays_v1 where event_timestamp = '2013-03-12' order by all"
        ).fetchall()
        expected = connection.execute(
            "select origin, dest, count(*), avg(dep_delay), count(*) filter (known_at >= '2013-03-05'), avg(air_time)"
            " from lake.sources.flights where known_at < '2013-03-12' and known_at >= '2013-02-12'"
            " group by all order by all"
        ).fetchall()
        assert rounded(routes) == rounded(expected)
        assert connection.execute(
            "select count(distinct event_timestamp) from lake.batches.route_delays_v1"
        ).fetchone() == (2,)
        weather = connection.execute(
            "select origin, event_timestamp, temperature_f, wind_gust_mph, precipitation_in_3h, wind_speed_mph_max_24h"
            " from lake.batches.airport_weather_v1 order by all"
        ).fetchall()
        expected = connection.execute(
            """
            select origin, hour, newest.temp, newest.wind_gust,
                (select sum(precip) from lake.sources.weather w where w.origin = newest.origin
                    and known_at < hour and known_at >= hour - interval 3 hours),
                (select max(wind_speed) from lake.sources.weather w where w.origin = newest.origin
                    and known_at < hour and known_at >= hour - interval 24 hours)
            from (
                select hour, weather.* from lake.sources.weather as weather,
                    (select unnest(generate_series(timestamptz '2013-03-09 01:00', timestamptz '2013-03-12',
                        interval 1 hour)) as hour)
                where known_at < hour and known_at >= hour - interval 24 hours
                qualify row_number() over (partition by origin, hour order by known_at desc) = 1
            ) as newest
            order by all
            """
        ).fetchall()
        assert len(weather) == 72 * 3
        assert rounded(weather) == rounded(expected)


def test_aircraft_of_some_partitions(dbt: Dbt, settings: Settings) -> None:
    hours = list(partitions_between(datetime(2013, 3, 9, tzinfo=UTC), datetime(2013, 3, 11, tzinfo=UTC), Grain.HOUR))
    months = list(partitions_between(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC), Grain.MONTH))
    for view, partitions in (("aircraft_state", hours), ("aircraft_profile", months)):
        batches = dbt.run(view, batches_of(partitions))
        assert dbt.invoke(["test", "--select", view, "--exclude", "test_type:unit"], batches).success
    with lake.connect(settings) as connection:
        state = connection.execute(
            "select * exclude (_batch_id, _partition_start) from lake.batches.aircraft_state_v1 order by 2, 1"
        ).fetchall()
        assert len(state) > 48 * 200
        assert len({row[1] for row in state}) == 48
        assert rounded(state) == rounded(connection.execute(AIRCRAFT_STATE).fetchall())
        profile = connection.execute(
            "select * exclude (_batch_id, _partition_start) from lake.batches.aircraft_profile_v1 order by 2, 1"
        ).fetchall()
        assert profile == connection.execute(AIRCRAFT_PROFILE).fetchall()
        # a snapshot holds what its predecessor held, and what was seen since
        counts = {end.month: sum(row[1] == end for row in profile) for end in {row[1] for row in profile}}
        assert 2_400 < counts[2] < counts[3] < counts[4] < 3_322
        # nothing is known of flights without an aircraft, and many aircraft are in no register
        assert not any(row[0] is None for row in (*state, *profile))


AIRCRAFT_STATE = """
    with landings as (
        select hour, flights.*
        from lake.sources.flights as flights, (select unnest(generate_series(
            timestamptz '2013-03-09 01:00', timestamptz '2013-03-11', interval 1 hour)) as hour)
        where tailnum is not null and not cancelled and arrived_at < hour and arrived_at >= hour - interval 24 hours
    ),
    newest as (
        from landings
        qualify row_number() over (partition by tailnum, hour order by arrived_at desc, flight_id desc) = 1
    )
    select
        tailnum, hour, newest.arr_delay, newest.dep_delay, newest.diverted, newest.dest, newest.air_time,
        newest.arrived_at, (epoch(hour) - epoch(newest.arrived_at))::bigint // 60,
        (select count(*) from landings l where l.tailnum = newest.tailnum and l.hour = newest.hour),
        (select avg(arr_delay) from landings l where l.tailnum = newest.tailnum and l.hour = newest.hour),
        (select max(arr_delay) from landings l where l.tailnum = newest.tailnum and l.hour = newest.hour)
    from newest
    where arrived_at >= hour - interval 12 hours
    order by hour, tailnum
"""

AIRCRAFT_PROFILE = """
    with seen as (
        select tailnum, min(known_at) as first from lake.sources.flights group by tailnum
    )
    select
        tailnum, month, manufacturer, model, type, engine, engine in ('Turbo-fan', 'Turbo-jet'), engines, seats,
        ((month::date - built_on) / 365.25)::float, first::date
    from lake.sources.planes join seen using (tailnum),
        (values (timestamptz '2013-02-01'), (timestamptz '2013-03-01'), (timestamptz '2013-04-01')) as ends (month)
    where first < month
    order by month, tailnum
"""


def test_two_processes_append_to_one_table_at_once(dbt: Dbt, settings: Settings, tmp_path: Path) -> None:
    days = list(partitions_between(datetime(2013, 2, 1, tzinfo=UTC), datetime(2013, 2, 21, tzinfo=UTC), Grain.DAY))
    processes = []
    for number, chunk in enumerate((days[:10], days[10:])):
        variables = json.dumps({"feature_platform": {"batches": batches_of(chunk)}})
        command = [str(Path(sys.executable).with_name("dbt")), "run", "--select", "carrier_delays", "--vars", variables]
        environ = dict(os.environ) | dbt_environment(settings, SCRATCH=str(tmp_path / f"scratch{number}"))
        processes.append(subprocess.Popen([*command, *arguments(PROJECT, tmp_path / str(number))], env=environ))
    assert [process.wait(300) for process in processes] == [0, 0]
    with lake.connect(settings) as connection:
        assert connection.execute(
            "select count(distinct _batch_id), count(distinct _partition_start),"
            " count(*) = count(distinct (carrier, event_timestamp)) from lake.batches.carrier_delays_v1"
        ).fetchone() == (20, 20, True)


def test_unit_tests_need_no_service(parsed, tmp_path: Path) -> None:
    _, manifest, _ = parsed
    offline = Dbt(PROJECT, tmp_path, manifest, {})
    outcome = offline.invoke(["test", "--target", "offline", "--select", "test_type:unit"])
    assert outcome.success
    assert len(outcome.result.results) == 5
