"""`feature-platform demo`: from nothing to served features and a training set, on the project's real flights.

Rule: it does what a user would do, by the same means: every load and every backfill is a run of Dagster. Each step
looks at what is there and adds what is missing, so it can be interrupted anywhere and run again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from feature_platform import settings as addresses
from feature_platform.cli.dagster_client import BackfillProgress, DagsterClient
from feature_platform.cli.output import print_table
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.durations import format_duration
from feature_platform.domain.windows import Grain, floor
from feature_platform.errors import FeaturePlatformError
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.cli.demo_report import ServedReport, TrainingReport, ViewReport

HOURLY_HISTORY = timedelta(days=28)
_LOADED_LATELY = timedelta(minutes=75)
"""The schedule loads every hour; a quarter of an hour for its run."""
_TAGS = {"feature_platform/launched_by": "demo"}
_LOADING, _COMPUTING = "Demo: load the sources", "Demo: backfill the feature views"
_STEPS = 7


@click.command()
@click.option("--full", is_flag=True, help="Backfill all history of the hourly view too, not only the last 28 days.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the UI. [default: 3000, or the next free one]")
def demo(*, full: bool, port: int | None) -> None:
    """From nothing to served features: real flights, through Dagster, to Valkey and into a training set.

    Takes a few minutes the first time. Can be interrupted and run again: it goes on where it was.
    """
    seconds: dict[str, float] = {}
    with _step(seconds, 1, "Postgres and Valkey"):
        _start_services()
    settings = Settings.from_env()
    with _step(seconds, 2, "deploy: declarations to tables, views and serving schemas"):
        _deploy(settings)
    registry = load_registry(settings.manifest_path)
    with _step(seconds, 3, "Dagster: webserver, daemon, definitions"):
        client = _start_dagster(settings, port)
        click.echo(f"  the UI: {click.style(client.url, bold=True)}")
    with _step(seconds, 4, "real data: the flights of 2013, shifted by whole weeks so that October 2013 is now"):
        _load_sources(settings, registry, client)
    with _step(seconds, 5, "features: every view, computed, audited, published and served by Dagster"):
        _backfill(settings, registry, client, full=full)
        _await_served(settings, registry, client)
    now = datetime.now(UTC)
    # imported here: DuckDB and pyarrow, which the steps before leave to other processes
    from feature_platform.cli import demo_report

    with _step(seconds, 6, "serving: the next flight, asked of Valkey by the Python client"):
        flight = demo_report.next_flight(settings, now=now)
        served = demo_report.served_report(settings, registry, flight) if flight else None
    with _step(
        seconds, 7, "training: every flight of the last weeks, with what was known an hour before its departure"
    ):
        out = settings.home / "demo" / "training_set.parquet"
        training = demo_report.build_training_set(settings, registry, out, now=now)
    _summarize_views(demo_report.view_reports(settings, registry))
    if served is not None:
        _summarize_serving(served, demo_report.SERVICE)
    _summarize_training(training)
    click.echo("\nSeconds: " + ", ".join(f"{title} {taken:.0f}" for title, taken in seconds.items()))
    click.echo(_next_steps(client.url))
    if served is not None and served.differences:
        raise FeaturePlatformError(
            "the online store and the lake disagree",
            found=", ".join(served.differences),
            hint="a batch may have been published between the two reads: run `feature-platform sync --all`, then again",
        )


@contextmanager
def _step(seconds: dict[str, float], number: int, title: str) -> Iterator[None]:
    click.echo(f"{click.style(f'[{number}/{_STEPS}]', fg='cyan')} {title}")
    begin = time.monotonic()
    yield
    seconds[title.partition(":")[0]] = time.monotonic() - begin


def _start_services() -> None:
    from feature_platform import local  # psutil

    os.environ.update(local.start(addresses.project_dir(), addresses.home_dir()))


def _deploy(settings: Settings) -> None:
    from feature_platform.cli.materialization import deploy_project  # dbt

    result = deploy_project(settings)
    what = "deployed" if result.changed else "nothing to change"
    click.echo(f"  {what}: {', '.join(result.registry.views)}")
    if result.changed:
        _stop_dagster(settings)


def _stop_dagster(settings: Settings) -> None:
    """What runs has loaded older declarations, or none; the next step starts it again. Queued runs stay queued."""
    from feature_platform.local import supervision  # psutil

    if supervision.stop_dagster(settings.home):
        click.echo("  Dagster ran with what was declared before; it is started anew")


def _start_dagster(settings: Settings, port: int | None) -> DagsterClient:
    from feature_platform.local import supervision  # psutil

    connections = {name: value for name, value in os.environ.items() if name.startswith(addresses.PREFIX)}
    return DagsterClient(supervision.start_dagster(settings.project, settings.home, connections, port=port))


def _load_sources(settings: Settings, registry: FeatureRegistry, client: DagsterClient) -> None:
    from feature_platform.ledger import Ledger  # psycopg2
    from feature_platform.reference import SOURCES

    _see_through(client, _LOADING)
    now = datetime.now(UTC)
    begin = min(view.begin for view in registry.views.values())
    with Ledger.connect(settings.ledger_url) as ledger:
        loaded = {source.name: ledger.loaded_through(source.ledger_name) for source in SOURCES.values()}
    if all(through is not None and now - through < _LOADED_LATELY for through in loaded.values()):
        click.echo("  everything that arrived until a while ago is there; the hourly schedule brings the rest")
        return
    today = f"{floor(now, Grain.DAY):%Y-%m-%d}"
    ranges = {
        tuple(source.ledger_name.split(".")): [(f"{floor(loaded[source.name] or begin, Grain.DAY):%Y-%m-%d}", today)]
        for source in SOURCES.values()
    }
    _run_backfill(client, ranges, title=_LOADING)


def _backfill(settings: Settings, registry: FeatureRegistry, client: DagsterClient, *, full: bool) -> None:
    from feature_platform.cli.runs import asset_ranges, plan_backfill, without_published

    _see_through(client, _COMPUTING)
    now = datetime.now(UTC)
    plans = []
    for view in registry.views.values():
        recent = view.grain is Grain.HOUR and not full
        first = f"{floor(now - HOURLY_HISTORY, Grain.DAY):%Y-%m-%d}" if recent else None
        plans.append(without_published(settings, plan_backfill(view, first=first, last=None, now=now)))
    plans = [plan for plan in plans if plan.partitions]
    if not plans:
        click.echo("  every partition is there already")
        return
    _run_backfill(client, asset_ranges(plans), title=_COMPUTING)


def _see_through(client: DagsterClient, title: str) -> None:
    """A demo that was interrupted has left its backfill going on: what it does need not be done twice."""
    running = client.running_backfill(title, tags=_TAGS)
    if running is not None:
        click.echo(f"  the backfill of an earlier demo is going on: {client.backfill_url(running)}")
        _watch(client, running)  # however it ends: what it leaves missing is found next


def _run_backfill(client: DagsterClient, ranges: dict[tuple[str, ...], list[tuple[str, str]]], *, title: str) -> None:
    backfill_id = client.launch_backfill(ranges, title=title, tags=_TAGS)
    progress = _watch(client, backfill_id)
    if not progress.succeeded:
        raise FeaturePlatformError(
            f"{title}: {progress.status.lower()}",
            found="\n           ".join(client.backfill_failures(progress)) or "no reason given",
            hint=f"look at {client.backfill_url(backfill_id)}, then run the demo again: it goes on where it was",
        )


def _watch(client: DagsterClient, backfill_id: str) -> BackfillProgress:
    from feature_platform.cli.following import follow_backfill, left_running

    notice = f"The backfill goes on: {client.backfill_url(backfill_id)}\nRun the demo again to see it through."
    with left_running(notice):
        return follow_backfill(client, backfill_id, quiet=False)


def _await_served(settings: Settings, registry: FeatureRegistry, client: DagsterClient) -> None:
    """The backfill synced what it published; a schedule may have published since."""
    from feature_platform.cli.following import follow_run
    from feature_platform.ledger import Ledger  # psycopg2
    from feature_platform.orchestration import names

    with Ledger.connect(settings.ledger_url) as ledger:
        behind = [
            view
            for view in registry.views.values()
            if view.is_served and ledger.synced_position(view.key, settings.store) < ledger.head(view.key)
        ]
    if behind:
        run_id = client.launch_run([names.online_path(view) for view in behind], tags=_TAGS)
        status = follow_run(client, run_id, say=lambda line: click.echo(f"  {line}"))
        if status != "SUCCESS":
            raise FeaturePlatformError(
                "the sync did not succeed", found="; ".join(client.run_failures(run_id)), hint=client.run_url(run_id)
            )


def _summarize_views(views: Sequence[ViewReport]) -> None:
    click.echo()
    print_table(
        ("feature view", "partitions", "rows", "checks", "owner"),
        [(view.view, f"{view.partitions:,}", f"{view.rows:,}", _checks_text(view), view.owner) for view in views],
    )
    lags = {view.view: dict(view.lags) for view in views}
    names = dict.fromkeys(name for lag in lags.values() for name in lag)
    print_table(
        ("lag of the newest batch", *names),
        [(view, *(format_duration(lag[name]) if name in lag else "-" for name in names)) for view, lag in lags.items()],
    )


def _checks_text(view: ViewReport) -> str:
    said = zip(view.checks, ("passed", "warned", "failed"), strict=True)
    return ", ".join(f"{count:,} {word}" for count, word in said if count or word == "passed")


def _summarize_training(training: TrainingReport) -> None:
    click.echo(
        f"Training set: {training.rows:,} flights x {training.columns} columns, {training.positives:.0%} left late, "
        f"{training.filled:.0%} of the feature cells have a value (ledger sequence {training.ledger_sequence})\n"
        f"  {training.path}"
    )


def _summarize_serving(served: ServedReport, service: str) -> None:
    flight = served.flight
    will = "Will" if flight["scheduled_departure_at"] > datetime.now(UTC) else "Would"
    click.echo(
        f"{will} {flight['carrier']} {flight['flight']} from {flight['origin']} to {flight['dest']} "
        f"({flight['scheduled_departure_at']:%Y-%m-%d %H:%M} UTC, aircraft {flight['tailnum']}) leave late? "
        f"What the model {service} is given:"
    )
    chosen = [name for name in served.row.values if name in _SHOWN] or list(served.row.values)[:6]
    rows = [
        (
            name,
            _shown(served.row.values[name]),
            _shown(served.lake.get(name)),
            "=" if name not in served.differences else "differs",
        )
        for name in chosen
    ]
    print_table(("feature", "Valkey", "lake", ""), rows)
    states = ", ".join(
        f"{view} {reading.status}" + (f" ({format_duration(reading.age)} old)" if reading.age is not None else "")
        for view, reading in served.row.views.items()
    )
    same = len(served.row.values) - len(served.differences)
    click.echo(f"{same} of {len(served.row.values)} features agree with the lake. {states}\n")


_SHOWN = (
    "dep_delay_mean_7d",
    "carrier_delays__dep_delay_mean_7d",
    "route_delays__late_share_28d",
    "late_share_1d",
    "arr_delay_mean_28d",
    "temperature_f",
    "wind_speed_mph",
    "visibility_mi",
    "precipitation_in_3h",
    "last_arr_delay",
    "minutes_since_landing",
    "manufacturer",
    "seats",
    "age_years",
)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _next_steps(url: str) -> str:
    activate = ". .venv/bin/activate"
    return f"""
What to do next
  open {url}             assets, lineage, checks, backfills; schedules go on from here, live
  {activate}
  feature-platform status                what runs, how fresh each view is, who owns it
  feature-platform get departure_delay --entity carrier=UA --entity origin=EWR --entity dest=SFO --entity tailnum=N14228
  feature-platform sql "select * from features.carrier_delays order by event_timestamp desc limit 5"
  feature-platform down                  stop everything; nothing is lost"""
