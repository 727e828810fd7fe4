"""Pushing rows: checked, logged, written, acknowledged, in this order.

Rule: what is logged is never lost. A store that does not answer gets the rows from the next sync, which replays what is
not acknowledged; the caller is told.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView
from feature_platform.errors import FeaturePlatformError, RequestError, StoreUnavailableError
from feature_platform.ledger import Ledger, whoami
from feature_platform.online.writable import WritableStore, open_store
from feature_platform.settings import Settings
from feature_platform.sync.encoding import encode_pushed, layout_of
from feature_platform.sync.publishing import ensure_published
from feature_platform.sync.push.replaying import still_holds, write
from feature_platform.sync.push.rows import arrow_schema, as_batches, to_ipc
from feature_platform.sync.refusals import refuse_older_declarations

TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What became of rows that were pushed."""

    view: str
    rows: int
    numbers: tuple[int, ...]
    """Of the pushes in the ledger, one per 10,000 rows."""
    acknowledged: bool
    """The store holds them. If not, they are safe in the ledger, and the next sync writes them."""
    problem: str = ""
    """Why the store does not hold them yet."""


def push(view: str, rows: Any) -> PushResult:
    """Push rows to the view and store that the environment or the data directory names: `FeaturePusher.push`, once.

    Raises: as `FeaturePusher.push`.
    """
    with FeaturePusher.from_env() as pusher:
        return pusher.push(view, rows)


class FeaturePusher:
    """Pushes rows to feature views. Thread-safe: pushes of one pusher follow each other. Close it after use."""

    def __init__(self, settings: Settings, registry: FeatureRegistry, *, pushed_by: str | None = None) -> None:
        self._settings = settings
        self._registry = registry
        self._pushed_by = pushed_by or whoami()
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        self._store: WritableStore | None = None
        self._schemas: dict[str, pa.Schema] = {}
        # by view, the incarnation that has the view's documents
        self._published: dict[str, str] = {}

    @classmethod
    def from_env(cls) -> Self:
        """A pusher for the platform that the environment or the data directory names.

        Raises:
            ConfigurationError: an address is set nowhere, or malformed.
            NotDeployedError: nothing is deployed.
        """
        settings = Settings.from_env()
        return cls(settings, load_registry(settings.manifest_path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._hang_up()
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None

    def push(self, view: str | FeatureView, rows: Any) -> PushResult:
        """Log rows and write them to the online store.

        Of an entity's rows the one with the greatest event time counts, of equal event times the one pushed last; a row
        of a batch counts if it is at least as new.

        Args:
            view: the view, or a reference to it; it declares `push: true`.
            rows: a list of dicts, a pandas DataFrame, or anything Arrow: key columns, `event_timestamp` and every
                feature, in the declared types.

        Raises:
            RequestError: the view takes no pushes, or the rows are refused; nothing of the part that is refused (10,000
                rows) was logged. Its subclasses say what is wrong.
            NotDeployedError: this process has older declarations than those deployed.
            LedgerUnavailableError: Postgres cannot be reached; nothing more is logged.
        """
        declared = self._registry.view(view) if isinstance(view, str) else view
        if not declared.push:
            raise RequestError(
                f"feature view {declared.key} takes no pushed rows",
                found="push: false",
                hint="declare `push: true` in its meta.feature_view, and deploy",
            )
        with self._lock:
            return self._push(declared, rows)

    def _push(self, view: FeatureView, rows: Any) -> PushResult:
        ledger = self._open_ledger()
        refuse_older_declarations(view, ledger)
        schema = self._schemas.get(view.key) or self._schemas.setdefault(view.key, arrow_schema(view))
        numbers, count, problem = [], 0, ""
        for batch in as_batches(view, schema, rows, now=datetime.now(UTC)):
            # encoded before it is logged: what cannot be written must not be logged
            encode_pushed(view, layout_of(view), 0, batch)
            number, _ = ledger.record_push(
                view.key,
                to_ipc(batch),
                row_count=batch.num_rows,
                newest_event=pc.max(batch.column(EVENT_TIMESTAMP)).as_py(),
                pushed_by=self._pushed_by,
            )
            numbers.append(number)
            count += batch.num_rows
            problem = problem or self._write(ledger, view, number, batch)
        return PushResult(view=view.key, rows=count, numbers=tuple(numbers), acknowledged=not problem, problem=problem)

    def _write(self, ledger: Ledger, view: FeatureView, number: int, batch: pa.RecordBatch) -> str:
        """Write one push; why the store does not hold it, or nothing."""
        try:
            store = self._open_store()
            begun = store.begin_pushes(view.key)
            if self._published.get(view.key) != begun.nonce:
                ensure_published(store, self._registry, view)
                self._published[view.key] = begun.nonce
            write(store, encode_pushed(view, layout_of(view), number, batch))
            if not still_holds(store, view, begun):
                return "the store lost its data while it was written"
            ledger.acknowledge_pushes(
                self._settings.store, [number], nonce=begun.nonce, server_run_id=begun.server_run_id
            )
        except StoreUnavailableError as error:
            self._hang_up()
            return str(error)
        except FeaturePlatformError:
            self._hang_up()  # there may be replies that nobody has read
            raise
        return ""

    def _open_ledger(self) -> Ledger:
        if self._ledger is None or self._ledger.connection.closed:
            self._ledger = Ledger.connect(self._settings.ledger_url)
        return self._ledger

    def _open_store(self) -> WritableStore:
        if self._store is None:
            self._store = open_store(self._settings.valkey_url, TIMEOUT_SECONDS)
        return self._store

    def _hang_up(self) -> None:
        if self._store is not None:
            with suppress(OSError):
                self._store.close()
            self._store = None
