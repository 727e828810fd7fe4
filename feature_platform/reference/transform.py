"""What each instant of the raw data means: local clock readings to UTC, and when a fact was known and reported.

Rule: nothing is known before it happened. SQL text only; `extract` runs it. The raw files give the scheduled departure
in UTC (`time_hour`) and every other time as a local clock reading without a date ("HHMM"; 2400 is midnight).

- A departure is its schedule plus its delay (agrees with `dep_time` for all 328,521 departures).
- An arrival is the instant nearest to departure + time in the air + 25 minutes of taxiing at which the clocks of the
  destination show `arr_time`. Taken back by `arr_delay` it shows `sched_arr_time` for 327,340 of 327,346 arrivals.
  BQN, SJU, PSE and STT are not in `airports`; they keep Atlantic Standard Time all year.
- 1,175 flights departed and have no arrival delay: they were diverted. 717 of them report when they came in at last;
  the other 458 count as known three hours after the arrival that was to be expected at departure.
- A cancellation (8,255) is taken as known two hours after the scheduled departure: the data does not say when.
- An observation describes an hour and is known at its end. `time_hour` identifies it (local hours repeat in autumn).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

CANCELLATION_KNOWN_AFTER = timedelta(hours=2)
DIVERSION_KNOWN_AFTER = timedelta(hours=3)
SCHEDULE_KNOWN_BEFORE = timedelta(days=30)
TAXIING = timedelta(minutes=25)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSource:
    """One table of the lake's schema `sources`."""

    name: str
    files: tuple[str, ...]
    """Files of the data package it is made of; raw tables in `select` have the names of these."""
    columns: Mapping[str, str]
    """Column types, in order. Every `timestamptz` is moved by the clock's shift when it is loaded."""
    key: tuple[str, ...]
    select: str
    """Raw rows to rows of the table, on the data's own clock; a `flight_id` is added when it is loaded."""
    reporting_lag: timedelta
    partitioned_by: tuple[str, ...] = field(default=("year(ingested_at)", "month(ingested_at)"))


def interval(duration: timedelta) -> str:
    """The duration as a SQL literal."""
    return f"interval '{int(duration.total_seconds())} seconds'"


def nearest_instant(clock_reading: str, estimate: str, zone: str) -> str:
    """SQL: the instant nearest to `estimate` at which clocks in `zone` show the reading (minutes after midnight)."""
    local = f"timezone({zone}, {estimate})"
    reading = f"date_trunc('day', {local}) + to_minutes({clock_reading})"
    # days are added in local time: a day of the change of the clocks has 23 or 25 hours
    return (
        f"timezone({zone}, {reading} + case when {reading} - {local} > interval 12 hours then interval (-1) day"
        f" when {reading} - {local} < interval (-12) hours then interval 1 day else interval 0 day end)"
    )


def _minutes(reading: str) -> str:
    return f"({reading} // 100 % 24 * 60 + {reading} % 100)"


_PLANNED = f"""
    select
        flights.*,
        make_date(flights.year, flights.month, flights.day) as service_date,
        coalesce(airports.tzone, 'America/Puerto_Rico') as zone,
        time_hour + to_minutes(flights.minute) as scheduled_departure_at,
        -- 450 miles an hour and half an hour on the ground: near enough to know the day
        {
    nearest_instant(
        _minutes("sched_arr_time"),
        "(time_hour + to_minutes(flights.minute) + to_minutes((30 + distance / 7.5)::bigint))",
        "coalesce(airports.tzone, 'America/Puerto_Rico')",
    )
} as scheduled_arrival_at
    from flights
    left join airports on airports.faa = flights.dest
"""

_SCHEDULES = f"""
    select
        service_date, carrier, flight, origin, dest, scheduled_departure_at, scheduled_arrival_at, distance,
        scheduled_departure_at - {interval(SCHEDULE_KNOWN_BEFORE)} as known_at,
        known_at as ingested_at
    from ({_PLANNED})
"""

