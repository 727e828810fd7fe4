"""A used platform for tests of maintenance: batches as runs leave them, written without dbt."""

from __future__ import annotations

from contextlib import closing

import pytest
from tiny_platform import TinyPlatform

from feature_platform.domain.batch import Measured
from feature_platform.lake import connect
from feature_platform.ledger import Ledger, deployment_lock

DAYS = tuple(f"2024-01-{day:02}" for day in range(2, 8))


@pytest.fixture
def used(tiny: TinyPlatform) -> TinyPlatform:
    """Six days, three of them recomputed, one run that was abandoned; superseded batches are kept for 30 days."""
    for some in (DAYS[:2], DAYS[2:4], DAYS[4:]):
        write(tiny, *some)
    write(tiny, *DAYS[:3])
    write(tiny, DAYS[0], published=False)
    return tiny


def write(platform: TinyPlatform, *days: str, rows: int = 20, published: bool = True):
    """Batches as runs leave them, without dbt: 20 users a day, one append."""
    view = platform.registry.view("user_activity")
    with (
        Ledger.connect(platform.settings.ledger_url) as ledger,
        deployment_lock(ledger.connection, exclusive=False),
        closing(connect(platform.settings)) as lake,
    ):
        batches = ledger.open_batches(view, platform.partitions("user_activity", *days), run_id="run")
        selects = [
            f"select {rows} - i, timestamptz '{one.partition.end.isoformat()}', i, random() * 100, '{one.batch_id}',"
            f" timestamptz '{one.partition.start.isoformat()}' from range({rows}) as r (i)"
            for one in batches
        ]
        lake.execute(f"insert into lake.batches.user_activity_v1 {' union all '.join(selects)}")
        if not published:
            return batches
        ids = [one.batch_id for one in batches]
        ledger.record_computed(
            Measured(
                batch_id=batch_id, row_count=rows, byte_count=1000, compute_seconds=0.1, peak_memory_bytes=1,
                source_watermark=None,
            )
            for batch_id in ids
        )  # fmt: skip
        ledger.record_audited(ids, passed=True)
        return ledger.publish(ids)
