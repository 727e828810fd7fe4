"""The row an explanation chooses is the row the join returned, on generated histories; and every fate is a true one."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import HealthCheck, given, settings
from test_point_in_time_oracle import ACTIVE, HOUR, T0, answer, cases, connection, insert, load, published
from thoroughness import examples

from feature_platform.domain.windows import Grain, Partition
from feature_platform.offline import point_in_time as pit
from feature_platform.offline.sets.candidates import Fate, Sight, find_candidates, judge

__all__ = ["connection"]


def explain(connection, history, label):
    """Explain one label of one view, on the plain tables of the oracle's tests."""
    load(connection, "explained", history)
    connection.execute("create or replace temp table ledger (batch_id varchar, seq int, partition int, published int)")
    insert(connection, "ledger", [[b.batch_id, b.seq, b.partition, b.published] for b in history.batches])
    active = [row[0] for row in connection.execute(ACTIVE).fetchall()]
    sight = Sight(
        label_time=label.time,
        keys={name: getattr(label, name) for name in history.keys},
        batches=tuple(published(history, active)),
        until=label.time - history.delay,
        ttl=history.ttl,
        basis="",
    )
    candidates = find_candidates(connection, "explained", ("x", "y"), sight)
    histories = {
        b.batch_id: SimpleNamespace(
            batch=SimpleNamespace(batch_id=b.batch_id, seq=b.seq, partition=partition(b.partition)),
            code_version="c", source_watermark=None, computed_at=T0, failure=None, state="computed",
            published_at=None if b.published is None else T0,
        )
        for b in history.batches
    }  # fmt: skip
    return judge(
        candidates, sight, histories, online_at={},
        published_in_time={b.batch_id: b.published is not None for b in history.batches},
    )  # fmt: skip


def partition(number: int) -> Partition:
    start = T0 + number * HOUR
    return Partition(start=start, end=start + HOUR, grain=Grain.HOUR)


@settings(max_examples=examples(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_the_explained_winner_is_what_the_join_returned(connection, case) -> None:
    route, carrier, labels = case
    connection.execute("set asof_loop_join_threshold = 64")
    returned = answer(connection, {"route": route, "carrier": carrier}, labels, pit.Plan.HASH)
    for label, row in zip(labels, returned, strict=True):
        for history, values in ((route, row[4:6]), (carrier, row[6:8])):
            rows = explain(connection, history, label)
            chosen = [one for one in rows if one.fate is Fate.CHOSEN]
            assert [tuple(one.values.values()) for one in chosen] in ([values], [] if values == (None, None) else None)
            check_fates(history, label, rows, chosen)


def check_fates(history, label, rows, chosen) -> None:
    opened = {batch.batch_id: batch for batch in history.batches}
    seqs = {}
    for batch in history.batches:
        if batch.published is not None:
            seqs[batch.partition] = max(batch.seq, seqs.get(batch.partition, 0))
    for one in rows:
        batch = opened[one.batch_id]
        is_active = batch.published is not None and seqs[batch.partition] == batch.seq
        is_available = one.event_timestamp + history.delay <= label.time
        is_alive = history.ttl is None or label.time - one.event_timestamp < history.ttl
        assert (one.fate is Fate.NEVER_PUBLISHED) == (batch.published is None)
        assert (one.fate is Fate.SUPERSEDED) == (batch.published is not None and not is_active)
        assert (one.fate is Fate.NOT_YET) == (is_active and not is_available)
        assert (one.fate is Fate.EXPIRED) == (is_active and is_available and not is_alive)
        if one.fate is Fate.OLDER:
            assert one.event_timestamp < chosen[0].event_timestamp
    # whatever would have won had it been visible is shown (up to the limit, which these histories do not reach)
    for batch in history.batches:
        for row in batch.rows:
            asked = tuple(getattr(label, name) for name in history.keys)
            available = row.event_timestamp + history.delay <= label.time
            newer = not chosen or row.event_timestamp > chosen[0].event_timestamp
            alive = history.ttl is None or label.time - row.event_timestamp < history.ttl
            if row.key == asked and None not in asked and available and newer and alive:
                assert any((one.batch_id, one.event_timestamp) == (batch.batch_id, row.event_timestamp) for one in rows)
