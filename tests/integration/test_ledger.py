"""The ledger on a real Postgres: what it records, what it refuses, what readers get."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest

from feature_platform.domain.batch import CheckOutcome, Measured
from feature_platform.domain.windows import Grain, partitions_between
from feature_platform.errors import (
    ConfigurationError,
    LedgerConflictError,
    LedgerUnavailableError,
    LockBusyError,
    NotDeployedError,
)
from feature_platform.ledger import Ledger, deployment_lock, migrate
from feature_platform.ledger.migrating import load_migrations

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class View:
    """What the ledger needs of a feature view."""

    key: str = "clicks@1"
    code_version: str = "c0de"


VIEW = View()


def days(count: int):
    return tuple(partitions_between(BEGIN, BEGIN + timedelta(days=count), Grain.DAY))


@pytest.fixture
def ledger(ledger_url):
    with Ledger.connect(ledger_url) as ledger:
        yield ledger


def measured(batch, rows: int = 3) -> Measured:
    return Measured(
        batch_id=batch.batch_id,
        row_count=rows,
        byte_count=100,
        compute_seconds=0.5,
        peak_memory_bytes=1000,
        source_watermark=BEGIN,
    )


def publish(ledger: Ledger, partitions, view=VIEW, run_id: str = "run"):
    batches = ledger.open_batches(view, partitions, run_id=run_id)
    ledger.record_computed(measured(batch) for batch in batches)
    ledger.record_audited([batch.batch_id for batch in batches], passed=True)
    return ledger.publish([batch.batch_id for batch in batches])


def outcome(batch, *, passed: bool = True) -> CheckOutcome:
    return CheckOutcome(batch_id=batch.batch_id, check="sane", kind="data_test", passed=passed, blocking=True)


class TestPublishing:
    def test_only_published_batches_are_active(self, ledger):
        (batch,) = ledger.open_batches(VIEW, days(1), run_id="run")
        steps = (
            lambda: ledger.record_computed([measured(batch)]),
            lambda: ledger.record_checks([outcome(batch)]),
            lambda: ledger.record_audited([batch.batch_id], passed=True),
        )
        for step in steps:
            assert ledger.active_batches(VIEW.key) == ()
            step()
        (published,) = ledger.publish([batch.batch_id])
        assert ledger.active_batches(VIEW.key) == (published,)
        assert (published.position, published.row_count, published.source_watermark) == (1, 3, BEGIN)
        assert published.opened_at <= published.computed_at <= published.published_at
        assert published.partition == batch.partition
        assert ledger.unfinished() == ()

    def test_the_batch_opened_last_is_active_whatever_was_published_last(self, ledger):
        (older,) = ledger.open_batches(VIEW, days(1), run_id="slow")
        (newer,) = publish(ledger, days(1), run_id="fast")
        ledger.record_computed([measured(older)])
        ledger.record_audited([older.batch_id], passed=True)
        ledger.publish([older.batch_id])
        assert [batch.batch_id for batch in ledger.active_batches(VIEW.key)] == [newer.batch_id]
        assert ledger.head(VIEW.key) == 2

    def test_history_never_changes(self, ledger):
        publish(ledger, days(2))
        then = ledger.sequence()
        seen = ledger.active_batches(VIEW.key)
        publish(ledger, days(3))
        assert ledger.active_batches(VIEW.key, at_sequence=then) == seen
        assert ledger.active_batches(VIEW.key, at_position=2) == seen
        assert len(ledger.active_batches(VIEW.key)) == 3
        assert ledger.superseded_between(VIEW.key, 2, 5) == seen
        assert [batch.position for batch in ledger.published_between(VIEW.key, 2, 4)] == [3, 4]

    def test_positions_are_counted_per_view(self, ledger):
        other = View(key="other@1")
        publish(ledger, days(2))
        assert [batch.position for batch in publish(ledger, days(1), other)] == [1]
        assert ledger.head("unknown@1") == 0

    def test_publishing_again_returns_the_same(self, ledger):
        published = publish(ledger, days(2))
        assert ledger.publish([batch.batch_id for batch in published]) == published
        assert ledger.head(VIEW.key) == 2

    @pytest.mark.parametrize("state", ["opened", "computed", "rejected", "failed", "unknown", "partly published"])
    def test_nothing_but_an_audited_batch_is_published(self, ledger, state):
        good, bad = ledger.open_batches(VIEW, days(2), run_id="run")
        ledger.record_computed([measured(good)])
        ledger.record_audited([good.batch_id], passed=True)
        bad_id = bad.batch_id
        if state in ("computed", "rejected"):
            ledger.record_computed([measured(bad)])
        if state == "rejected":
            ledger.record_audited([bad.batch_id], passed=False)
        if state == "failed":
            ledger.record_failed([bad.batch_id], "boom")
        if state == "unknown":
            bad_id = "00000000-0000-0000-0000-000000000000"
        if state == "partly published":
            ledger.publish([good.batch_id])
        before = ledger.active_batches(VIEW.key)
        with pytest.raises(LedgerConflictError):
            ledger.publish([good.batch_id, bad_id])
        assert ledger.active_batches(VIEW.key) == before

    def test_the_database_itself_refuses_an_unaudited_publish(self, ledger):
        (batch,) = ledger.open_batches(VIEW, days(1), run_id="run")
        ledger.record_computed([measured(batch)])
        ledger.record_audited([batch.batch_id], passed=False)
        for passed in ("true", "false"):
            with ledger.connection.cursor() as cursor, pytest.raises(psycopg2.IntegrityError):
                cursor.execute(
                    "insert into batch_published (batch_id, audit_passed, view, position) values (%s, %s, %s, 1)",
                    (batch.batch_id, passed, VIEW.key),
                )

    @pytest.mark.parametrize("grain", Grain)
    @pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
    def test_what_no_batch_was_ever_opened_for(self, ledger, grain, zone):
        """Two months with a change of time, and from the 31st to the shorter month."""
        with ledger.connection.cursor() as cursor:
            cursor.execute("select set_config('TimeZone', %s, false)", (zone,))
        every = tuple(partitions_between(BEGIN, BEGIN + timedelta(days=150), grain))
        begun = every[1::2]
        ledger.open_batches(VIEW, begun, run_id="run")
        ledger.open_batches(View(key="other@1"), every, run_id="run")
        assert ledger.never_begun(VIEW.key, every[0], every[-1]) == every[0::2]
        assert ledger.never_begun(VIEW.key, every[1], every[1]) == ()

    def test_what_was_cut_off(self, ledger):
        every = days(8)
        cut, twice, computing, bad, found_bad, published, recomputed, _never = every

        def give_up(partition, *, interrupted=True):
            (batch,) = ledger.open_batches(VIEW, [partition], run_id="run")
            ledger.record_failed([batch.batch_id], "why", interrupted=interrupted)

        publish(ledger, [recomputed])
        give_up(bad, interrupted=False)
        for partition in (cut, twice, twice, computing, bad, found_bad, published, recomputed):
            give_up(partition)
        ledger.open_batches(VIEW, [computing], run_id="run")
        give_up(found_bad, interrupted=False)
        publish(ledger, [published])

        def found(**options):
            asked = {"before": ledger.now(), "attempts": 9, "again": False} | options
            return ledger.cut_off(VIEW.key, every[0], every[-1], **asked)

        assert found() == (cut, twice)
        assert found(again=True) == (cut, twice, recomputed)
        assert found(attempts=2) == (cut,)
        assert found(before=ledger.now() - timedelta(hours=1)) == ()


class TestRefusals:
    def test_failed_is_final(self, ledger):
        (batch,) = ledger.open_batches(VIEW, days(1), run_id="run")
        ledger.record_failed([batch.batch_id], "first reason")
        ledger.record_failed([batch.batch_id], "second reason")
        with pytest.raises(LedgerConflictError):
            ledger.record_computed([measured(batch)])
        (history,) = ledger.batches()
        assert (history.state, history.failure) == ("failed", "first reason")

    def test_published_cannot_fail(self, ledger):
        (batch,) = publish(ledger, days(1))
        with pytest.raises(LedgerConflictError):
            ledger.record_failed([batch.batch_id], "too late")

    def test_repeating_a_record_is_harmless_changing_it_is_refused(self, ledger):
        (batch,) = ledger.open_batches(VIEW, days(1), run_id="run")
        for _ in range(2):
            ledger.record_computed([measured(batch)])
            ledger.record_checks([outcome(batch)])
            ledger.record_audited([batch.batch_id], passed=True)
        with pytest.raises(LedgerConflictError):
            ledger.record_computed([replace(measured(batch), row_count=4)])
        with pytest.raises(LedgerConflictError):
            ledger.record_checks([outcome(batch, passed=False)])
        with pytest.raises(LedgerConflictError):
            ledger.record_audited([batch.batch_id], passed=False)

    @pytest.mark.parametrize("change", ["update {} set {} = {}", "delete from {}", "truncate {} cascade"])
    @pytest.mark.parametrize(
        ("table", "column"), [("batches", "run_id"), ("batch_published", "view"), ("batch_checks", "detail")]
    )
    def test_rows_are_facts(self, ledger, change, table, column):
        publish(ledger, days(1))
        with ledger.connection.cursor() as cursor, pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
            cursor.execute(change.format(table, column, column))

    def test_conflict_leaves_the_connection_usable(self, ledger):
        with pytest.raises(LedgerConflictError):
            ledger.record_computed([measured(publish(ledger, days(1))[0], rows=9)])
        assert ledger.sequence() > 0


class TestOrder:
    def test_many_writers_leave_no_gap_a_reader_could_fall_into(self, ledger_url):
        """What a reader saw as of a number is the same for ever, and positions have no gaps."""
        seen: dict[int, tuple] = {}
        stop = threading.Event()

        def write(number: int) -> None:
            with Ledger.connect(ledger_url) as ledger:
                for _ in range(5):
                    publish(ledger, days(3), run_id=f"writer {number}")

        def read() -> None:
            with Ledger.connect(ledger_url) as ledger:
                while not stop.is_set():
                    number = ledger.sequence()
                    seen[number] = ledger.active_batches(VIEW.key, at_sequence=number)

        with ThreadPoolExecutor(5) as pool:
            reader = pool.submit(read)
            for writer in [pool.submit(write, number) for number in range(4)]:
                writer.result()
            stop.set()
            reader.result()
        with Ledger.connect(ledger_url) as ledger:
            assert ledger.head(VIEW.key) == 60
            assert [b.position for b in ledger.published_between(VIEW.key, 0, 60)] == list(range(1, 61))
            for number, active in seen.items():
                assert ledger.active_batches(VIEW.key, at_sequence=number) == active

    def test_large_ranges(self, ledger):
        hours = tuple(partitions_between(BEGIN, BEGIN + timedelta(hours=6500), Grain.HOUR))
        published = publish(ledger, hours)
        assert [batch.position for batch in published] == list(range(1, 6501))
        assert len(ledger.active_batches(VIEW.key)) == 6500


class TestMigration:
    def test_is_idempotent_and_safe_at_once(self, empty_ledger_url):
        with ThreadPoolExecutor(4) as pool:
            applied = [name for names in pool.map(lambda _: migrate(empty_ledger_url), range(4)) for name in names]
        assert applied == [migration.name for migration in load_migrations()]

    def test_refuses_changed_history(self, empty_ledger_url):
        migrate(empty_ledger_url)
        changed = tuple(replace(migration, sql=migration.sql + "--") for migration in load_migrations())
        with pytest.raises(ConfigurationError, match="changed"):
            migrate(empty_ledger_url, changed)

    def test_refuses_a_database_newer_than_the_code(self, ledger_url):
        with pytest.raises(ConfigurationError, match="newer"):
            migrate(ledger_url, ())

    def test_failing_migration_leaves_nothing(self, empty_ledger_url):
        broken = (*load_migrations(), replace(load_migrations()[0], version=9999, name="9999_x.sql", sql="select 1/0"))
        with pytest.raises(psycopg2.Error):
            migrate(empty_ledger_url, broken)
        assert migrate(empty_ledger_url) == tuple(migration.name for migration in load_migrations())

    def test_unmigrated_database_is_explained(self, empty_ledger_url):
        with Ledger.connect(empty_ledger_url) as ledger, pytest.raises(NotDeployedError, match="ledger"):
            ledger.sequence()


class TestJournal:
    def test_online_at_is_the_first_completed_sync_that_covers(self, ledger):
        first, second = publish(ledger, days(2))
        crashed = ledger.begin_sync(VIEW.key, "eu", 0, 2, server_run_id="s", run_id="r")
        done = ledger.begin_sync(VIEW.key, "eu", 0, 1, server_run_id="s", run_id="r")
        ledger.end_sync(done, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)
        records = {record.sync_id: record for record in ledger.syncs(VIEW.key, "eu")}
        assert records[crashed].ended_at is None
        assert ledger.online_at(VIEW.key, "eu") == {first.batch_id: records[done].ended_at}
        assert ledger.synced_position(VIEW.key, "eu") == 1
        again = ledger.begin_sync(VIEW.key, "eu", 1, 2, server_run_id="s", run_id="r")
        ledger.end_sync(again, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)
        assert set(ledger.online_at(VIEW.key, "eu")) == {first.batch_id, second.batch_id}
        assert ledger.online_at(VIEW.key, "us") == {}
        with pytest.raises(LedgerConflictError):
            ledger.end_sync(again, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)

    def test_source_loads(self, ledger):
        assert ledger.loaded_through("a.b") is None
        for hours in (5, 3):
            ledger.record_source_load(
                "a.b", loaded_through=BEGIN + timedelta(hours=hours), row_count=1, watermark=None, run_id="r"
            )
        assert ledger.loaded_through("a.b") == BEGIN + timedelta(hours=5)

    def test_facts_are_fixed_once(self, ledger):
        assert ledger.fact("shift") is None
        ledger.record_fact("shift", "600")
        ledger.record_fact("shift", "600")
        assert ledger.fact("shift") == "600"
        with pytest.raises(LedgerConflictError):
            ledger.record_fact("shift", "601")

    def test_incidents_open_once_and_resolve_once(self, ledger):
        about = {"kind": "stale", "subject": "clicks@1", "severity": "error", "owner": "a@b", "message": "old"}
        opened = ledger.open_incident(**about)
        assert ledger.open_incident(**about) is None
        assert [incident.incident_id for incident in ledger.incidents(open_only=True)] == [opened]
        assert ledger.resolve_incident(opened)
        assert not ledger.resolve_incident(opened)
        assert ledger.incidents(open_only=True) == ()
        assert ledger.open_incident(**about) is not None

    def test_events_tell_the_whole_story(self, ledger):
        publish(ledger, days(1))
        assert [event.event for event in ledger.events(VIEW.key)] == ["published", "audited", "computed", "opened"]

    def test_unfinished_has_an_age(self, ledger):
        (batch,) = ledger.open_batches(VIEW, days(1), run_id="crashed")
        (left,) = ledger.unfinished(VIEW.key)
        assert (left.batch, left.run_id) == (batch, "crashed")
        assert left.age >= timedelta(0)


class TestLocks:
    def test_shared_holders_do_not_wait_for_each_other(self, ledger_url):
        with Ledger.connect(ledger_url) as one, Ledger.connect(ledger_url) as two:  # noqa: SIM117
            with deployment_lock(one.connection, exclusive=False), deployment_lock(two.connection, exclusive=False):
                pass

    @pytest.mark.parametrize(("held", "wanted"), [(True, True), (True, False), (False, True)])
    def test_exclusive_excludes(self, ledger_url, held, wanted):
        wait = timedelta(milliseconds=20)
        with Ledger.connect(ledger_url) as one, Ledger.connect(ledger_url) as two:
            with (
                deployment_lock(one.connection, exclusive=held),
                pytest.raises(LockBusyError),
                deployment_lock(two.connection, exclusive=wanted, wait=wait),
            ):
                pass
            with deployment_lock(two.connection, exclusive=wanted, wait=wait):
                assert two.sequence() == 0

    def test_dies_with_its_connection(self, ledger_url):
        one = Ledger.connect(ledger_url)
        lock = deployment_lock(one.connection, exclusive=True)
        lock.__enter__()
        one.close()
        with Ledger.connect(ledger_url) as two, deployment_lock(two.connection, exclusive=True):
            pass


def test_unreachable_postgres_is_transient():
    with pytest.raises(LedgerUnavailableError, match="cannot connect"):
        Ledger.connect("postgresql://postgres@localhost:1/ledger")


def test_lost_connection_is_transient(ledger, ledger_url):
    with Ledger.connect(ledger_url) as other, other.connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(%s)", (ledger.connection.get_backend_pid(),))
    with pytest.raises(LedgerUnavailableError):
        ledger.open_batches(VIEW, days(1), run_id="run")


def test_a_client_that_hangs_inside_an_append_does_not_keep_the_others_waiting(ledger, ledger_url):
    with Ledger.connect(ledger_url) as other, other.connection.cursor() as cursor:
        cursor.execute("show idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("1min",)
        ledger.connection.cursor().execute("set idle_in_transaction_session_timeout = '20ms'")
        with pytest.raises(LedgerUnavailableError), ledger._append() as append:
            other.record_fact("a", "1")  # waits for the lock, until the server ends the other's session
            append.take_numbers(1)
        assert other.fact("a") == "1"
