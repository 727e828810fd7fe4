"""What is known of a store, from sightings: told as small stories of seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from feature_platform.domain.serving_history import (
    INSTANT,
    Asked,
    Known,
    Loss,
    Observation,
    ServedHistory,
    Sighting,
    SyncSpan,
    WindowKind,
    derive_history,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


class Story:
    """Events happen in order, one a second; the number of a record is its second."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.syncs: dict[str, SyncSpan] = {}

    def look(
        self, second: int, nonce: str | None = "n1", position: int = 0, *, run: str = "r1", until: int | None = None,
        asked: int | None = None, sync: str | None = None, at_least: bool = False,
    ) -> Story:  # fmt: skip
        asked = second - 1 if asked is None else asked
        self.observations.append(
            Observation(
                ledger_seq=second,
                asked=Asked(sequence=asked, at=at(asked)),
                observed_at=at(second),
                good_until=at(asked if until is None else until),
                server_run_id=run,
                seen=Sighting(nonce=nonce, position=position, at_least=at_least),
                sync_id=sync,
            )
        )
        return self

    def begin(self, second: int, sync: str, to: int, *, nonce: str = "n1", position: int = 0, run: str = "r1") -> Story:
        self.syncs[sync] = SyncSpan(
            sync_id=sync, began_seq=second, began_at=at(second), to_position=to, ended_seq=None, ended_at=None
        )
        return self.look(second, nonce, position, run=run, sync=sync)

    def end(self, second: int, sync: str, *, nonce: str = "n1", run: str = "r1", asked: int | None = None) -> Story:
        begun = self.syncs[sync]
        self.syncs[sync] = SyncSpan(
            sync_id=sync, began_seq=begun.began_seq, began_at=begun.began_at, to_position=begun.to_position,
            ended_seq=second, ended_at=at(second),
        )  # fmt: skip
        return self.look(second, nonce, begun.to_position, run=run, sync=sync, at_least=True, asked=asked)

    def told(self) -> ServedHistory:
        return derive_history(self.observations, self.syncs.values())


def windows(history: ServedHistory, oldest: float = 0, newest: float = 100) -> list[tuple[float, float, str]]:
    return [
        (
            (window.since - NOON).total_seconds(),
            (window.until - NOON).total_seconds(),
            ",".join(map(str, window.candidates)) or window.kind.value,
        )
        for window in history.windows(at(oldest), at(newest))
    ]


STEP = INSTANT.total_seconds()


def test_a_store_that_nobody_ever_wrote_to_held_nothing() -> None:
    history = Story().look(10, None).look(20, None, until=40).told()
    assert history.known == (Known(since=None, until=at(40)),)
    assert (history.live_since, history.incidents) == (None, ())
    assert windows(history) == [(40 + STEP, 100 + STEP, "unknown")]


def test_a_sync_is_ambiguous_from_its_beginning_to_its_end_and_then_settled() -> None:
    history = Story().look(5, None).begin(10, "a", 3).end(20, "a").look(30, position=3, until=90).told()
    assert history.live_since == at(20)
    assert windows(history, newest=90) == [(10, 20, "3")]
    assert history.settled_from(1) == history.settled_from(3) == at(20)
    assert history.settled_from(4) is None
    assert [history.settled_at(at(s)) for s in (19, 20, 50)] == [0, 3, 3]


def test_a_crashed_sync_stays_possible_until_one_at_least_as_far_has_ended() -> None:
    story = Story().begin(1, "a", 1).end(2, "a").begin(10, "crashed", 4, position=1)
    story.begin(20, "b", 3, position=1).end(30, "b").begin(40, "c", 5, position=3).end(50, "c").look(60, position=5)
    assert windows(story.told(), newest=59) == [
        (1, 2, "1"), (10, 20, "4"), (20, 30, "3,4"), (30, 40, "4"), (40, 50, "4,5"),
    ]  # fmt: skip


