"""Taking a view version out of an online store.

Rule: the position goes first, so that the store never claims rows that are gone and no running sync can advance; then
the documents; then the rows, in bounded slices. Their keys come from the lake, so no key of another view is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.feature_view import Column
from feature_platform.domain.types import parse_column_type
from feature_platform.errors import RequestError, UnknownNameError, chosen_from
from feature_platform.lake import connect
from feature_platform.lake.failures import lake_errors
from feature_platform.lake.sql import BATCHES_SCHEMA, PUSHED_SCHEMA, qualified
from feature_platform.lake.streaming import record_batches
from feature_platform.ledger import Ledger
from feature_platform.online import keys
from feature_platform.online.writable import WritableStore, open_store
from feature_platform.settings import Settings
from feature_platform.sync.encoding import row_keys
from feature_platform.sync.plan import typed

KEYS_PER_CALL: Final = 1_000
"""Keys of one UNLINK: the server is never busy for more than about a millisecond."""
LAKE_MEMORY: Final = "200MB"
_TIMEOUT_SECONDS: Final = 30.0

Progress = Callable[[int], None]
"""Called with the entities gone through so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropResult:
    """What was taken out."""

    view: str
    store: str
    rows: int
    """Keys that were there: rows, tombstones, pushed rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployed:
    """What the ledger knows of a view that may be declared no more."""

    key: str
    table: str
    entities: tuple[Column, ...]


def drop(
    settings: Settings,
    registry: FeatureRegistry,
    view: str,
    *,
    even_if_used: bool = False,
    scan: bool = False,
    progress: Progress | None = None,
) -> DropResult:
    """Take a view version out of the store of the settings. Safe to repeat; a sync brings everything back.

    Args:
        settings: addresses.
        registry: declarations: which services read the view.
        view: `name@version`; it need not be declared any more.
        even_if_used: also if a service reads it.
        scan: look through all keys of the store for rows of entities that the lake no longer knows.
        progress: told how far it is.

    Raises:
        RequestError: a service reads it.
        UnknownNameError: it was never deployed.
        StoreUnavailableError: the store cannot be reached.
    """
    users = [service.name for service in registry.services_reading(view)]
    if users and not even_if_used:
        raise RequestError(
            f"feature view {view} is read by feature services",
            found=chosen_from(users),
            hint="move them to another version first; --even-if-used drops it all the same, and they find it missing",
        )
    with Ledger.connect(settings.ledger_url) as ledger:
        deployed = _deployed(ledger, view)
    with closing(open_store(settings.valkey_url, _TIMEOUT_SECONDS)) as store:
        layouts = [field for field in store.call("HKEYS", keys.LAYOUTS) if field.decode().rpartition(":")[0] == view]
        store.forget(view)
        store.call("HDEL", keys.VIEWS, view)
        if layouts:
            store.call("HDEL", keys.LAYOUTS, *layouts)
        rows, seen = 0, 0
        for names in _known_keys(settings, deployed):
            rows += store.remove([*names, *map(keys.push_key, names)])
            seen += len(names)
            if progress:
                progress(seen)
        if scan:
            rows += _scan(store, view)
    return DropResult(view=view, store=settings.store, rows=rows)


def _deployed(ledger: Ledger, view: str) -> _Deployed:
    deployments = ledger.deployments()
    for deployment in deployments:
        if found := deployment.views.get(view):
            return _Deployed(key=view, table=found["table"], entities=tuple(map(_column, found["entities"])))
    known = sorted({key for deployment in deployments for key in deployment.views})
    raise UnknownNameError(
        f"no feature view {view!r} was ever deployed",
        allowed=chosen_from(known),
        hint="name the version, too, like carrier_delays@1",
    )


def _column(document: dict[str, Any]) -> Column:
    type_ = parse_column_type(document["type"])
    if type_ is None:
        raise UnknownNameError(
            f"entity column {document['name']!r} has a type that this platform does not know",
            found=document["type"],
            hint="a newer platform wrote it: drop the view with that one",
        )
    return Column(name=document["name"], type=type_)


def _known_keys(settings: Settings, view: _Deployed) -> Iterator[list[bytes]]:
    """Keys of every entity that ever had a row: published or not, of a batch or pushed."""
    with lake_errors(f"reading {view.key}"), closing(connect(settings, read_only=True, memory=LAKE_MEMORY)) as lake:
        schemas = lake.execute(
            "select schema_name from duckdb_tables() where database_name = 'lake' and table_name = ?"
            f" and schema_name in ('{BATCHES_SCHEMA}', '{PUSHED_SCHEMA}')",
            [view.table],
        ).fetchall()
        if not schemas:
            return
        tables = [f"select {typed(view.entities)} from {qualified(schema, view.table)}" for (schema,) in schemas]
        found = lake.execute(f"select distinct * from ({' union all '.join(tables)})")
        for batch in record_batches(found, KEYS_PER_CALL):
            names = row_keys(view.key, view.entities, batch).to_pylist()
            for first in range(0, len(names), KEYS_PER_CALL):
                yield names[first : first + KEYS_PER_CALL]


def _scan(store: WritableStore, view: str) -> int:
    return sum(store.remove(names) for names in store.pages(keys.row_key(view, b"*") + b"*", KEYS_PER_CALL))
