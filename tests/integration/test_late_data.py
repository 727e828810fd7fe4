"""Late rows on real services: found once, mapped to the partitions that missed them, and what becomes of them.

Arrivals follow the loader's promise: nothing arrives before `loaded_through` once it was recorded.
"""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from run_workers import scan_and_die, start
from tiny_platform import SOURCE, TinyPlatform, instant

from feature_platform.domain.late_data import LateState, judge_late
from feature_platform.lake import connect
from feature_platform.late_data import preview, scan_all, sources_behind
from feature_platform.ledger import Ledger
from feature_platform.materialization import Step

VIEW = "user_activity@1"
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")


class Late:
    """A platform whose source goes on arriving."""

    def __init__(self, tiny: TinyPlatform, ledger: Ledger) -> None:
        self.tiny, self.ledger = tiny, ledger

    def arrive(self, *events: tuple, at: str, through: str | None = None) -> None:
        """Rows (user, amount, known at) that arrive at an instant, and are recorded as loaded."""
        for event in events:
            self.tiny.add_events(event, late=instant(at) - instant(event[2]))
        self.tiny.load_through(through or at)

    def scan(self, run_id: str = "scan"):
        with closing(connect(self.tiny.settings, read_only=True)) as lake:
            return tuple(scan_all(self.ledger, lake, self.tiny.registry, run_id=run_id))

    def found(self, view: str = VIEW) -> dict[str, int]:
        """Partitions that are late now, and by how many rows."""
        return {late.partition.key: late.row_count for late in self.ledger.late_partitions(view)}

    def states(self, view: str = VIEW) -> dict[str, LateState]:
        policy = self.tiny.registry.views[view].late_data
        return {late.partition.key: judge_late(late, policy) for late in self.ledger.late_partitions(view)}


@pytest.fixture
def late(tiny: TinyPlatform):
    """Three days computed from what had arrived by noon of the 5th."""
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        late = Late(tiny, ledger)
        tiny.add_events((1, 10.0, "2024-01-02 09:00"), (1, 20.0, "2024-01-03 09:00"), (2, 5.0, "2024-01-04 10:00"))
        tiny.load_through("2024-01-05 12:00")
        tiny.materialize("user_activity", *DAYS)
        yield late


def test_a_batch_records_what_it_read_and_how_far_it_reaches(late):
    (one, *_) = late.ledger.computed_partitions(VIEW, SOURCE)
    assert one.partition.key == DAYS[0]
    assert one.seen_through == instant("2024-01-02 09:05")
    assert one.lookback == timedelta(days=3)


def test_rows_on_time_are_never_late(late):
    late.arrive((1, 1.0, "2024-01-05 12:00"), at="2024-01-05 12:05")
    (scan,) = late.scan()
    assert (scan.row_count, scan.overdue_rows, scan.views) == (1, 0, ())
    assert scan.arrived_after == instant("2024-01-05 12:00")  # the computed partitions have read all before
    assert late.found() == {}


def test_a_late_row_concerns_the_partitions_that_may_read_it(late):
    late.arrive((7, 1.0, "2024-01-02 23:00"), (8, 1.0, "2023-12-30 12:00"), at="2024-01-06 00:00")
    assert sources_behind(late.ledger, late.tiny.registry) == {SOURCE: instant("2024-01-06")}
    (scan,) = late.scan()
    assert sources_behind(late.ledger, late.tiny.registry) == {}
    assert (scan.row_count, scan.overdue_rows) == (2, 2)
    (view,) = scan.views  # nothing of the hourly view is computed
    assert (view.view, view.row_count) == (VIEW, 1)  # the older row lies before every lookback
    assert view.lags.longest == timedelta(days=3, hours=1)
    assert late.found() == dict.fromkeys(DAYS, 1)
    (recorded,) = late.ledger.scans(SOURCE)
    assert recorded.lags == scan.lags
    first = late.ledger.late_partitions(VIEW)[0]
    assert first.oldest_event == instant("2024-01-02 23:00")
    assert first.longest_lag == timedelta(days=3, hours=1)
    assert first.compute_seconds > 0