def test_an_emptied_store_is_unknown_from_the_last_sighting_until_a_sync_has_ended() -> None:
    story = Story().begin(1, "a", 1).end(5, "a").look(10, position=1, until=20).look(30, None)
    history = story.begin(40, "b", 1, nonce="n2").end(50, "b", nonce="n2").look(70, "n2", 1).told()
    (incident,) = history.incidents
    assert (incident.since, incident.until, incident.loss) == (at(20), at(50), Loss.EMPTIED)
    assert windows(history, newest=69) == [(1, 5, "1"), (20 + STEP, 50, "unknown")]
    (still,) = derive_history(story.observations[:4], [story.syncs["a"]]).incidents
    assert (still.since, still.until) == (at(20), None)


def test_a_restart_that_kept_everything_is_unknown_only_while_it_happens() -> None:
    history = Story().begin(1, "a", 2).end(5, "a").look(10, position=2).look(20, position=2, run="r2", until=80).told()
    assert [(i.since, i.until, i.loss) for i in history.incidents] == [(at(9), at(20), Loss.RESTARTED)]
    assert windows(history, oldest=6, newest=80) == [(9 + STEP, 20, "unknown")]


def test_a_restart_that_lost_the_last_sync_is_unknown_until_the_next_one_ended() -> None:
    story = Story().begin(1, "a", 2).end(5, "a").begin(6, "b", 3, position=2).end(8, "b")
    story.look(20, position=2, run="r2").look(30, position=2, run="r2")
    history = story.begin(40, "c", 3, position=2, run="r2").end(50, "c", run="r2").look(60, position=3, run="r2").told()
    assert [(i.since, i.until, i.loss) for i in history.incidents] == [(at(7), at(50), Loss.RESTARTED)]


def test_a_store_set_back_by_the_same_process_is_a_loss() -> None:
    story = Story().begin(1, "a", 2).end(5, "a").look(10, position=2).look(20, position=1)
    assert [(i.since, i.until, i.loss) for i in story.told().incidents] == [(at(9), None, Loss.BEHIND)]


def test_sightings_of_overlapping_syncs_are_no_loss() -> None:
    """A slow sync to an earlier position ends after a faster one; a look was asked for before that had ended."""
    story = Story().begin(1, "slow", 2).begin(3, "fast", 5).end(5, "fast").end(7, "slow").look(8, position=2, asked=2)
    assert story.look(10, position=5).told().incidents == ()


def test_a_sync_that_ended_in_a_store_that_was_gone_settles_nothing() -> None:
    story = Story().begin(1, "a", 1).end(2, "a").begin(5, "b", 2, position=1)
    # b advanced, the store was emptied, c met the empty store, and only then b's end was recorded
    story.begin(10, "c", 2, nonce="n2").end(12, "b", asked=6).look(13, "n2", 0).look(15, "n2", 0)
    history = story.told()
    assert history.settled_at(at(13)) == 1
    assert [(i.since, i.until) for i in history.incidents] == [(at(6), None)]
    healed = story.end(20, "c", nonce="n2").told()
    assert [(i.since, i.until) for i in healed.incidents] == [(at(6), at(20))]
    assert healed.settled_at(at(20)) == 2


def test_what_was_synced_before_anybody_looked_is_unknown() -> None:
    story = Story()
    story.syncs["old"] = SyncSpan(
        sync_id="old", began_seq=1, began_at=at(1), to_position=4, ended_seq=2, ended_at=at(2)
    )
    history = story.look(10, position=4, until=50).told()
    assert history.live_since == at(2)
    assert windows(history, newest=50) == [(0, 10, "unknown")]


def test_windows_end_with_the_instants_asked_for() -> None:
    history = Story().look(5, None).begin(10, "a", 3).end(20, "a").look(30, position=3).told()
    (window,) = history.windows(at(15), at(16))
    assert (window.since, window.until, window.kind) == (at(15), at(16) + INSTANT, WindowKind.IN_FLIGHT)
    assert history.windows(at(21), at(29)) == ()
