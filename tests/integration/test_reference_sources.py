"""The reference data: what its instants mean, and loads that can be repeated, interrupted and run side by side."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest

from feature_platform import lake
from feature_platform.errors import NotDeployedError, UnknownNameError
from feature_platform.ledger import Ledger
from feature_platform.reference import SOURCES, fix_clock, load_source, prepare
from feature_platform.reference.clock import FACT
from feature_platform.reference.extract import data_file, parquet_file
from feature_platform.settings import Settings

OCTOBER = datetime(2013, 10, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def reference_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose Parquet files are made once per session."""
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def sources(settings: Settings) -> Settings:
    """Empty source tables; the data on its own clock."""
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        ledger.record_fact(FACT, "0")
        prepare(connection, ledger)
    return settings


def load(settings: Settings, home: Path, source: str, through: datetime, after: datetime | None = None):
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        return load_source(connection, ledger, source, home=home, through=through, after=after)


def query(settings: Settings, sql: str) -> list[tuple]:
    with lake.connect(settings) as connection:
        return connection.execute(sql).fetchall()


def test_a_flight_is_known_when_it_has_arrived(reference_home: Path) -> None:
    """Every 40th raw flight, its arrival computed another way: from the schedule and the delay, with zoneinfo."""
    rows = {
        row[:-1]: row[-1]
        for row in duckdb.sql(
            "set TimeZone = 'UTC'; select carrier, flight, origin, service_date::varchar, known_at"
            f" from '{parquet_file(SOURCES['flights'], reference_home)}'"
        ).fetchall()
    }
    assert len(rows) == 336_776
    with data_file("airports.csv").open(encoding="utf-8") as file:
        zones = {row["faa"]: row["tzone"] for row in csv.DictReader(file)}
    compared = 0
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive:
        for number, raw in enumerate(csv.DictReader(io.TextIOWrapper(archive.open("flights.csv"), encoding="utf-8"))):
            if number % 40:
                continue
            key = (
                raw["carrier"],
                int(raw["flight"]),
                raw["origin"],
                f"{int(raw['year'])}-{int(raw['month']):02}-{int(raw['day']):02}",
            )
            expected = _known_at(raw, ZoneInfo(zones.get(raw["dest"], "America/Puerto_Rico")))
            if expected is not None:
                compared += 1
                assert rows[key] == expected, raw
    assert compared > 8_300


