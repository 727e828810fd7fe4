"""Several processes write partitions of the same views at once while readers read."""

from __future__ import annotations

import threading
from contextlib import closing

from run_workers import materialize_each, start
from tiny_platform import TinyPlatform

from feature_platform.lake import connect
from feature_platform.ledger import Ledger

WRITERS = 4
DAYS = [f"2024-01-{day:02}" for day in range(2, 10)]
HOURS = [f"2024-01-03-{hour:02}:00" for hour in range(12)]


def test_writers_and_readers_at_once(tiny: TinyPlatform) -> None:
    tiny.add_events(*((user, 1.0, f"2024-01-{day:02} {hour:02}:30") for user in range(1, 4)
                      for day in range(2, 10) for hour in (0, 5, 9)))  # fmt: skip
    tiny.load_through("2024-01-20")
    stop, wrong, reads = threading.Event(), [], []
    readers = [threading.Thread(target=_read, args=(tiny, stop, wrong, reads)) for _ in range(2)]
    for reader in readers:
        reader.start()
    # every process writes both views; no two write the same partition
    writers = [
        start(
            materialize_each,
            tiny.settings,
            (("user_activity", tuple(DAYS[number::WRITERS])), ("user_pulse", tuple(HOURS[number::WRITERS]))),
            f"writer {number}",
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        writer.join()
    stop.set()
    for reader in readers:
        reader.join()

    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert wrong == []
    assert len(reads) > WRITERS
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        assert len(ledger.active_batches("user_activity@1")) == len(DAYS)
        assert len(ledger.active_batches("user_pulse@1")) == len(HOURS)
        assert {history.state for history in ledger.batches()} == {"published"}
    assert len(tiny.visible("user_activity")) == 3 * len(DAYS)
    assert tiny.count_rows("user_activity") == 3 * len(DAYS)


def _read(tiny: TinyPlatform, stop: threading.Event, wrong: list, reads: list) -> None:
    """As readers must: first the list of batches, then the lake. Each batch has the rows it was recorded with."""
    with (
        Ledger.connect(tiny.settings.ledger_url) as ledger,
        closing(connect(tiny.settings, read_only=True)) as lake,
    ):
        while not stop.is_set():
            for view in ("user_activity", "user_pulse"):
                expected = {batch.batch_id: batch.row_count for batch in ledger.active_batches(f"{view}@1")}
                found = dict(
                    lake.execute(
                        f"select _batch_id, count(*) from lake.batches.{view}_v1"
                        " where _batch_id in (select unnest(?::varchar[])) group by 1",
                        [list(expected)],
                    ).fetchall()
                )
                reads.append(len(expected))
                if found != {batch: rows for batch, rows in expected.items() if rows}:
                    wrong.append((view, expected, found))