_FLIGHTS_LAG = timedelta(minutes=15)
_FLIGHTS = f"""
    with planned as ({_PLANNED}),
    departed as (
        select *, scheduled_departure_at + to_minutes(dep_delay) as departed_at from planned
    ),
    arrived as (
        select
            *,
            case
                when arr_delay is not null then {
    nearest_instant(_minutes("arr_time"), f"(departed_at + to_minutes(air_time) + {interval(TAXIING)})", "zone")
}
                -- diverted: some hours later than expected, so look around two hours after that
                when arr_time is not null then {
    nearest_instant(
        _minutes("arr_time"),
        "(departed_at + (scheduled_arrival_at - scheduled_departure_at) + interval 2 hours)",
        "zone",
    )
}
            end as arrived_at
        from departed
    )
    select
        service_date, carrier, flight, tailnum, origin, dest, scheduled_departure_at, scheduled_arrival_at,
        departed_at, arrived_at, dep_delay, arr_delay, air_time, distance,
        dep_time is null as cancelled,
        dep_time is not null and arr_delay is null as diverted,
        case
            when dep_time is null then scheduled_departure_at + {interval(CANCELLATION_KNOWN_AFTER)}
            when arrived_at is not null then arrived_at
            else departed_at + (scheduled_arrival_at - scheduled_departure_at) + {interval(DIVERSION_KNOWN_AFTER)}
        end as known_at,
        known_at + {interval(_FLIGHTS_LAG)} as ingested_at
    from arrived
"""

_WEATHER_LAG = timedelta(minutes=20)
_WEATHER = f"""
    select
        origin, time_hour as observed_hour, temp, dewp, humid, wind_dir, wind_speed, wind_gust, precip, pressure, visib,
        time_hour + interval 1 hour as known_at,
        known_at + {interval(_WEATHER_LAG)} as ingested_at
    from weather
"""

# registers without a clock: there from the beginning
_THERE = "timestamptz '2013-01-01 00:00:00+00' as known_at, known_at as ingested_at"

_CLOCKS = {"known_at": "timestamptz", "ingested_at": "timestamptz"}
_PLAN = {
    "flight_id": "varchar",
    "carrier": "varchar",
    "flight": "integer",
    "origin": "varchar",
    "dest": "varchar",
    "scheduled_departure_at": "timestamptz",
    "scheduled_arrival_at": "timestamptz",
    "distance": "integer",
}

SOURCES: Mapping[str, ReferenceSource] = {
    source.name: source
    for source in (
        ReferenceSource(
            name="flights",
            files=("flights.csv.zip", "airports.csv"),
            columns=_PLAN
            | {
                "tailnum": "varchar",
                "departed_at": "timestamptz",
                "arrived_at": "timestamptz",
                "dep_delay": "integer",
                "arr_delay": "integer",
                "air_time": "integer",
                "cancelled": "boolean",
                "diverted": "boolean",
            }
            | _CLOCKS,
            key=("flight_id",),
            select=_FLIGHTS,
            reporting_lag=_FLIGHTS_LAG,
        ),
        ReferenceSource(
            name="schedules",
            files=("flights.csv.zip", "airports.csv"),
            columns=_PLAN | _CLOCKS,
            key=("flight_id",),
            select=_SCHEDULES,
            reporting_lag=timedelta(0),
        ),
        ReferenceSource(
            name="weather",
            files=("weather.csv",),
            columns={"origin": "varchar", "observed_hour": "timestamptz"}
            | dict.fromkeys(
                ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
                "double",
            )
            | _CLOCKS,
            key=("origin", "observed_hour"),
            select=_WEATHER,
            reporting_lag=_WEATHER_LAG,
        ),
        ReferenceSource(
            name="planes",
            files=("planes.csv",),
            columns={
                "tailnum": "varchar",
                "year": "integer",
                "type": "varchar",
                "manufacturer": "varchar",
                "model": "varchar",
                "engines": "integer",
                "seats": "integer",
                "engine": "varchar",
            }
            | _CLOCKS,
            key=("tailnum",),
            select=f"select tailnum, year, type, manufacturer, model, engines, seats, engine, {_THERE} from planes",
            reporting_lag=timedelta(0),
            partitioned_by=(),
        ),
        ReferenceSource(
            name="airports",
            files=("airports.csv",),
            columns={"faa": "varchar", "name": "varchar", "lat": "double", "lon": "double", "tzone": "varchar"}
            | _CLOCKS,
            key=("faa",),
            select=f"select faa, name, lat, lon, tzone, {_THERE} from airports",
            reporting_lag=timedelta(0),
            partitioned_by=(),
        ),
        ReferenceSource(
            name="airlines",
            files=("airlines.csv",),
            columns={"carrier": "varchar", "name": "varchar"} | _CLOCKS,
            key=("carrier",),
            select=f"select carrier, name, {_THERE} from airlines",
            reporting_lag=timedelta(0),
            partitioned_by=(),
        ),
    )
}
