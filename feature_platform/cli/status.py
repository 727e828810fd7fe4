"""`feature-platform status`: what runs, how fresh each view is, what is wrong, who owns it.

Rule: it says as much as can be known. A stack that is down, or a project that was never deployed, is an answer and no
error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from feature_platform import settings
from feature_platform.cli.output import console, json_option, print_json, table
from feature_platform.domain.durations import format_duration
from feature_platform.errors import (
    ConfigurationError,
    InvalidDeclarationsError,
    LedgerUnavailableError,
    NotDeployedError,
)
from feature_platform.local import ServiceStatus
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.declaration import FeatureRegistry
    from feature_platform.domain.feature_view import FeatureView
    from feature_platform.ledger import Ledger
    from feature_platform.observability import Freshness

_UNWATCHED_AFTER = timedelta(minutes=5)
"""The watch looks every minute; the alert FeaturePlatformWatchDown waits as long."""
_WIDE = 150
"""Columns of a terminal in which all of it can be read; with fewer the cells would be towers of syllables."""
_LATE_TO_DO = ("due", "running", "failed", "held", "beyond")
"""States of late partitions that somebody or something still has to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStatus:
    """One feature view, as readers and as requests see it."""

    view: str
    store: str | None
    """None for a view that is not served."""
    owner: str
    state: str
    published_event: datetime | None
    """Newest event time that training sets can see."""
    served_event: datetime | None
    """Newest event time that the online store holds; None also for a view that is not served."""
    age: timedelta | None
    """Of the newest event that counts; None if there is none."""
    allowed: timedelta | None
    lags: dict[str, timedelta | None]
    """How far each stage is behind the one before it, in data time; they add up to the age."""
    partitions: int
    rows: int
    waiting: int
    """Publishes that the online store has not got yet."""
    unfinished: int
    late: dict[str, int]
    """Partitions that rows came too late for, by what is to happen with them; `feature-platform late` says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemStatus:
    """One thing that is wrong: what, for whom, and what to do."""

    severity: str
    kind: str
    subject: str
    owner: str
    message: str
    impact: str
    runbook: str
    command: str
    since: datetime | None
    """When the watch first saw it; None if it has not looked since."""
    silent: str
    """Until when and why nobody is told; empty if people are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryStatus:
    """Whether a value comes through to one online store (docs/reference/canary.md)."""

    store: str
    ok: bool | None
    """Of the last value; None if nobody ever tried."""
    silent: bool
    """No value has come through for long."""
    tried_at: datetime | None
    came_through_at: datetime | None
    """Event time of the newest value that did."""
    said: str
    """All of it for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything `status` says."""

    services: tuple[ServiceStatus, ...]
    views: tuple[ViewStatus, ...] = ()
    problems: tuple[ProblemStatus, ...] = ()
    canaries: tuple[CanaryStatus, ...] = ()
    """Of each online store; none if no view is served."""
    unwatched: str = ""
    """Since when nobody looks for what the ledger does not know; empty if somebody does."""
    note: str = ""
    """Why less is known than could be."""


@click.command()
@json_option
def status(*, as_json: bool) -> None:
    """What runs, how fresh each view is, what is wrong, who owns it."""
    report = _report()
    if as_json:
        print_json(report)
    else:
        _print(report)


def _report() -> Report:
    from feature_platform import local
    from feature_platform.local import supervision

    home = settings.home_dir()
    services = (*local.status(home), *supervision.dagster_status(home))
    try:
        return _read(Settings.from_env(), services)
    except ConfigurationError:
        return Report(services=services, note="not started yet: `feature-platform up` (or `make demo`)")
    except LedgerUnavailableError:
        return Report(services=services, note="the ledger cannot be reached: `feature-platform up` starts it")
    except (NotDeployedError, FileNotFoundError):
        return Report(services=services, note="not deployed yet: `feature-platform deploy`")
    except InvalidDeclarationsError as error:
        return Report(services=services, note=f"what was deployed is not readable by this version: {error}")


