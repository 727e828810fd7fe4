"""Sources that stop, come late or bring nonsense; models and checks that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

from drill.fault import AIRPORTS, fault
from drill.running import HOUR, Drill
from feature_platform.lake import connect

_DELAY = timedelta(hours=6)


@fault("a model computes nulls", seen_by=("incident failing",), tells=(AIRPORTS,))
def model_computes_nulls(drill: Drill) -> Iterator[None]:
    """A change of SQL that is valid, has the right type, and says nothing any more."""
    column = "{{ latest('temperature_f') }} as temperature_f"
    drill.stack.project.edit("airport_weather.sql", column, "null::double as temperature_f")
    drill.stack.redeploy()
    partition = drill.materialize("airport_weather")
    yield
    drill.stack.project.edit("airport_weather.sql", "null::double as temperature_f", column)
    drill.stack.redeploy()
    drill.materialize("airport_weather", partition)


@fault("a check fails", seen_by=("incident failing",), tells=(AIRPORTS,))
def check_fails(drill: Drill) -> Iterator[None]:
    """A bound that no row keeps; what was published before goes on serving."""
    bound, broken = (
        "in_range: {arguments: {min_value: 850, max_value: 1100}}",
        "in_range: {arguments: {max_value: 850}}",
    )
    drill.stack.project.edit("airport_weather.yml", bound, broken)
    drill.stack.redeploy()
    partition = drill.materialize("airport_weather")
    yield
    drill.stack.project.edit("airport_weather.yml", broken, bound)
    drill.stack.redeploy()
    drill.materialize("airport_weather", partition)


@fault("a source delivers a poisoned row", seen_by=("incident failing",), tells=(AIRPORTS,))
def poisoned_row(drill: Drill) -> Iterator[None]:
    """An observation, later than all others, whose temperature is no number."""
    known = drill.due() - HOUR / 2
    observed = known - drill.feed.shift  # the feed keeps this column on the data's own clock
    poison = (
        f"'nan'::double as temp, timestamptz '{observed.isoformat()}' as observed_hour,"
        f" timestamptz '{known.isoformat()}' as known_at, timestamptz '{drill.now().isoformat()}' as ingested_at"
    )
    drill.feed.change(
        "weather",
        f"from rows union all by name (select * replace ({poison}) from rows where origin = 'EWR' limit 1)",
    )
    drill.minute()
    drill.load()
    partition = drill.materialize("airport_weather")
    yield
    drill.feed.undo("weather")
    with closing(connect(drill.stack.settings)) as lake:
        lake.execute("delete from lake.sources.weather where isnan(temp)")
    drill.materialize("airport_weather", partition)


@fault("a source stops", seen_by=("incident source",), tells=(AIRPORTS,), within=timedelta(hours=5))
def source_stops(drill: Drill) -> Iterator[None]:
    """Its loads go on and succeed: they bring nothing. Whoever looks at runs and at partitions sees nothing."""
    after = drill.now()
    drill.feed.change("weather", f"from rows where ingested_at <= timestamptz '{after.isoformat()}'")
    drill.jump(5 * HOUR)
    yield
    drill.feed.undo("weather")
    drill.hold_back("weather", after=after, until=drill.now())
    drill.load()


@fault("a source comes 6 hours late", seen_by=("incident source",), tells=(AIRPORTS,), within=8 * HOUR)
def source_late(drill: Drill) -> Iterator[None]:
    """The observations of four hours reach us six hours after they should have; what follows is on time."""
    after = drill.now()
    drill.hold_back("weather", after=after, through=after + 4 * HOUR, by=_DELAY)
    for _ in range(4):
        drill.hour()  # features are computed without them
    yield
    while drill.now() < after + 10 * HOUR:
        drill.hour()  # and they arrive