def _known_at(raw: dict[str, str], zone: ZoneInfo) -> datetime | None:
    scheduled = datetime.fromisoformat(raw["time_hour"]) + timedelta(minutes=int(raw["minute"]))
    if raw["dep_time"] in ("", "NA"):
        return scheduled + timedelta(hours=2)
    if raw["arr_delay"] in ("", "NA"):
        return None  # diverted: another test
    reading = int(raw["sched_arr_time"])
    about = scheduled + timedelta(minutes=30 + int(raw["distance"]) / 7.5)
    local = about.astimezone(zone)
    planned = min(
        (
            datetime(day.year, day.month, day.day, reading // 100 % 24, reading % 100, tzinfo=zone).astimezone(UTC)
            for day in (local - timedelta(days=1), local, local + timedelta(days=1))
        ),
        key=lambda instant: abs(instant - about),
    )
    return planned + timedelta(minutes=int(raw["arr_delay"]))


def test_nothing_is_known_before_it_happened(reference_home: Path) -> None:
    flights = parquet_file(SOURCES["flights"], reference_home)
    assert duckdb.sql(
        f"""
        select
            count(*) filter (departed_at <> scheduled_departure_at + to_minutes(dep_delay)),
            count(*) filter (arrived_at < departed_at + to_minutes(air_time)),
            count(*) filter (not cancelled and known_at <= departed_at),
            count(*) filter (known_at < arrived_at or known_at <= scheduled_departure_at - interval 1 hour),
            count(*) filter (ingested_at <> known_at + interval 15 minutes),
            count(*) filter (cancelled), count(*) filter (diverted), count(*) filter (diverted and arrived_at is null)
        from '{flights}'
        """
    ).fetchone() == (0, 0, 0, 0, 0, 8_255, 1_175, 458)
    weather = parquet_file(SOURCES["weather"], reference_home)
    assert duckdb.sql(
        "select count(*), count(distinct (origin, observed_hour)),"
        " count(*) filter (known_at <> observed_hour + interval 1 hour),"
        " count(*) filter (ingested_at <> known_at + interval 20 minutes)"
        f" from '{weather}'"
    ).fetchone() == (26_115, 26_115, 0, 0)
    schedules = parquet_file(SOURCES["schedules"], reference_home)
    columns = {row[0] for row in duckdb.sql(f"describe from '{schedules}'").fetchall()}
    assert not columns & {"dep_delay", "arr_delay", "departed_at", "arrived_at", "cancelled", "tailnum", "air_time"}


def test_the_register_and_the_assignments_have_an_honest_clock(reference_home: Path) -> None:
    files = {name: f"'{parquet_file(SOURCES[name], reference_home)}'" for name in ("flights", "planes", "assignments")}
    assert duckdb.sql(
        f"""
        select count(*), count(*) filter (planes.known_at <> seen.first), count(*) filter (built_on is null),
            count(*) filter (planes.ingested_at <> planes.known_at + interval 15 minutes)
        from {files["planes"]} as planes
        join (select tailnum, min(known_at) as first from {files["flights"]} group by tailnum) as seen using (tailnum)
        """
    ).fetchone() == (3_322, 0, 70, 0)
    # an hour before the scheduled departure, which is when a prediction is asked for, every aircraft is assigned
    assert duckdb.sql(
        f"""
        select count(*), count(*) filter (
            assigned.tailnum <> flights.tailnum
            or assigned.ingested_at <> scheduled_departure_at - interval 2 hours)
        from {files["flights"]} as flights join {files["assignments"]} as assigned
            using (service_date, carrier, flight, origin)
        """
    ).fetchone() == (336_776 - 2_512, 0)


def test_a_table_of_an_earlier_version_gets_its_new_column(sources: Settings, reference_home: Path) -> None:
    with Ledger.connect(sources.ledger_url) as ledger, lake.connect(sources) as connection:
        connection.execute("alter table lake.sources.planes drop column built_on")
        assert prepare(connection, ledger) == ()
    assert load(sources, reference_home, "planes", OCTOBER).row_count > 3_000
    assert query(sources, "select max(built_on)::varchar from lake.sources.planes") == [("2013-01-01",)]


def test_rows_appear_as_their_arrival_passes(sources: Settings, reference_home: Path) -> None:
    first = load(sources, reference_home, "weather", OCTOBER)
    assert first.watermark is not None
    assert first.watermark <= OCTOBER
    later = OCTOBER + timedelta(hours=2)
    assert load(sources, reference_home, "weather", later, after=OCTOBER).row_count == 6
    assert load(sources, reference_home, "weather", later, after=OCTOBER).row_count == 0
    assert load(sources, reference_home, "weather", later).row_count == 0
    ((count, distinct, newest),) = query(
        sources,
        "select count(*), count(distinct (origin, observed_hour)), max(ingested_at) from lake.sources.weather",
    )
    assert count == distinct == first.row_count + 6
    assert newest <= later
    with Ledger.connect(sources.ledger_url) as ledger:
        assert ledger.loaded_through(SOURCES["weather"].ledger_name) == later


def test_a_load_that_begins_too_late_leaves_no_gap(sources: Settings, reference_home: Path) -> None:
    load(sources, reference_home, "weather", OCTOBER - timedelta(days=2))
    reached = load(sources, reference_home, "weather", OCTOBER, after=OCTOBER - timedelta(days=1))
    assert reached.row_count == 2 * 24 * 3
    assert reached.after == OCTOBER - timedelta(days=2)


def test_all_instants_move_by_the_clock(settings: Settings, reference_home: Path) -> None:
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        clock = fix_clock(ledger, now=datetime(2026, 11, 23, tzinfo=UTC))
        assert fix_clock(ledger, now=datetime(2030, 1, 1, tzinfo=UTC)) == clock
        prepare(connection, ledger)
        assert prepare(connection, ledger) == ()
        through = datetime(2026, 2, 18, tzinfo=UTC)
        load_source(connection, ledger, "flights", home=reference_home, through=through)
        ((flight, departure, known),) = connection.execute(
            "select flight_id, scheduled_departure_at, known_at from lake.sources.flights order by known_at limit 1"
        ).fetchall()
        load_source(connection, ledger, "planes", home=reference_home, through=through)
        ((oldest,),) = connection.execute("select min(known_at - built_on) from lake.sources.planes").fetchall()
    assert clock.weeks == 685
    assert flight.startswith("2026-02-17-")
    assert departure > datetime(2026, 2, 17, 10, tzinfo=UTC)
    assert known < through
    assert oldest >= timedelta(0)  # aircraft are as old as they were: what year they were built in moves, too


def test_wrong_names_and_missing_tables_are_said(settings: Settings, reference_home: Path) -> None:
    with pytest.raises(UnknownNameError, match="trains"):
        load(settings, reference_home, "trains", OCTOBER)
    with pytest.raises(NotDeployedError, match=r"sources\.weather"):
        load(settings, reference_home, "weather", OCTOBER)


def test_loads_of_one_source_take_turns(sources: Settings, reference_home: Path) -> None:
    parquet_file(SOURCES["weather"], reference_home)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load(sources, reference_home, "weather", OCTOBER), range(4)))
    assert query(sources, "select count(*) = count(distinct (origin, observed_hour)) from lake.sources.weather") == [
        (True,)
    ]


