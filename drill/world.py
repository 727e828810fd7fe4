"""Building the drill's world: a home, a project, a feed, a stack with two days of served features, and a reader.

Rule: everything lies below one directory that is deleted at the end, and nothing of another stack is touched.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb

from drill.clock import StackClock, remove_leftovers
from drill.lake_disk import LakeDisk
from drill.project import REPOSITORY, VIEWS, Project
from drill.receivers import receiving
from drill.running import Drill
from drill.sources import Feed
from drill.stack import CommandError, Stack
from feature_platform.local import services, supervision
from feature_platform.reference.clock import shift_weeks
from feature_platform.reference.extract import parquet_file
from feature_platform.reference.transform import SOURCES

_MINUTE_AT_START = 35
_HISTORY = timedelta(days=1)
_SLICE = timedelta(days=4)
_AIRCRAFT = 30


@contextmanager
def world(directory: Path, cache: Path, *, say: Callable[[str], None]) -> Iterator[Drill]:
    """A running stack, read all the time; stopped and deleted afterwards, but for its records."""
    records = directory / "records"
    records.mkdir(parents=True)
    directory.chmod(0o711)  # the user who runs Postgres passes through
    remove_leftovers()
    clock = StackClock(directory=directory)
    clock.start_at(_MINUTE_AT_START)
    begin = (clock.now() - _HISTORY).replace(hour=0, minute=0, second=0, microsecond=0)
    feed = Feed(
        home=directory / "home",
        cache=cache,
        since=begin - _SLICE,
        shift=timedelta(weeks=shift_weeks(clock.now())),
    )
    feed.prepare()
    project = Project.create(directory / "project", begin=begin.date())
    disk = LakeDisk(directory=directory / "home" / "lake")
    disk.mount()
    with receiving(records / "notices.jsonl", clock) as receivers:
        stack = Stack(home=directory / "home", project=project, clock=clock, routes=receivers.routes)
        drill = Drill(stack=stack, feed=feed, lake_disk=disk, record=records / "faults.jsonl", say=say)
        try:
            _serve(drill)
            drill.log("world", shift_days=feed.shift.days, since=feed.since, begin=begin, views=VIEWS)
            keys = records / "keys.json"
            keys.write_text(json.dumps({"airport_weather": _airports(), "aircraft_state": _aircraft(feed)}))
            with _reading(stack, keys, records / "answers.jsonl"):
                yield drill
        finally:
            stack.down()
            disk.unmount()
            stack.delete()
            remove_leftovers()


def _serve(drill: Drill) -> None:
    drill.say("starting a stack of its own")
    drill.stack.up()
    _check_clocks(drill)
    drill.say("loading a slice of the flights, computing two days of features")
    drill.load()
    drill.stack.command("backfill", "--all", "--missing")
    drill.until(lambda: not drill.what_is_wrong(), seconds=120)
    if wrong := drill.what_is_wrong():
        raise CommandError(f"the stack is not well before the first fault: {wrong}")


def _check_clocks(drill: Drill) -> None:
    """Whether Postgres and Valkey live by the drill's clock: a library that cannot be loaded is passed over."""
    import psycopg2
    import valkey

    settings = drill.stack.settings
    with psycopg2.connect(settings.ledger_url) as connection, connection.cursor() as cursor:
        cursor.execute("select clock_timestamp()")
        (told,) = cursor.fetchone() or (None,)
    with valkey.Valkey.from_url(settings.valkey_url) as store:
        seconds, _ = store.time()
    now = drill.now()
    if told is None or abs(told - now) > timedelta(minutes=1) or abs(seconds - now.timestamp()) > 60:
        raise CommandError(f"Postgres ({told}) or Valkey ({seconds}) does not live by the drill's clock ({now})")


def _airports() -> list[dict[str, str]]:
    return [{"origin": origin} for origin in ("EWR", "JFK", "LGA")]


def _aircraft(feed: Feed) -> list[dict[str, str]]:
    """The aircraft that fly most often in the slice."""
    flights = parquet_file(SOURCES["flights"], feed.cache)
    rows = duckdb.execute(
        f"select tailnum from read_parquet('{flights}') where tailnum is not null and known_at >= $1"
        " and known_at < $1 + interval 8 days group by tailnum order by count(*) desc, tailnum limit $2",
        [feed.since - feed.shift, _AIRCRAFT],
    ).fetchall()
    return [{"tailnum": tailnum} for (tailnum,) in rows]


@contextmanager
def _reading(stack: Stack, keys: Path, record: Path) -> Iterator[None]:
    with (record.parent / "reader.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "drill.reader", str(keys), str(record)],
            env=stack.environ(),
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the drill
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def fresh_directory(directory: Path) -> Path:
    """The directory, empty; what a drill that was killed has left running or mounted there is ended.

    Raises:
        CommandError: it holds something that no drill has made.
    """
    mark = directory / ".drill"
    if directory.exists():
        if not mark.exists() and any(directory.iterdir()):
            raise CommandError(f"{directory} is not empty and was not made by a drill; choose another")
        _end_what_is_left(directory / "home")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    mark.touch()
    return directory


def _end_what_is_left(home: Path) -> None:
    supervision.stop_dagster(home)
    if (home / "connections.json").exists():
        services.stop(home)
    lake = home / "lake"
    if lake.is_mount():
        LakeDisk(directory=lake).unmount()
