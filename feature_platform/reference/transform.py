"""What each instant of the raw data means: local clock readings to UTC, and when a fact was known and reported.

Rule: nothing is known before it happened. SQL text only; `extract` runs it. The raw files give the scheduled departure
in UTC (`time_hour`) and every other time as a local clock reading without a date ("HHMM"; 2400 is midnight).

- A departure is its schedule plus its delay (agrees with `dep_time` for all 328,521 departures).
- An arrival is the instant nearest to departure + time in the air + 25 minutes of taxiing at which the clocks of the
  destination show `arr_time`, and the later one when the clock shows it twice (one flight, on 3 November).
  BQN, SJU, PSE and STT are not in `airports`; they keep Atlantic Standard Time all year.
- 1,175 flights departed and have no arrival delay: they were diverted. 717 of them report when they came in at last;
  the other 458 count as known three hours after the arrival that was to be expected at departure.
- A cancellation (8,255) is taken as known two hours after the scheduled departure: the data does not say when.
- Which aircraft flies is taken as known two hours before the scheduled departure; only the one that flew is on record.
- The aircraft register is one undated extract. An entry is known with the first flight of its aircraft: that proves it.
- An observation describes an hour and is known at its end. `time_hour` identifies it (local hours repeat in autumn).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

DBT_SOURCE = "nycflights13"
"""The name of the dbt source that holds all of these tables."""

CANCELLATION_KNOWN_AFTER = timedelta(hours=2)
DIVERSION_KNOWN_AFTER = timedelta(hours=3)
SCHEDULE_KNOWN_BEFORE = timedelta(days=30)
ASSIGNMENT_KNOWN_BEFORE = timedelta(hours=2)
TAXIING = timedelta(minutes=25)

ZONES = (
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Phoenix",
    "America/Los_Angeles",
    "America/Anchorage",
    "Pacific/Honolulu",
    "America/Puerto_Rico",
)
"""Where the flights go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSource:
    """One table of the lake's schema `sources`."""

    name: str
    files: tuple[str, ...]
    """Files of the data package it is made of; raw tables in `select` have the names of these."""
    columns: Mapping[str, str]
    """Column types, in order. Every `timestamptz` and `date` is moved by the clock's shift when it is loaded."""
    key: tuple[str, ...]
    select: str
    """Raw rows to rows of the table, on the data's own clock; a `flight_id` is added when it is loaded."""
    reporting_lag: timedelta
    partitioned_by: tuple[str, ...] = field(default=("year(ingested_at)", "month(ingested_at)"))

    @property
    def ledger_name(self) -> str:
        """The source in the ledger: as the registry names it, `<dbt source>.<table>`."""
        return f"{DBT_SOURCE}.{self.name}"


def interval(duration: timedelta) -> str:
    """The duration as a SQL literal."""
    return f"interval '{int(duration.total_seconds())} seconds'"


def _in_zone(instant: str) -> str:
    """SQL: between UTC and the clocks of `zone`, either way; with the zones as constants it is ten times faster."""
    cases = " ".join(f"when '{zone}' then timezone('{zone}', {instant})" for zone in ZONES)
    return f"case zone {cases} else error('no such zone: ' || zone) end"


def _with_instant(rows: str, name: str, *, reading: str, estimate: str) -> str:
    """SQL: the rows with a column for the instant nearest to the estimate at which clocks in `zone` show the reading.

    Args:
        rows: the query to extend; it has a column `zone`.
        name: the new column.
        reading: a clock reading as the data writes it, HHMM.
        estimate: an instant less than 12 hours off.
    """
    return f"""
        select * exclude (local_estimate, local_reading),
            -- days are added in local time: the days on which clocks change have 23 and 25 hours
            {
        _in_zone('''local_reading + case
                when local_reading - local_estimate > interval 12 hours then interval (-1) day
                when local_reading - local_estimate < interval (-12) hours then interval 1 day
                else interval 0 day end''')
    } as {name}
        from (
            select *,
                date_trunc('day', local_estimate) + to_minutes({reading} // 100 % 24 * 60 + {reading} % 100)
                    as local_reading
            from (select *, {_in_zone(estimate)} as local_estimate from ({rows}))
        )"""