KILLED = """
    import os, signal, sys
    from datetime import UTC, datetime
    from pathlib import Path
    from feature_platform import lake
    from feature_platform.ledger import Ledger
    from feature_platform.reference import load, load_source
    from feature_platform.settings import Settings

    if sys.argv[2] == "committed":  # rows are in the lake, the ledger does not know
        Ledger.record_source_load = lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL)
    settings = Settings.from_env()
    append = load.append_rows
    def appending(*args, **more):
        print("appending", flush=True)
        return append(*args, **more)
    load.append_rows = appending
    with Ledger.connect(settings.ledger_url) as ledger, lake.connect(settings) as connection:
        load_source(connection, ledger, "flights", home=Path(sys.argv[1]), through=datetime(2013, 10, 1, tzinfo=UTC))
"""


@pytest.mark.parametrize("moment", ["appending", "committed"])
def test_a_killed_load_is_repeated_without_a_duplicate(
    sources: Settings, settings_in_environ: Settings, reference_home: Path, moment: str
) -> None:
    parquet_file(SOURCES["flights"], reference_home)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(reference_home), moment],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"appending\n"
        if moment == "appending":
            time.sleep(0.3)  # somewhere within; wherever it is, the next load must set it right
            process.kill()
        assert process.wait(120) == -signal.SIGKILL
    with Ledger.connect(sources.ledger_url) as ledger:
        assert ledger.loaded_through(SOURCES["flights"].ledger_name) is None
    load(sources, reference_home, "flights", OCTOBER)
    ((count, distinct),) = query(sources, "select count(*), count(distinct flight_id) from lake.sources.flights")
    expected = duckdb.execute(
        "select count(*) from read_parquet(?) where ingested_at <= ?",
        [str(parquet_file(SOURCES["flights"], reference_home)), OCTOBER],
    ).fetchone()
    assert (count,) == expected
    assert distinct == count
