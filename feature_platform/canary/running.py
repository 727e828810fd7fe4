"""One round of the canary: write for all stores, then sync, read and compare in each.

Rule: stores are independent of each other. Each has a thread, its result is recorded as soon as it is known, and one
that is down or hangs holds nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Final

from feature_platform.canary.writing import Written, write_batch
from feature_platform.declaration import FeatureRegistry
from feature_platform.declaration.canary import KEY, canary_view, with_canary
from feature_platform.errors import FeaturePlatformError, LockBusyError, RequestError, Transient
from feature_platform.lake import connect
from feature_platform.lake.failures import lake_errors
from feature_platform.ledger import CanaryRead, Ledger, canary_lock
from feature_platform.online import FeatureClient
from feature_platform.online.result import OnlineRow
from feature_platform.online.view_values import FeatureStatus
from feature_platform.settings import Settings
from feature_platform.sync import sync

LAKE_MEMORY: Final = "128MB"
LAKE_THREADS: Final = 1
READ_TIMEOUT_SECONDS: Final = 5.0
_FAILURE_LENGTH: Final = 500


def run_canary(
    settings: Settings, registry: FeatureRegistry, *, run_id: str, stores: Iterable[str] = ()
) -> tuple[CanaryRead, ...]:
    """Write a fresh value for each store, and see that a client reads exactly that. Results go to the ledger.

    What fails is a result and raises nothing, as long as the ledger can be written.

    Args:
        settings: addresses.
        registry: the deployed declarations.
        run_id: who does this, for the ledger.
        stores: names of stores; by default all that the settings know.

    Raises:
        UnknownNameError: the settings know no such store.
        RequestError: no view is served online, so there is no way to try.
        LedgerUnavailableError: the ledger cannot be reached.
        LockBusyError: a deploy or another round is going on; nothing was tried.
    """
    places = [settings.at_store(store) for store in stores or settings.all_stores]
    if not all(place.valkey_url for place in places):
        raise RequestError("there is no online store", hint="set FEATURE_PLATFORM_VALKEY_URL")
    with Ledger.connect(settings.ledger_url) as ledger, canary_lock(ledger.connection):
        began = ledger.now()
        try:
            written = _write(settings, registry, ledger, [place.store for place in places], run_id=run_id)
        except LockBusyError:
            raise
        except FeaturePlatformError as error:
            failed = tuple(
                CanaryRead(store=place.store, batch_id=None, written_at=began, failed_at="write", failure=_said(error))
                for place in places
            )
            for read in failed:
                ledger.record_canary(read)
            return failed
        # the executor waits for what hangs, at most as long as the deadlines of sync and client
        with ThreadPoolExecutor(len(places), thread_name_prefix="canary") as threads:
            going = [threads.submit(_try_store, place, registry, written, run_id=run_id) for place in places]
            done = {}
            for future in as_completed(going):
                read = future.result()
                ledger.record_canary(read)
                done[read.store] = read
    return tuple(done[place.store] for place in places)


def _write(settings: Settings, registry: FeatureRegistry, ledger: Ledger, stores: list[str], *, run_id: str) -> Written:
    with lake_errors("opening the lake"), closing(connect(settings, threads=LAKE_THREADS, memory=LAKE_MEMORY)) as lake:
        return write_batch(settings, ledger, lake, canary_view(registry), stores, run_id=run_id)


def _try_store(settings: Settings, registry: FeatureRegistry, written: Written, *, run_id: str) -> CanaryRead:
    """Sync, read and compare in one store."""
    read = CanaryRead(store=settings.store, batch_id=written.batch.batch_id, written_at=written.at)
    step = "sync"
    try:
        with Ledger.connect(settings.ledger_url) as ledger:
            sync(settings, with_canary(registry), KEY, run_id=run_id)
            read, step = replace(read, online_at=ledger.now()), "read"
            with FeatureClient.connect(settings.valkey_url, timeout_seconds=READ_TIMEOUT_SECONDS) as client:
                (row,) = client.get_online_features([KEY], [{"store": settings.store}])
                read, step = replace(read, read_at=ledger.now()), "compare"
                different = differences(row, written, settings.store)  # decodes what came
    except FeaturePlatformError as error:
        return replace(read, failed_at=step, failure=_said(error))
    return replace(read, failed_at="compare", failure=different) if different else read


def differences(row: OnlineRow, written: Written, store: str) -> str:
    """What a client was told otherwise than it was written; empty if nothing was."""
    reading = row.views[KEY]
    expected = {"status": FeatureStatus.FRESH, "event_timestamp": written.at, **written.values[store]}
    found = {"status": reading.status, "event_timestamp": reading.event_timestamp, **row.values}
    return "; ".join(
        f"{name}: wrote {_shown(value)}, read {_shown(found.get(name))}"
        for name, value in expected.items()
        if found.get(name) != value
    )


def _shown(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _said(error: FeaturePlatformError) -> str:
    said = ": ".join(filter(None, (error.failed, error.found)))
    # what must be done by hand is said where it was raised; a call that is repeated anyway needs no advice
    hint = "" if isinstance(error, Transient) or not error.hint else f"; {error.hint}"
    return " ".join(f"{said}{hint}".split())[:_FAILURE_LENGTH]
