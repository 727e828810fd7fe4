"""`feature-platform silence`: for a time, nobody is told of what is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.durations import format_duration, parse_duration
from feature_platform.errors import RequestError, UnknownNameError, chosen_from
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger, Silence
    from feature_platform.observability import Problem

LONGEST = timedelta(days=30)
_SHORT_UNITS = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PAST = timedelta(days=7)


class _Span(click.ParamType):  # type: ignore[type-arg]
    """`30m`, `2h`, `1d`, or a duration as declarations write it."""

    name = "time"

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        short = re.fullmatch(r"\s*(\d+)\s*([a-z]+)\s*", value)
        unit = _SHORT_UNITS.get(short[2]) if short else None
        span = parse_duration(f"{short[1]} {unit}" if short and unit else value)
        if span is None or not timedelta(0) < span <= LONGEST:
            self.fail(f"{value!r}: write 30m, 2h or 1d, at most {format_duration(LONGEST)}", param, ctx)
        return span


@click.group()
def silence() -> None:
    """Be silent about what is known, for a time: maintenance, an incident that somebody is already at.

    A silence is about notices alone, those of the owners' routes and those of Alertmanager. `status`, metrics and the
    ledger show everything all the same. It ends by itself, and what is open then is told, whether it was told before
    or not.
    """


@silence.command()
@click.argument("about", nargs=-1, required=True, metavar="VIEW|KIND [KIND]")
@click.option("--for", "lasts", type=_Span(), required=True, help="How long: 30m, 2h, 1d.")
@click.option("--why", required=True, help="Why, for whoever is on call after you.")
@click.option("--by", help="Who is silent. [default: the user of this process]")
@json_option
def add(about: tuple[str, ...], *, lasts: timedelta, why: str, by: str | None, as_json: bool) -> None:
    """Tell nobody of a VIEW, of a KIND of problem, or of one kind of one view.

    Kinds are those of `feature-platform status --json`: stale, failing, lost, parity, run_failed, automation and so on.

    \b
    feature-platform silence add carrier_delays --for 2h --why "backfill of 2024"
    feature-platform silence add unreachable --for 30m --why "Valkey is moved"
    feature-platform silence add carrier_delays stale --for 1d --why "the source is closed on Thanksgiving"
    """  # noqa: D301 - click's mark is the character
    from feature_platform.ledger import whoami  # psycopg2

    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    view, kind = _about(registry, about)
    if not why.strip():
        raise RequestError("a silence says why", hint='write `--why "…"`')
    with _open(settings) as ledger:
        made = ledger.add_silence(view=view, kind=kind, why=why.strip(), made_by=by or whoami(), lasts=lasts)
        covered = _open_problems(ledger, registry, settings, made)
    if as_json:
        print_json({"silence": made, "open": [problem.message for problem in covered]})
        return
    click.secho(f"silent about {_named(made)} until {made.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC", fg="green")
    _print_open(covered, "open now, and nobody is told:")
    click.echo(f"end it before: feature-platform silence end {made.silence_id[:8]}")


@silence.command(name="list")
@click.option("--all", "every", is_flag=True, help="Also those that ended within a week.")
@json_option
def list_(*, every: bool, as_json: bool) -> None:
    """What is silent, since when, until when, why, by whom."""
    with _open(Settings.from_env()) as ledger:
        found = ledger.silences(ended_within=_PAST if every else timedelta(0))
    if as_json:
        print_json(list(found))
        return
    if not found:
        click.echo("nothing is silent")
        return
    now = datetime.now(UTC)
    print_table(
        ("silence", "about", "until (UTC)", "why", "by"),
        [
            (
                one.silence_id[:8],
                _named(one),
                f"{one.ends_at.astimezone(UTC):%Y-%m-%d %H:%M}" + ("" if one.ends_at > now else " (over)"),
                one.why,
                one.made_by,
            )
            for one in found
        ],
    )


@silence.command()
@click.argument("name", metavar="SILENCE")
@click.option("--by", help="Who ends it. [default: the user of this process]")
@json_option
def end(name: str, *, by: str | None, as_json: bool) -> None:
    """End a silence now. What is still open is said here, and told at the next look of the watch (a minute)."""
    from feature_platform.ledger import whoami  # psycopg2

    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    with _open(settings) as ledger:
        one = _chosen(ledger.silences(), name)
        ledger.end_silence(one.silence_id, ended_by=by or whoami())
        still_open = _open_problems(ledger, registry, settings, one)
    if as_json:
        print_json({"silence": one.silence_id, "open": [problem.message for problem in still_open]})
        return
    click.secho(f"no longer silent about {_named(one)}", fg="green")
    _print_open(still_open, "still open:")


def _about(registry: FeatureRegistry, words: Sequence[str]) -> tuple[str | None, str | None]:
    """View and kind that the words name; a name that is both is the view's."""
    from feature_platform.observability import KINDS

    view = kind = None
    for word in words:
        is_view = word.partition("@")[0] in registry.latest
        if is_view and view is None:
            view = registry.view(word).key
        elif word in KINDS and kind is None:
            kind = word
        else:
            raise UnknownNameError(
                f"{word!r} is no view and no kind of problem"
                if not is_view and word not in KINDS
                else "too many words",
                found=" ".join(words),
                allowed=f"one view of {chosen_from(registry.latest)}, one kind of {chosen_from(KINDS)}, or one of each",
            )
    return view, kind


def _open_problems(ledger: Ledger, registry: FeatureRegistry, settings: Settings, silence: Silence) -> list[Problem]:
    from feature_platform.observability import all_problems

    found = all_problems(ledger, registry, stores=tuple(settings.all_stores), now=ledger.now())
    return [one for one in found if silence.covers(view=one.view, kind=one.kind)]


def _print_open(problems: Sequence[Problem], title: str) -> None:
    if problems:
        click.echo(title)
    for problem in problems:
        click.echo(f"  {problem.severity}: {problem.message}")


def _chosen(silences: Sequence[Silence], name: str) -> Silence:
    found = [one for one in silences if one.silence_id.startswith(name)]
    if len(found) != 1:
        raise UnknownNameError(
            f"{name!r} names {'no' if not found else 'more than one'} silence that lasts",
            allowed=chosen_from(one.silence_id[:8] for one in silences),
            hint="`feature-platform silence list` shows them",
        )
    return found[0]


def _named(one: Silence) -> str:
    return " of ".join(filter(None, (one.kind, one.view)))


def _open(settings: Settings) -> Ledger:
    from feature_platform.ledger import Ledger

    return Ledger.connect(settings.ledger_url)
