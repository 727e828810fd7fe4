"""`feature-platform sync` and `feature-platform get`: bring features to the online store, and read them back."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from feature_platform.cli.output import json_option, print_json, print_table, progress_bars
from feature_platform.domain.durations import format_duration
from feature_platform.domain.feature_view import FeatureView
from feature_platform.errors import EntityError, RequestError, chosen_from
from feature_platform.online import FeatureClient, FeatureStatus, OnlineFeatures
from feature_platform.online.catalog import ViewDocument
from feature_platform.online.keys import parse_text
from feature_platform.settings import Settings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from feature_platform.declaration import FeatureRegistry
    from feature_platform.sync import SyncResult

_COLORS = {
    FeatureStatus.FRESH: "green",
    FeatureStatus.STALE: "yellow",
    FeatureStatus.EXPIRED: "red",
    FeatureStatus.MISSING: "red",
}


@click.command()
@click.argument("service_or_refs", nargs=-1, required=True)
@click.option(
    "--entity", "entities", multiple=True, required=True, metavar="COLUMN=VALUE", help="A key column; repeat."
)
@json_option
def get(*, service_or_refs: tuple[str, ...], entities: tuple[str, ...], as_json: bool) -> None:
    """Read features of one entity from the online store.

    SERVICE_OR_REFS: a feature service, or references like carrier_delays:dep_delay_mean_7d.
    """
    asked: str | tuple[str, ...] = service_or_refs[0] if len(service_or_refs) == 1 else service_or_refs
    with FeatureClient.from_env() as client:
        entity = parse_entity(entities, client.describe(asked))
        answer = client.get_online_features(asked, [entity])
    if as_json:
        (row,) = answer
        print_json({"entity": row.entity, "values": row.values, "views": row.views})
    else:
        _print_features(answer)


def parse_entity(pairs: Iterable[str], views: Iterable[ViewDocument]) -> dict[str, Any]:
    """The entity that `column=value` pairs spell, in the types of the views' key columns.

    Raises:
        EntityError: a pair is malformed, repeated or names no key column.
    """
    types = {name: type_ for view in views for name, type_ in view.entities}
    entity: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in types or name in entity:
            raise EntityError(
                f"--entity {pair} is {'given twice' if name in entity else 'no key of the views asked for'}",
                allowed=" ".join(f"--entity {column}=…" for column in types),
            )
        entity[name] = parse_text(name, types[name], text)
    return entity


def _print_features(answer: OnlineFeatures) -> None:
    from rich.text import Text

    (row,) = answer
    print_table(
        ("feature", "value"),
        ((name, Text("null", style="dim") if value is None else str(value)) for name, value in row.values.items()),
    )
    print_table(
        ("view", "status", "true as of", "age", "position"),
        (
            (
                key,
                Text(reading.status.value, style=_COLORS[reading.status]),
                f"{reading.event_timestamp:%Y-%m-%d %H:%M:%S} UTC" if reading.event_timestamp else "-",
                format_duration(reading.age) if reading.age is not None else "-",
                "-" if reading.position is None else str(reading.position),
            )
            for key, reading in row.views.items()
        ),
    )


@click.command()
@click.argument("views", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All views served online.")
@click.option("--store", "stores", multiple=True, help="Only this online store; may be repeated. [default: all]")
@click.option("--rebuild", is_flag=True, help="Write every entity again, not only those that changed.")
@json_option
def sync(*, views: tuple[str, ...], every: bool, stores: tuple[str, ...], rebuild: bool, as_json: bool) -> None:
    """Bring published batches of VIEWS to the online stores. Safe to repeat at any time.

    Stores (FEATURE_PLATFORM_STORE and those of FEATURE_PLATFORM_STORES) are written beside each other. One that is down
    holds nobody: the command ends with exit code 75 then, and the next one brings that store up to date.
    """
    from feature_platform.declaration import load_registry
    from feature_platform.sync import (  # imports DuckDB and pyarrow, which `get` does not need
        raise_failures,
        sync_stores,
    )

    settings = Settings.from_env()
    registry = load_registry(settings.manifest_path)
    chosen = _choose(registry, views, every=every)
    run_id = f"cli-{uuid.uuid4()}"
    with _progress(shown=not as_json) as progress:
        outcomes = sync_stores(
            settings, registry, chosen, stores=stores, rebuild=rebuild, run_id=run_id, progress=progress
        )
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    if as_json:
        print_json(results)
    elif results:
        _print_results(results)
    raise_failures(outcomes)


def _choose(registry: FeatureRegistry, refs: tuple[str, ...], *, every: bool) -> tuple[FeatureView, ...]:
    if every == bool(refs):
        raise RequestError(
            "name the views to sync, or pass --all",
            found="both" if every else "neither",
            allowed=chosen_from(view.key for view in registry.served_views),
        )
    return registry.served_views if every else registry.views_named(refs)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[str, str, int, int], None]]:
    """A bar per view and store."""
    tasks: dict[tuple[str, str], TaskID] = {}
    with progress_bars("{task.fields[speed]}", shown=shown) as bars:

        def told(store: str, view: str, done: int, total: int) -> None:
            if (store, view) not in tasks:
                tasks[store, view] = bars.add_task(f"{view} in {store}", total=total, speed="")
            task = next(task for task in bars.tasks if task.id == tasks[store, view])
            bars.update(task.id, completed=done, total=total, speed=f"{done / max(task.elapsed or 1, 0.1):,.0f}/s")

        yield told


def _print_results(results: Iterable[SyncResult]) -> None:
    titles = ("view", "store", "position", "entities", "written", "none", "sent", "newest event", "took")
    print_table(titles, map(_result_row, results))


def _result_row(result: SyncResult) -> tuple[str, ...]:
    newest = result.newest_event_timestamp
    return (
        result.view,
        result.store,
        f"{result.from_position} → {result.to_position}",
        f"{result.entities:,}",
        f"{result.written:,}",
        f"{result.tombstones:,}",
        f"{result.bytes / 1e6:,.1f} MB",
        newest.strftime("%Y-%m-%d %H:%M UTC") if newest else "-",
        format_duration(timedelta(seconds=result.seconds)) if result.seconds >= 1 else f"{result.seconds:.2f} s",
    )
