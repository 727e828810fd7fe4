"""`feature-platform ledger`: what happened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from feature_platform import settings
from feature_platform.cli.output import json_option, print_json, print_table
from feature_platform.declaration import canary
from feature_platform.domain.durations import format_duration
from feature_platform.domain.serving_history import ServedHistory, StoreIncident
from feature_platform.errors import UnknownNameError, chosen_from

if TYPE_CHECKING:
    from feature_platform.ledger import Ledger, UnfinishedBatch

_SHORT_ID = 8


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def ledger() -> None:
    """What happened: batches, checks, syncs, deployments.

    VIEW is `name@version`, e.g. carrier_delays@1; without a version, all versions of it. Without VIEW, all but the
    platform's own, feature_platform_canary.
    """


@ledger.command()
@click.argument("view", required=False)
@click.option("--run", "run_id", help="Only batches of this run.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
def batches(view: str | None, run_id: str | None, limit: int, *, as_json: bool) -> None:
    """Batches and what became of them, newest first."""
    with _open() as opened:
        keys = _view_keys(opened, view)
        found = [history for key in keys for history in opened.batches(key, run_id=run_id, limit=limit)]
    found = sorted(found, key=lambda history: history.batch.seq, reverse=True)[:limit]
    if as_json:
        print_json([{"state": history.state, "history": history} for history in found])
        return
    print_table(
        ("batch", "view", "partition", "state", "rows", "position", "opened", "what"),
        (
            (
                history.batch.batch_id[:_SHORT_ID],
                history.batch.view,
                history.batch.partition.key,
                history.state,
                _text(history.row_count),
                _text(history.position),
                _text(history.opened_at),
                _why(history.failure or ""),
            )
            for history in found
        ),
        empty="nothing",
    )


@ledger.command()
@click.argument("batch_id")
@json_option
def checks(batch_id: str, *, as_json: bool) -> None:
    """What each check said of a batch. BATCH_ID may be shortened."""
    with _open() as opened:
        matching = [h.batch.batch_id for h in opened.batches() if h.batch.batch_id.startswith(batch_id)]
        if len(matching) != 1:
            raise UnknownNameError(
                f"{len(matching)} batches have an id that begins with {batch_id!r}",
                allowed="exactly one",
                hint="`feature-platform ledger batches` lists them",
            )
        found = opened.checks(matching[0])
    if as_json:
        print_json(found)
        return
    print_table(
        ("check", "kind", "verdict", "blocking", "detail"),
        (
            (one.check, one.kind, "passed" if one.passed else "failed", "yes" if one.blocking else "no",
             str(one.detail.get("message") or dict(one.detail)))
            for one in found
        ),
        empty="nothing",
    )  # fmt: skip


@ledger.command()
@click.argument("view", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=30, show_default=True)
@json_option
def events(view: str | None, limit: int, *, as_json: bool) -> None:
    """Everything that happened, newest first."""
    with _open() as opened:
        if view is None:
            found = [*opened.events(without=canary.KEY, limit=limit)]
        else:
            found = [event for key in _view_keys(opened, view) for event in opened.events(key, limit=limit)]
    found = sorted(found, key=lambda event: event.ledger_seq, reverse=True)[:limit]
    if as_json:
        print_json(found)
        return
    print_table(
        ("number", "at", "event", "view", "subject", "detail"),
        (
            (str(event.ledger_seq), _text(event.at), event.event, event.view or "", _short(event.subject),
             ", ".join(f"{name} {value}" for name, value in event.detail.items()))
            for event in found
        ),
        empty="nothing",
    )  # fmt: skip


@ledger.command()
@click.argument("view", required=False)
@json_option
def unfinished(view: str | None, *, as_json: bool) -> None:
    """Batches opened and neither published nor given up: of runs going on, or left by a crash."""
    with _open() as opened:
        found = [batch for key in _view_keys(opened, view) for batch in opened.unfinished(key)]
    if as_json:
        print_json(found)
        return
    print_table(
        ("batch", "view", "partition", "run", "opened", "age"),
        (
            (one.batch.batch_id[:_SHORT_ID], one.batch.view, one.batch.partition.key, one.run_id, _text(one.opened_at),
             format_duration(one.age))
            for one in found
        ),
        empty="nothing",
    )  # fmt: skip


@ledger.command("give-up")
@click.argument("names", nargs=-1, required=True, metavar="BATCH_OR_RUN...")
@json_option
def give_up(names: tuple[str, ...], *, as_json: bool) -> None:
    """Give up unfinished batches, by their ids (or how these begin) or by that of their run.

    For runs that Dagster does not know: those it knows to be over are given up by themselves. Changes nothing that
    anybody reads; a run that still computes such a batch fails when it wants to publish.
    """
    with _open() as opened:
        left = opened.unfinished()
        chosen = {name: [one for one in left if name == one.run_id or _begins(one, name)] for name in names}
        for name, found in chosen.items():
            if not found:
                raise UnknownNameError(
                    f"no unfinished batch or run is called {name}",
                    allowed="runs: " + chosen_from({one.run_id for one in left}),
                    hint="`feature-platform ledger unfinished` lists them",
                )
        batches = {one.batch.batch_id: one for found in chosen.values() for one in found}
        opened.record_failed(batches, "given up by hand")
    if as_json:
        print_json({"given_up": list(batches)})
        return
    for one in batches.values():
        click.echo(f"given up: {one.batch.view} {one.batch.partition.key}, batch {one.batch.batch_id[:_SHORT_ID]}")


def _begins(one: UnfinishedBatch, name: str) -> bool:
    return len(name) >= _SHORT_ID and one.batch.batch_id.startswith(name)


@ledger.command()
@click.argument("view", required=False)
@click.option("--store", help="Only syncs to this online store.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
def syncs(view: str | None, store: str | None, limit: int, *, as_json: bool) -> None:
    """Syncs to online stores, newest first."""
    with _open() as opened:
        found = [sync for key in _view_keys(opened, view) for sync in opened.syncs(key, store)]
    found = sorted(found, key=lambda sync: sync.began_at, reverse=True)[:limit]
    if as_json:
        print_json(found)
        return
    print_table(
        ("sync", "view", "store", "positions", "began", "ended"),
        (
            (one.sync_id[:_SHORT_ID], one.view, one.store, f"{one.from_position} to {one.to_position}",
             _text(one.began_at), _text(one.ended_at) or "did not end")
            for one in found
        ),
        empty="nothing",
    )  # fmt: skip


@ledger.command()
@click.argument("view", required=False)
@click.option("--store", help="Only this online store.")
@json_option
def stores(view: str | None, store: str | None, *, as_json: bool) -> None:
    """What online stores held, when that is known, and when it was lost.

    Derived from what the stores said of themselves. Training mode `served` answers "unknown" for an incident, and for
    what comes after the last sighting.
    """
    with _open() as opened:
        keys = _view_keys(opened, view)
        names = [name for name in opened.stores() if store in (None, name)]
        found = [(name, key, opened.served_history(key, name)) for name in names for key in keys]
    rows = [_StoreRow.of(name, key, history) for name, key, history in found if history.known or history.syncs]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("store", "view", "live since", "known until", "incidents"),
        (
            (one.store, one.view, _text(one.live_since) or "not live", _text(one.known_until) or "never seen",
             "\n".join(f"{_text(i.since)} to {_text(i.until) or 'now'}: {i.loss}" for i in one.incidents))
            for one in rows
        ),
        empty="nothing",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoreRow:
    """One view in one store, for people."""

    store: str
    view: str
    position: int
    live_since: datetime | None
    known_until: datetime | None
    incidents: tuple[StoreIncident, ...]

    @classmethod
    def of(cls, store: str, view: str, history: ServedHistory) -> _StoreRow:
        return cls(
            store=store,
            view=view,
            position=history.ends[-1][1] if history.ends else 0,
            live_since=history.live_since,
            known_until=history.confirmed_until,
            incidents=history.incidents,
        )


@ledger.command()
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True)
@json_option
def deployments(limit: int, *, as_json: bool) -> None:
    """Deployments, newest first."""
    with _open() as opened:
        found = opened.deployments(limit=limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("number", "at", "version", "manifest", "views"),
        (
            (str(one.ledger_seq), _text(one.deployed_at), one.platform_version, one.manifest_hash[:12],
             ", ".join(sorted(one.views)))
            for one in found
        ),
        empty="nothing",
    )  # fmt: skip


def _open() -> Ledger:
    from feature_platform.ledger import Ledger  # psycopg2

    return Ledger.connect(settings.read("LEDGER_URL"))


def _view_keys(opened: Ledger, view: str | None) -> Sequence[str]:
    """The keys a name means in this ledger; without one, all views that people declared."""
    known = opened.view_keys()
    if view is None:
        return [key for key in known if key != canary.KEY]
    keys = [key for key in known if view in (key, key.partition("@")[0])]
    if not keys:
        raise UnknownNameError(f"the ledger knows no feature view {view!r}", allowed=", ".join(known) or "(none yet)")
    return keys


def _short(subject: str) -> str:
    """Ids and hashes shortened; names of sources whole."""
    return subject if "." in subject else subject[:_SHORT_ID]


def _why(failure: str) -> str:
    r"""What failed and what was found, of an error's text; what to do next is said where it was raised.

    >>> _why("ComputationError: the SQL failed\n  found:   IO Error\n  disk full\n  next:    look")
    'ComputationError: the SQL failed: IO Error; disk full'
    """
    failed, _, rest = failure.partition("\n  found: ")
    found = re.split(r"\n  (?:allowed|next): ", rest)[0]
    said = "; ".join(line.strip() for line in found.splitlines() if line.strip())
    return ": ".join(filter(None, (failed.partition("\n")[0], said)))


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)
