"""Kept training sets in the ledger: a name once, what they need, giving them up."""

from __future__ import annotations

import psycopg2
import pytest
from test_ledger import VIEW, View, days, publish

from feature_platform.errors import LockBusyError, NameTakenError, UnknownNameError
from feature_platform.ledger import Ledger, training_set_lock


@pytest.fixture
def ledger(ledger_url):
    with Ledger.connect(ledger_url) as ledger:
        yield ledger


def keep(ledger: Ledger, name: str, version: int = 1, **batches) -> None:
    ledger.record_training_set(
        name, version, at_sequence=ledger.sequence(), manifest={"rows": 1}, created_by="me",
        batches={key.replace("_", "@"): [batch.seq for batch in some] for key, some in batches.items()},
    )  # fmt: skip


def test_a_name_and_version_is_given_once(ledger: Ledger) -> None:
    assert ledger.next_version("flights") == 1
    keep(ledger, "flights")
    keep(ledger, "flights", 2)
    assert ledger.next_version("flights") == 3
    assert ledger.training_set("flights").key == "flights@2"
    assert ledger.training_set("flights", 1).manifest == {"rows": 1}
    with pytest.raises(NameTakenError, match="flights@2 already"):
        keep(ledger, "flights", 2)
    with pytest.raises(UnknownNameError, match=r"flights@9[\s\S]*allowed: flights"):
        ledger.training_set("flights", 9)
    for statement in ("update training_sets set name = 'x'", "delete from training_set_batches"):
        with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
            ledger.connection.cursor().execute(statement)


def test_kept_sets_need_their_batches_until_they_are_given_up(ledger: Ledger) -> None:
    other = View(key="other@1")
    clicks, _, foreign = publish(ledger, days(5)), publish(ledger, days(2)), publish(ledger, days(3), view=other)
    keep(ledger, "first", clicks_1=[*clicks[:2], clicks[4]], other_1=foreign)
    keep(ledger, "second", clicks_1=clicks[1:2])
    ids = [batch.batch_id for batch in clicks]
    assert ledger.batches_sets_need(VIEW.key) == {
        ids[0]: ("first@1",), ids[1]: ("first@1", "second@1"), ids[4]: ("first@1",),
    }  # fmt: skip
    assert set(ledger.batches_sets_need(other.key)) == {batch.batch_id for batch in foreign}

    assert ledger.release_training_set("first", 1, reason="retrained", released_by="me")
    assert not ledger.release_training_set("first", 1, reason="again", released_by="me")
    assert ledger.batches_sets_need(VIEW.key) == {ids[1]: ("second@1",)}
    assert ledger.batches_sets_need(other.key) == {}
    second, first = ledger.training_sets()
    assert (first.released_reason, first.released_by, second.released_at) == ("retrained", "me", None)
    assert ledger.next_version("first") == 2  # never given again


def test_one_process_at_a_time_makes_a_set_of_a_name(ledger: Ledger, ledger_url: str) -> None:
    with Ledger.connect(ledger_url) as other, training_set_lock(ledger.connection, "flights"):
        with (
            pytest.raises(LockBusyError, match="being created by another process"),
            training_set_lock(other.connection, "flights"),
        ):
            pass
        with training_set_lock(other.connection, "others"):
            pass
    with Ledger.connect(ledger_url) as other, training_set_lock(other.connection, "flights"):
        pass
