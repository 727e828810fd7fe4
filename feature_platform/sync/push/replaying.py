"""Writing pushes to a store: those that it has not acknowledged, and all of them to a store that lost them.

Rule: a row replaces another iff (event time, push number) is not smaller, so writing again, late or beside others is
harmless. An acknowledgement counts for the incarnation that gave it, which is asked before the first write.
"""

from __future__ import annotations

from typing import Final

from feature_platform.domain.feature_view import FeatureView
from feature_platform.ledger import Ledger
from feature_platform.online import functions
from feature_platform.online.connection import raise_if_error
from feature_platform.online.functions import StorePosition
from feature_platform.online.writable import Server, WritableStore
from feature_platform.online.writable_cluster import WritableCluster
from feature_platform.sync import framing
from feature_platform.sync.encoding import Encoded, encode_pushed, layout_of
from feature_platform.sync.push.rows import arrow_schema, from_ipc
from feature_platform.sync.scattering import ScatteringWriter

_ACKNOWLEDGED_AT_ONCE: Final = 100


def replay(
    online: WritableStore, ledger: Ledger, view: FeatureView, store: str, *, again: bool = False
) -> StorePosition:
    """Write all living pushes of a view that this incarnation of the store has not acknowledged.

    Args:
        online: the open store.
        ledger: where the pushes are.
        view: the view.
        store: name of the store in the ledger.
        again: those that it has acknowledged, too.

    Returns:
        Which store it was: whoever relies on the pushes being there asks again afterwards (`still_holds`).
    """
    begun = online.begin_pushes(view.key)
    newer_than = None if view.ttl is None else ledger.now() - view.ttl
    layout, schema = layout_of(view), arrow_schema(view)
    written: list[int] = []

    def acknowledge() -> None:
        if written:
            ledger.acknowledge_pushes(store, written, nonce=begun.nonce, server_run_id=begun.server_run_id)
            written.clear()

    missing = ledger.pushes_to_write(
        view.key, store, nonce=begun.nonce, server_run_id=begun.server_run_id, newer_than=newer_than
    )
    for one in ledger.living_pushes(view.key, newer_than=newer_than) if again else missing:
        write(online, encode_pushed(view, layout, one.number, from_ipc(view, schema, one.arrow)))
        written.append(one.number)
        # what was written while the store was replaced is no acknowledgement of the one that is there now
        if len(written) >= _ACKNOWLEDGED_AT_ONCE and still_holds(online, view, begun):
            acknowledge()
    if written and still_holds(online, view, begun):
        acknowledge()
    return begun


def still_holds(online: WritableStore, view: FeatureView, begun: StorePosition) -> bool:
    """Whether the store is still the one that was met: nothing that it acknowledged since is lost."""
    now = online.begin_pushes(view.key)
    return (now.nonce, now.server_run_id) == (begun.nonce, begun.server_run_id)


def write(online: WritableStore, rows: Encoded) -> None:
    """Write rows and wait until the store has acknowledged all of them."""
    if isinstance(online, WritableCluster):
        ScatteringWriter(online, function="push").write(rows)
    elif isinstance(online, Server):
        payload, replies = framing.call(rows, name=functions.push_name())
        online.send(payload)
        for _ in range(replies):
            raise_if_error(online.receive(), online.address)