def test_what_was_found_is_not_found_again_and_ends_with_a_newer_batch(late):
    late.arrive((7, 1.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    late.scan()
    assert late.scan() == ()
    assert late.found() == {"2024-01-04": 1}
    late.tiny.materialize("user_activity", "2024-01-04")
    assert late.found() == {}
    assert late.scan() == ()
    late.arrive((7, 1.0, "2024-01-04 23:30"), at="2024-01-07 00:00")
    (scan,) = late.scan()
    assert scan.arrived_after == instant("2024-01-06")
    assert late.found() == {"2024-01-04": 1}


def test_rows_that_arrive_while_a_batch_is_computed_are_late_for_it(late):
    """The race: the batch takes its snapshot, the row arrives and is looked for, the batch is published."""
    looked = []

    def meanwhile(event):
        if event.step is Step.WRITTEN:
            late.arrive((7, 1.0, "2024-01-05 23:00"), at="2024-01-07 00:00")
            looked.extend(late.scan())

    late.tiny.load_through("2024-01-06 12:00")
    late.tiny.materialize("user_activity", "2024-01-05", on_event=meanwhile)
    ((view,),) = (scan.views for scan in looked)
    assert [one.partition.key for one in view.partitions] == ["2024-01-05"]
    assert late.found() == {"2024-01-05": 1}
    assert late.states() == {"2024-01-05": LateState.DUE}
    late.tiny.materialize("user_activity", "2024-01-05")
    assert late.found() == {}


def test_rows_that_arrive_before_the_snapshot_are_not(late):
    def meanwhile(event):
        if event.step is Step.OPENED:
            late.arrive((7, 1.0, "2024-01-05 23:00"), at="2024-01-07 00:00")
            late.scan()

    late.tiny.load_through("2024-01-06 12:00")
    late.tiny.materialize("user_activity", "2024-01-05", on_event=meanwhile)
    assert late.found() == {}


def test_a_failed_attempt_is_not_repeated_for_the_same_rows(late):
    late.arrive((7, 5000.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    late.scan()
    assert late.states() == {"2024-01-04": LateState.DUE}
    with pytest.raises(Exception, match="blocking check"):
        late.tiny.materialize("user_activity", "2024-01-04")
    assert late.states() == {"2024-01-04": LateState.FAILED}
    late.arrive((7, -5000.0, "2024-01-04 23:10"), at="2024-01-07 00:00")
    late.scan()
    assert late.states() == {"2024-01-04": LateState.DUE}


def test_rows_that_go_on_coming_do_not_make_what_is_due_look_new(late):
    late.arrive((7, 1.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    late.scan()
    ((first,),) = (late.ledger.late_partitions(VIEW),)
    late.arrive((7, 1.0, "2024-01-04 23:10"), at="2024-01-07 00:00")
    late.scan()
    ((again,),) = (late.ledger.late_partitions(VIEW),)
    assert (again.row_count, again.found_at) == (2, first.found_at), "nothing has recomputed it since the first"
    late.arrive((7, 5000.0, "2024-01-04 23:20"), at="2024-01-07 12:00")
    late.scan()
    with pytest.raises(Exception, match="blocking check"):
        late.tiny.materialize("user_activity", "2024-01-04")
    late.arrive((7, 1.0, "2024-01-04 23:30"), at="2024-01-08 00:00")
    late.scan()
    ((new,),) = (late.ledger.late_partitions(VIEW),)
    assert new.found_at > again.found_at, "what an attempt was made for is not overdue"


def test_beyond_the_window(late):
    late.arrive((7, 1.0, "2024-01-04 23:00"), at="2024-01-11 12:00")
    late.scan()
    assert late.states() == {"2024-01-04": LateState.DUE}
    late.arrive((7, 1.0, "2024-01-02 23:00"), at="2024-01-11 13:00")
    late.scan()
    assert late.states() == {
        "2024-01-02": LateState.BEYOND,
        "2024-01-03": LateState.BEYOND,
        "2024-01-04": LateState.DUE,
    }


def test_of_two_scans_at_once_one_is_recorded(late):
    late.arrive((7, 1.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    registry, ledger = late.tiny.registry, late.ledger
    record = type(ledger).record_scan
    with Ledger.connect(late.tiny.settings.ledger_url) as other:

        def after_the_other(*arguments, **options):
            if not other.scans():
                with closing(connect(late.tiny.settings, read_only=True)) as lake:
                    (first,) = scan_all(other, lake, registry, run_id="other")
                assert first.views
            return record(ledger, *arguments, **options)

        ledger.record_scan = after_the_other
        assert late.scan() == ()
        del ledger.record_scan
    assert len(ledger.scans()) == 1
    assert late.found() == {"2024-01-04": 1}


@pytest.mark.parametrize("moment", ["read", "recorded"])
def test_a_killed_scan_is_repeated(late, moment):
    late.arrive((7, 1.0, "2024-01-04 23:00"), at="2024-01-06 00:00")
    died = start(scan_and_die, late.tiny.settings, moment)
    died.join()
    assert died.exitcode == -signal.SIGKILL
    assert late.found() == ({"2024-01-04": 1} if moment == "recorded" else {})
    assert len(late.scan()) == (0 if moment == "recorded" else 1)
    assert late.found() == {"2024-01-04": 1}
    assert len(late.ledger.scans()) == 1


def test_a_source_that_cannot_be_looked_at_is_named(late):
    registry = late.tiny.registry
    (view,) = (one for one in registry.views.values() if one.key == VIEW)
    assert preview(late.ledger, registry).not_looked_at == ()
    (source, *_) = view.sources
    blind = replace(source, name="tiny.prices", unique_id="source.tiny.prices", event_time=None)
    known = replace(
        registry,
        views=registry.views | {VIEW: replace(view, sources=(*view.sources, blind))},
        sources=registry.sources | {blind.unique_id: blind},
    )
    assert preview(late.ledger, known).not_looked_at == ("tiny.prices",)
