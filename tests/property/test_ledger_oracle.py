"""The ledger against a slow, obvious account of the same events, in any order that runs, crashes and retries make."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_batches import measured
from thoroughness import examples

from feature_platform.domain.windows import Grain, partitions_between
from feature_platform.errors import LedgerConflictError
from feature_platform.ledger import Ledger

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = tuple(partitions_between(BEGIN, BEGIN + timedelta(days=3), Grain.DAY))


@dataclass(frozen=True)
class View:
    key: str
    code_version: str = "c0de"


@dataclass
class Oracle:
    """Every event in a list; every question answered by replaying it."""

    opened: list[tuple[str, int]] = field(default_factory=list)
    """(batch id, day), in the order of opening."""
    computed: set[str] = field(default_factory=set)
    audited: dict[str, bool] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    published: list[str] = field(default_factory=list)

    def may_compute(self, batch: str) -> bool:
        return batch not in self.failed  # failed is final: not even a repetition is recorded any more

    def may_audit(self, batch: str, *, passed: bool) -> bool:
        return batch in self.computed - self.failed and self.audited.get(batch, passed) == passed

    def may_fail(self, batch: str) -> bool:
        return batch not in self.published

    def may_publish(self, batches: set[str]) -> bool:
        if batches <= set(self.published):
            return True
        return all(
            self.audited.get(batch) is True and batch not in self.failed and batch not in self.published
            for batch in batches
        )

    def active(self, position: int) -> dict[int, str]:
        visible = set(self.published[:position])
        return {day: batch for batch, day in self.opened if batch in visible}  # later ones win


COMPLETE = ("compute", "audit", "publish")

steps = st.one_of(
    st.tuples(st.just("open"), st.sets(st.integers(0, 2), min_size=1)),
    st.tuples(st.just("compute"), st.sets(st.integers(0, 9), min_size=1, max_size=3)),
    st.tuples(st.just("audit"), st.sets(st.integers(0, 9), min_size=1, max_size=3)),
    st.tuples(st.just("reject"), st.sets(st.integers(0, 9), min_size=1, max_size=2)),
    st.tuples(st.just("fail"), st.sets(st.integers(0, 9), min_size=1, max_size=2)),
    st.tuples(st.just("publish"), st.sets(st.integers(0, 9), min_size=1, max_size=3)),
    # chance alone seldom takes one batch through all its steps
    st.tuples(st.just("complete"), st.sets(st.integers(0, 9), min_size=1, max_size=3)),
    st.tuples(st.just("complete"), st.sets(st.integers(0, 9), min_size=1, max_size=1)),
)


def attempt(allowed: bool, action) -> bool:
    """Do it if the oracle allows it; else it must be refused."""
    if allowed:
        action()
    else:
        with pytest.raises(LedgerConflictError):
            action()
    return allowed


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(steps, min_size=4, max_size=25))
def test_ledger_agrees_with_the_oracle(ledger_url, script):
    view, oracle = View(key=f"v{uuid.uuid4().hex}@1"), Oracle()
    snapshots = []
    with Ledger.connect(ledger_url) as ledger:
        # several batches of each partition, so that they can be published in any order
        for action, numbers in [("open", {0, 1})] * 3 + script:
            if action == "open":
                days = sorted(numbers)
                batches = ledger.open_batches(view, [DAYS[day] for day in days], run_id="run")
                oracle.opened += [(batch.batch_id, day) for batch, day in zip(batches, days, strict=True)]
            else:
                chosen = [oracle.opened[number][0] for number in sorted(numbers) if number < len(oracle.opened)]
                for step in COMPLETE if action == "complete" else (action,):
                    if chosen:
                        perform(ledger, oracle, step, chosen)
            snapshots.append((ledger.sequence(), len(oracle.published)))
        compare(ledger, oracle, view, snapshots)


def perform(ledger: Ledger, oracle: Oracle, action: str, chosen: list[str]) -> None:
    if action == "compute":
        if attempt(all(map(oracle.may_compute, chosen)), lambda: ledger.record_computed(map(measured, chosen))):
            oracle.computed |= set(chosen)
    elif action in ("audit", "reject"):
        passed = action == "audit"
        allowed = all(oracle.may_audit(batch, passed=passed) for batch in chosen)
        if attempt(allowed, lambda: ledger.record_audited(chosen, passed=passed)):
            oracle.audited |= dict.fromkeys(chosen, passed)
    elif action == "fail":
        if attempt(all(map(oracle.may_fail, chosen)), lambda: ledger.record_failed(chosen, "boom")):
            oracle.failed |= set(chosen)
    elif attempt(oracle.may_publish(set(chosen)), lambda: ledger.publish(chosen)):
        oracle.published += [batch for batch, _ in oracle.opened if batch in set(chosen) - set(oracle.published)]


def compare(ledger: Ledger, oracle: Oracle, view: View, snapshots) -> None:
    assert ledger.head(view.key) == len(oracle.published)
    for position in range(len(oracle.published) + 1):
        active = ledger.active_batches(view.key, at_position=position)
        assert {batch.partition.start.day - 1: batch.batch_id for batch in active} == oracle.active(position)
    for sequence, position in snapshots:
        active = ledger.active_batches(view.key, at_sequence=sequence)
        assert {batch.partition.start.day - 1: batch.batch_id for batch in active} == oracle.active(position)
    between = ledger.published_between(view.key, 0, len(oracle.published))
    assert [batch.batch_id for batch in between] == oracle.published
    left = {batch for batch, _ in oracle.opened} - oracle.failed - set(oracle.published)
    assert {one.batch.batch_id for one in ledger.unfinished(view.key)} == left