def _read(here: Settings, services: tuple[ServiceStatus, ...]) -> Report:
    from feature_platform.declaration import load_registry
    from feature_platform.ledger import Ledger
    from feature_platform.observability import WATCH, freshness_of

    with Ledger.connect(here.ledger_url) as ledger:
        registry, now = load_registry(here.manifest_path), ledger.now()
        stores = tuple(here.all_stores)
        return Report(
            services=services,
            views=tuple(
                _view_status(ledger, registry.views[fresh.view], fresh, fresh.store or here.store, now=now)
                for fresh in freshness_of(ledger, registry, stores=stores, now=now)
            ),
            problems=_problems(ledger, registry, stores, now=now),
            canaries=_canaries(ledger, registry, stores, now=now),
            unwatched=_unwatched(ledger.heartbeats().get(WATCH), now=now),
        )


def _view_status(ledger: Ledger, view: FeatureView, fresh: Freshness, store: str, *, now: datetime) -> ViewStatus:
    from feature_platform.late_data import partitions_by_state
    from feature_platform.observability import frontiers_of

    active = ledger.active_batches(view.key)
    frontiers = frontiers_of(ledger, view, store)
    return ViewStatus(
        view=view.key,
        store=fresh.store,
        owner=view.owner.email,
        state=fresh.state.value if active else "empty",
        published_event=frontiers.published,
        served_event=fresh.newest_event if view.is_served else None,
        age=fresh.age if fresh.newest_event else None,
        allowed=fresh.allowed,
        lags=dict(frontiers.lags(now=now)),
        partitions=len(active),
        rows=sum(batch.row_count for batch in active),
        waiting=ledger.head(view.key) - ledger.synced_position(view.key, fresh.store) if fresh.store else 0,
        unfinished=len(ledger.unfinished(view.key)),
        late=partitions_by_state(ledger, view),
    )


def _unwatched(looked_at: datetime | None, *, now: datetime) -> str:
    """Since when nobody watches: what the ledger has open of runs, schedules, stores and clocks is as it was then."""
    if looked_at is None:
        return "nobody watches yet: the sensor incidents has never looked at runs, schedules, stores and clocks"
    if now - looked_at <= _UNWATCHED_AFTER:
        return ""
    return (
        f"nobody watches: the sensor incidents has not looked for {format_duration(_whole_minutes(now - looked_at))};"
        " runs, schedules, stores and clocks are shown as they were then, and no notice is sent"
    )


