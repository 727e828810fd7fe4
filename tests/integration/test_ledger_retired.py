"""Retired batches in the ledger: what it refuses, and which of two that meet yields."""

from __future__ import annotations

import pytest
from test_ledger import VIEW, days, measured, publish
from test_ledger_training_sets import keep

from feature_platform.domain.retention import Fate
from feature_platform.errors import LedgerConflictError, RowsRetiredError
from feature_platform.ledger import Ledger


@pytest.fixture
def ledger(ledger_url):
    with Ledger.connect(ledger_url) as ledger:
        yield ledger


def retire(ledger: Ledger, *batches, why: Fate = Fate.SUPERSEDED) -> tuple[str, ...]:
    return ledger.retire(VIEW.key, {batch.batch_id: why for batch in batches})


def test_only_what_nobody_sees_is_retired(ledger: Ledger) -> None:
    (old,), (new,) = publish(ledger, days(1)), publish(ledger, days(1))
    (held,) = ledger.open_batches(VIEW, days(1), run_id="run")
    ledger.record_computed([measured(held)])
    ledger.record_audited([held.batch_id], passed=True)
    ledger.hold([held.batch_id])
    for batch, says in ((new, "is active"), (held, "waits for approval")):
        with pytest.raises(LedgerConflictError, match=says):
            retire(ledger, batch)
    then = ledger.sequence()
    assert retire(ledger, old) == (old.batch_id,) == retire(ledger, old)
    assert [history.state for history in ledger.batches(VIEW.key)] == ["held", "published", "retired"]
    assert [batch.batch_id for batch in ledger.active_batches(VIEW.key)] == [new.batch_id]
    # as of any number the ledger says what it always said
    assert [batch.retired_seq for batch in ledger.published_batches(VIEW.key, at_sequence=then)] == [None, None]
    assert [batch.retired_seq for batch in ledger.published_batches(VIEW.key)] == [then + 1, None]
    assert ledger.retired_among([old.batch_id, new.batch_id]) == {old.batch_id}
    assert [fact.batch_id for fact in ledger.batch_facts(VIEW.key)] == [new.batch_id, held.batch_id]


def test_a_retired_batch_comes_to_nothing(ledger: Ledger) -> None:
    batches = ledger.open_batches(VIEW, days(2), run_id="died")
    ledger.record_computed([measured(batches[0])])
    assert len(ledger.unfinished()) == 2
    retire(ledger, *batches, why=Fate.NEVER_PUBLISHED)
    assert ledger.unfinished() == ()
    ledger.record_failed([batches[0].batch_id], "its run gives up")  # harmless, and what a run does that is too late
    for refused in (
        lambda: ledger.record_audited([batches[1].batch_id], passed=True),
        lambda: ledger.record_computed([measured(batches[1])]),
    ):
        with pytest.raises(LedgerConflictError, match="was retired"):
            refused()


def test_a_training_set_and_a_retirement_that_meet(ledger: Ledger) -> None:
    first, second = publish(ledger, days(2))
    publish(ledger, days(2))
    keep(ledger, "earlier", clicks_1=[first])
    assert retire(ledger, first, second) == (second.batch_id,)  # judged before the set was recorded
    with pytest.raises(RowsRetiredError, match=r"training set later@1 cannot be kept[\s\S]*1 of its batches"):
        keep(ledger, "later", clicks_1=[second])
    assert [one.key for one in ledger.training_sets()] == ["earlier@1"]
    ledger.release_training_set("earlier", 1, reason="done", released_by="me")
    assert retire(ledger, first) == (first.batch_id,)


def test_deletions_are_told_apart(ledger: Ledger) -> None:
    old = publish(ledger, days(2))
    publish(ledger, days(2))
    retire(ledger, *old)
    assert [one.batch.batch_id for one in ledger.retired(VIEW.key, undeleted_only=True)] == [b.batch_id for b in old]
    for _ in range(2):
        ledger.record_deleted({old[0].batch_id: 3})
    (left,) = ledger.retired(VIEW.key, undeleted_only=True)
    assert (left.batch.batch_id, left.reason, left.rows, left.deleted_at) == (old[1].batch_id, "superseded", 3, None)
    events = [(event.event, event.subject) for event in ledger.events(VIEW.key, limit=3)]
    assert events[0] == ("rows deleted", old[0].batch_id)
    assert {event for event, _ in events[1:]} == {"retired"}
