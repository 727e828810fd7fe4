"""The raw files as the world of a drill had them: moved to its time, each row with when the faults let it arrive.

Rule: as the judge, it imports nothing of the platform.
"""

from __future__ import annotations

import csv
import importlib.util
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb


def raw_flights(repository: Path) -> ModuleType:
    """The module that reads the files; it shares no code with the platform."""
    spec = importlib.util.spec_from_file_location("raw_flights", repository / "tests" / "e2e" / "raw_flights.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("tests/e2e/raw_flights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_raw(
    repository: Path, world: Mapping[str, Any], log: list[dict[str, Any]], *, tables: set[str]
) -> duckdb.DuckDBPyConnection:
    """The raw rows, moved to the drill's time, each with the instant at which the faults let it arrive."""
    module = raw_flights(repository)
    shift, since = timedelta(days=world["shift_days"]), datetime.fromisoformat(world["since"])
    raw = duckdb.connect()
    raw.execute("set timezone = 'UTC'")
    raw.execute(
        "create table flights_all (carrier varchar, flight varchar, tailnum varchar, origin varchar, dest varchar,"
        " dep_delay int, arr_delay int, air_time int, cancelled boolean, landed_at timestamptz, known_at timestamptz,"
        " ingested_at timestamptz)"
    )
    raw.execute(
        "create table weather_all (origin varchar, temp double, wind_speed double, wind_gust double, precip double,"
        " visib double, known_at timestamptz, ingested_at timestamptz)"
    )
    first = since - shift - timedelta(days=2)
    sources = {
        "flights": module.flights(first, first + timedelta(days=12)),
        "weather": (row for row in module.weather() if first <= row[-2] < first + timedelta(days=12)),
    }
    rows = {table: found for table, found in sources.items() if table in tables}
    with tempfile.TemporaryDirectory() as scratch:
        for table, found in rows.items():
            path = Path(scratch) / f"{table}.csv"
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(found)
            raw.execute(f"copy {table}_all from '{path}' (header false)")
    for table in rows:
        moved = ("known_at", "ingested_at", *(("landed_at",) if table == "flights" else ()))
        raw.execute(f"update {table}_all set " + ", ".join(f"{name} = {name} + $1" for name in moved), [shift])
        raw.execute(f"delete from {table}_all where known_at < $1", [since])
        raw.execute(f"alter table {table}_all add column arrived_at timestamptz")
        raw.execute(f"update {table}_all set arrived_at = ingested_at")
        raw.execute(f"create view {table} as from {table}_all where arrived_at <= getvariable('seen')")
    for line in log:
        if line["event"] == "held_back":
            raw.execute(
                f"update {line['table']}_all set arrived_at = greatest(arrived_at + $3::interval, $4::timestamptz)"
                " where ingested_at > $1 and ingested_at <= $2",
                [
                    datetime.fromisoformat(line["after"]),
                    datetime.fromisoformat(line["through"]),
                    timedelta(seconds=line["seconds"]),
                    datetime.fromisoformat(line["until"]),
                ],
            )
    return raw