def _whole_minutes(length: timedelta) -> timedelta:
    return timedelta(minutes=length // timedelta(minutes=1))


def _canaries(
    ledger: Ledger, registry: FeatureRegistry, stores: tuple[str, ...], *, now: datetime
) -> tuple[CanaryStatus, ...]:
    from feature_platform.observability import canary_states, said_of_canary

    return tuple(
        CanaryStatus(
            store=state.store,
            ok=state.last.is_ok if state.last else None,
            silent=state.is_silent(now),
            tried_at=state.last.written_at if state.last else None,
            came_through_at=state.good.written_at if state.good else None,
            said=said_of_canary(state, now=now),
        )
        for state in canary_states(ledger, registry, stores)
    )


def _problems(
    ledger: Ledger, registry: FeatureRegistry, stores: tuple[str, ...], *, now: datetime
) -> tuple[ProblemStatus, ...]:
    """What the ledger knows now, and what the watch in the daemon found at its last look."""
    from feature_platform.observability import all_problems

    since = {(one.kind, one.subject): one.opened_at for one in ledger.incidents(open_only=True)}
    silences = ledger.silences()
    return tuple(
        ProblemStatus(
            severity=problem.severity,
            kind=problem.kind,
            subject=problem.subject,
            owner=problem.owner.contact,
            message=problem.message,
            impact=problem.impact,
            runbook=problem.runbook,
            command=problem.command,
            since=since.get((problem.kind, problem.subject)),
            silent=", ".join(
                f"until {one.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {one.why}"
                for one in silences
                if one.covers(view=problem.view, kind=problem.kind)
            ),
        )
        for problem in all_problems(ledger, registry, stores=stores, now=now)
    )


def _print(report: Report) -> None:
    out = console()
    wide = out.width >= _WIDE
    out.print(_services_table(report.services, wide=wide))
    if report.views:
        out.print(_views_table(report.views, wide=wide))
        if not wide:
            click.secho(f"From {_WIDE} columns on: lags, partitions, rows, owners, logs too; --json has all.", dim=True)
    for canary in report.canaries:
        click.secho(canary.said, fg="green" if canary.ok and not canary.silent else "yellow")
    if report.note:
        click.secho(report.note, fg="yellow")
    elif not report.views:
        click.echo("no feature views are declared")
    for problem in report.problems:
        colour = "red" if problem.severity == "error" else "yellow"
        click.echo(f"{click.style(problem.severity, fg=colour)}: {problem.message}")
        if problem.silent:
            click.secho(f"  silent {problem.silent}", dim=True)
        click.secho(f"  {problem.owner}: {problem.impact}; {problem.command}; {problem.runbook}", dim=True)
    stopped = [service.name for service in report.services if not service.running]
    if 0 < len(stopped) < len(report.services):  # all stopped: services that are elsewhere, or the note says it
        click.secho(f"not running: {', '.join(stopped)}; `feature-platform up` starts what is missing", fg="red")
    if report.unwatched:
        click.secho(report.unwatched, fg="red")
    elif report.views and not report.problems and not 0 < len(stopped) < len(report.services):
        click.secho("nothing is wrong", fg="green")


def _services_table(services: Sequence[ServiceStatus], *, wide: bool) -> Any:
    titles = ("service", "state", "address", *(["log"] if wide else []))
    return table(titles, (_service_row(service)[: len(titles)] for service in services), whole_names=True)


def _service_row(service: ServiceStatus) -> tuple[str, ...]:
    state = f"running ({service.pid})" if service.running else "stopped"
    return (service.name, state, service.address, service.log)


def _views_table(views: Sequence[ViewStatus], *, wide: bool) -> Any:
    several = len({view.store for view in views if view.store}) > 1
    columns: dict[str, Callable[[ViewStatus], str]] = {"feature view": lambda view: view.view}
    if several:
        columns["store"] = lambda view: view.store or "-"
    columns |= {
        "state": lambda view: view.state,
        "age": lambda view: format_duration(view.age) if view.age is not None else "",
    }
    if wide:
        columns["arrival + compute + publish + sync"] = _lags
    columns["allowed"] = lambda view: format_duration(view.allowed) if view.allowed else ""
    if wide:
        columns["published until"] = lambda view: _instant(view.published_event)
    columns["served until"] = lambda view: _instant(view.served_event)
    if wide:
        columns |= {"partitions": lambda view: f"{view.partitions:,}", "rows": lambda view: f"{view.rows:,}"}
    columns["todo"] = _todo
    if wide:
        columns["owner"] = lambda view: view.owner
    rows = ([text_of(view) for text_of in columns.values()] for view in views)
    return table(columns, rows, whole_names=True)


def _lags(view: ViewStatus) -> str:
    return " + ".join("-" if lag is None else format_duration(lag) for lag in view.lags.values()) if view.age else ""


def _todo(view: ViewStatus) -> str:
    todo = [f"{view.waiting} to sync"] if view.waiting else []
    todo += [f"{view.unfinished} unfinished"] if view.unfinished else []
    todo += [f"{count} late, {state}" for state, count in view.late.items() if state in _LATE_TO_DO]
    return ", ".join(todo)


def _instant(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M}Z" if value else "-"