_PLANNED = _with_instant(
    """
    select
        flights.*,
        make_date(flights.year, flights.month, flights.day) as service_date,
        coalesce(airports.tzone, 'America/Puerto_Rico') as zone,
        time_hour + to_minutes(flights.minute) as scheduled_departure_at
    from flights
    left join airports on airports.faa = flights.dest""",
    "scheduled_arrival_at",
    reading="sched_arr_time",
    # 450 miles an hour and half an hour on the ground: near enough to know the day
    estimate="scheduled_departure_at + to_minutes((30 + distance / 7.5)::bigint)",
)

_SCHEDULES = f"""
    select
        service_date, carrier, flight, origin, dest, scheduled_departure_at, scheduled_arrival_at, distance,
        scheduled_departure_at - {interval(SCHEDULE_KNOWN_BEFORE)} as known_at,
        known_at as ingested_at
    from ({_PLANNED})
"""

_ASSIGNMENTS = f"""
    select
        make_date(year, month, day) as service_date, carrier, flight, origin, tailnum,
        time_hour + to_minutes(minute) - {interval(ASSIGNMENT_KNOWN_BEFORE)} as known_at,
        known_at as ingested_at
    from flights
    where tailnum is not null
"""

_FLIGHTS_LAG = timedelta(minutes=15)
_DEPARTED = f"""
    select *,
        scheduled_departure_at + to_minutes(dep_delay) as departed_at,
        scheduled_arrival_at - scheduled_departure_at as planned_duration
    from ({_PLANNED})"""
_ARRIVED = _with_instant(
    _DEPARTED,
    "arrived_at",
    reading="arr_time",
    # a diverted flight came in at the first such reading after half the planned duration: no estimate is possible
    estimate=f"""case
        when arr_delay is not null then departed_at + to_minutes(air_time) + {interval(TAXIING)}
        else departed_at + planned_duration / 2 + interval 12 hours end""",
)
_FLIGHTS = f"""
    select
        service_date, carrier, flight, tailnum, origin, dest, scheduled_departure_at, scheduled_arrival_at,
        departed_at, arrived_at, dep_delay, arr_delay, air_time, distance,
        dep_time is null as cancelled,
        dep_time is not null and arr_delay is null as diverted,
        case
            when dep_time is null then scheduled_departure_at + {interval(CANCELLATION_KNOWN_AFTER)}
            when arrived_at is not null then arrived_at
            else departed_at + planned_duration + {interval(DIVERSION_KNOWN_AFTER)}
        end as known_at,
        known_at + {interval(_FLIGHTS_LAG)} as ingested_at
    from ({_ARRIVED})
"""

_PLANES = f"""
    select
        tailnum, make_date(year, 1, 1) as built_on, type, manufacturer, model, engines, seats, engine,
        first_known_at as known_at,
        known_at + {interval(_FLIGHTS_LAG)} as ingested_at
    from planes
    join (select tailnum, min(known_at) as first_known_at from ({_FLIGHTS}) group by tailnum) as seen using (tailnum)
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
            name="assignments",
            files=("flights.csv.zip",),
            columns={"flight_id": "varchar", "tailnum": "varchar"} | _CLOCKS,
            key=("flight_id",),
            select=_ASSIGNMENTS,
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
            files=("planes.csv", "flights.csv.zip", "airports.csv"),
            columns={
                "tailnum": "varchar",
                "built_on": "date",
                "type": "varchar",
                "manufacturer": "varchar",
                "model": "varchar",
                "engines": "integer",
                "seats": "integer",
                "engine": "varchar",
            }
            | _CLOCKS,
            key=("tailnum",),
            select=_PLANES,
            reporting_lag=_FLIGHTS_LAG,
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
