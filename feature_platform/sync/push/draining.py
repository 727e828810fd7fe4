"""Draining pushes: from the ledger into the lake, where training finds them.

Rule: rows and the mark of how far they reach are one commit, so a drain may die anywhere and be repeated. The ledger
forgets rows only when they are in the lake and so old that no store may have to get them again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import duckdb
import pyarrow as pa

from feature_platform.domain.feature_view import FeatureView
from feature_platform.lake import connect
from feature_platform.lake.push_tables import drained_through, drains_table, pushed_table
from feature_platform.lake.tables import transaction
from feature_platform.ledger import Ledger, deployment_lock, push_drain_lock
from feature_platform.settings import Settings
from feature_platform.sync.push.rows import chunks

KEPT_BEYOND_TTL: Final = timedelta(days=1)
"""A store's clock and ours may differ; a row that is dead for so long is wanted by nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushDrain:
    """What a drain took over."""

    view: str
    pushes: int
    rows: int
    through: int
    """Number of the last push that is in the lake."""
    forgotten: int
    """Pushes whose rows the ledger has deleted."""


def drain_pushes(
    settings: Settings, view: FeatureView, *, progress: Callable[[int], None] = lambda _rows: None
) -> PushDrain:
    """Take over all that was pushed to a view up to now.

    Raises:
        NotDeployedError: the lake lacks the table.
        LockBusyError: another drain of the view, or a deploy, goes on.
    """
    with (
        Ledger.connect(settings.ledger_url) as ledger,
        deployment_lock(ledger.connection, exclusive=False),
        push_drain_lock(ledger.connection, view.key),
        closing(connect(settings)) as lake,
    ):
        through = drained_through(lake, view)
        pushes = rows = 0
        for table, count, last in chunks(view, ledger.pushes_after(view.key, through)):
            _write(lake, view, table, last)
            pushes, rows, through = pushes + count, rows + table.num_rows, last
            progress(rows)
        forgotten = 0
        if view.ttl is not None:
            dead = ledger.now() - view.ttl - KEPT_BEYOND_TTL
            forgotten = ledger.forget_pushed_rows(view.key, through=through, older_than=dead)
        return PushDrain(view=view.key, pushes=pushes, rows=rows, through=through, forgotten=forgotten)


def _write(lake: duckdb.DuckDBPyConnection, view: FeatureView, rows: pa.Table, through: int) -> None:
    with transaction(lake):
        lake.register("drained", rows)
        lake.execute(f"insert into {pushed_table(view)} by name select * from drained")
        lake.unregister("drained")
        lake.execute(f"insert into {drains_table()} values (?, ?, ?)", [view.key, through, datetime.now(UTC)])
