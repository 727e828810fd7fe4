"""What may be deleted, against an oracle that looks at every instant: nothing goes that an answer within the promise,
a store, a training set or a person may still need, and all the rest goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from feature_platform.domain.retention import (
    NEVER_PUBLISHED_AGE,
    BatchFacts,
    Circumstances,
    Fate,
    Retention,
    judge,
)
from feature_platform.domain.windows import Grain, Partition

DAY = timedelta(days=1)
T0 = datetime(2026, 3, 1, tzinfo=UTC)
NOW = T0 + 24 * DAY
STORES = ("eu", "us")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[BatchFacts], Circumstances]:
    """Batches of two partitions, opened and published in any order, and what syncs made of them."""
    opened = draw(
        st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["published"] * 4 + ["failed", "held"])), max_size=6)
    )
    order = draw(st.permutations([i for i, (_, state) in enumerate(opened) if state == "published"]))
    days = sorted(draw(st.lists(st.integers(1, 23), min_size=len(order), max_size=len(order))))
    published = {index: (place + 1, T0 + day * DAY) for place, (index, day) in enumerate(zip(order, days, strict=True))}
    batches = []
    for index, (partition, state) in enumerate(opened):
        start = T0 - (2 - partition) * DAY
        position, at = published.get(index, (None, None))
        batches.append(
            BatchFacts(
                batch_id=f"b{index}", seq=index + 1,
                partition=Partition(start=start, end=start + DAY, grain=Grain.DAY),
                rows=draw(st.sampled_from([0, 3, 3, 3])), bytes=100, position=position, published_at=at,
                last_at=at or T0 + draw(st.integers(0, 23)) * DAY, is_waiting=state == "held",
            )
        )  # fmt: skip
    stores = {}
    for store in draw(st.sets(st.sampled_from(STORES))):
        ends = draw(st.lists(st.tuples(st.integers(1, 23), st.integers(0, len(order))), max_size=4))
        stores[store] = [
            (T0 + day * DAY, min(k, sum(at <= T0 + day * DAY for _, at in published.values()))) for day, k in ends
        ]
    return batches, Circumstances(
        retention=Retention(superseded=draw(st.one_of(st.none(), st.integers(1, 12).map(lambda n: n * DAY)))),
        ttl=draw(st.one_of(st.none(), st.integers(1, 12).map(lambda n: n * DAY))),
        needs={f"b{i}": ("set@1",) for i in draw(st.sets(st.integers(0, 5), max_size=2))},
        stores=stores,
        now=NOW,
    )  # fmt: skip


def is_active(batch: BatchFacts, batches: list[BatchFacts], position: int) -> bool:
    """By the book: whether `state(position)` has the batch."""
    mine = [b for b in batches if b.partition == batch.partition and b.position is not None and b.position <= position]
    return bool(mine) and max(mine, key=lambda b: b.seq) is batch


def may_go(batch: BatchFacts, batches: list[BatchFacts], given: Circumstances) -> bool:
    """Looks at each day of the past on which a label could lie."""
    head = max((b.position or 0 for b in batches), default=0)
    if batch.position is None:
        return not batch.is_waiting and given.now - batch.last_at >= NEVER_PUBLISHED_AGE
    kept = given.retention.superseded
    if is_active(batch, batches, head) or batch.batch_id in given.needs or kept is None:
        return False
    return not (seen_lately(batch, batches, given, kept) or in_a_store(batch, batches, given, kept))


def seen_lately(batch: BatchFacts, batches: list[BatchFacts], given: Circumstances, kept: timedelta) -> bool:
    if batch.published_at is not None and batch.published_at > given.now - kept:
        return True  # superseded before it was published: nobody ever saw it, and it is kept as long
    instant = given.now - kept
    while instant <= given.now:
        # as of this instant it was visible: somebody may ask the ledger as of then
        then = max((b.position for b in batches if b.published_at is not None and b.published_at <= instant), default=0)
        if is_active(batch, batches, then) and instant > given.now - kept:
            return True
        # a label of this instant could have seen a living row, whatever the store held
        if given.ttl is not None and instant - given.ttl < batch.partition.end and instant > given.now - kept:
            return True
        instant += DAY / 4
    return False


def in_a_store(batch: BatchFacts, batches: list[BatchFacts], given: Circumstances, kept: timedelta) -> bool:
    """Without ttl: whether a store had not left the last state with the batch behind before the retention began."""
    head = max((b.position or 0 for b in batches), default=0)
    states = [k for k in range(head + 1) if is_active(batch, batches, k)]
    if given.ttl is not None or not states:
        return False
    reached = [max((k for at, k in ends if at <= given.now - kept), default=0) for ends in given.stores.values()]
    return any(position <= max(states) for position in reached)


@settings(max_examples=100, deadline=None)
@given(history=histories())
def test_what_goes_is_what_nobody_needs(history) -> None:
    batches, circumstances = history
    judged = {one.batch.batch_id: one for one in judge(batches, circumstances)}
    head = max((b.position or 0 for b in batches), default=0)
    for batch in batches:
        one = judged.get(batch.batch_id)
        if one is None:  # nothing to say: active, or without a row
            assert is_active(batch, batches, head) or batch.rows == 0
            continue
        assert one.fate.goes == may_go(batch, batches, circumstances), (one, batches)
        assert one.fate.goes == (one.fate in (Fate.SUPERSEDED, Fate.NEVER_PUBLISHED))
        assert one.fate.goes or one.detail
