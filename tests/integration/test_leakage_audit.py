"""The leakage audit with real dbt on a real lake: models that look ahead, each in its own way, and honest ones."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import operator
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime, timedelta

import duckdb
import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_platform import TINY_PROJECT, TinyPlatform, instant, platform_for_many

from feature_platform.audit import Arrival, LeakageReport, Verdict, audit_view
from feature_platform.audit.compiled import CompiledView, compile_view
from feature_platform.audit.leakage import Audit
from feature_platform.audit.references import unstable_functions
from feature_platform.audit.sampling import Run, runs_at
from feature_platform.cli.main import main
from feature_platform.errors import RequestError
from feature_platform.lake import connect
from feature_platform.materialization.dbt_run import load_manifest
from feature_platform.settings import PREFIX

LEAKING_PROJECT = TINY_PROJECT.parent / "leaking_project"
LATE_FOR = instant("2024-01-21")
"""Of this day, one row of user 7 arrived six hours late."""


@pytest.fixture(scope="module")
def leaking(postgres_server, tmp_path_factory) -> TinyPlatform:
    """The leaking project, deployed, over six weeks of purchases of which one arrived late."""
    platform = platform_for_many(postgres_server, tmp_path_factory.mktemp("leaking"), template=LEAKING_PROJECT)
    with closing(connect(platform.settings)) as lake:
        lake.execute("create table lake.sources.visits (user_id bigint, known_at timestamptz, ingested_at timestamptz)")
        lake.execute("create table lake.sources.users (user_id bigint, segment varchar, ingested_at timestamptz)")
        lake.execute(
            "insert into lake.sources.events select n % 3, n, known, known + interval 5 minutes from ("
            " select n, timestamptz '2024-01-01 07:00:00+00' + n * interval 5 hours as known from range(200) as r (n))"
        )
        lake.execute(
            "insert into lake.sources.visits select n % 3, known, known + interval 5 minutes from ("
            " select n, timestamptz '2024-01-01 08:00:00+00' + n * interval 7 hours as known from range(140) as r (n))"
        )
        lake.execute(
            "insert into lake.sources.events values (7, 1, '2024-01-20 09:00:00+00', '2024-01-20 09:05:00+00'),"
            " (7, 2, '2024-01-20 12:00:00+00', '2024-01-21 06:00:00+00')"
        )
        lake.execute("insert into lake.sources.users values (0, 'a', '2024-02-08'), (1, 'b', '2024-01-01')")
    platform.deploy()
    return platform


def audit(platform: TinyPlatform, view: str, **options) -> LeakageReport:
    return audit_view(platform.settings, platform.registry.view(view), **options)


CLEAN, LEAKS, UNKNOWN = Verdict.CLEAN, Verdict.LEAKS, Verdict.UNKNOWN

VERDICTS = {
    "user_honest": {"events_1d": CLEAN, "amount_3d": CLEAN, "last_amount": CLEAN},
    "user_spending": {"amount_3d": CLEAN, "events_since": LEAKS, "amount_relative": LEAKS, "visits_since": LEAKS},
    "user_days": {"events_of_day": LEAKS},
    "user_rank": {"share_of_run": LEAKS},
    "user_sessions": {"events_3d": CLEAN, "returned_at": LEAKS},
    "user_segment": {"events_3d": UNKNOWN, "segment": UNKNOWN},
    "user_recency": {"hours_since": UNKNOWN},
    "user_files": {"events_and_files": UNKNOWN},
    "user_undeclared": {"events_and_visits": UNKNOWN},
    "user_introspects": {"amount_share": UNKNOWN},
    "user_template": {"days_since": UNKNOWN},
    "user_ties": {"events_3d": CLEAN, "some_amount": UNKNOWN},
}
REASONS = {
    "user_segment": "shop.users has no `event_time`",
    "user_recency": "now() gives another answer each time",
    "user_files": "glob(…) reads what no source declares",
    "user_undeclared": "reads lake.sources.visits, which is no source or model it declares",
    "user_introspects": "queries the lake while dbt compiles it",
    "user_template": "its template uses run_started_at",
    "user_ties": "two full rebuilds from the same source rows differ",
}


@pytest.mark.parametrize("view", VERDICTS)
def test_each_feature_gets_its_verdict(leaking: TinyPlatform, view: str):
    report = audit(leaking, view, partitions=2)
    assert {feature.feature: feature.verdict for feature in report.features} == VERDICTS[view]
    for feature in report.features:
        assert bool(feature.examples) is (feature.verdict is LEAKS)
        assert bool(feature.unknown) is (feature.verdict is UNKNOWN)
        if feature.unknown:
            assert REASONS[view] in feature.unknown[0].reason
            assert feature.unknown[0].remedy


def test_every_model_of_the_leaking_project_is_audited(leaking: TinyPlatform):
    assert {view.name for view in leaking.registry.views.values()} == set(VERDICTS)


def test_a_leak_shows_rows_with_both_values_and_the_source_that_makes_the_difference(leaking: TinyPlatform):
    cut = instant("2024-01-20")
    report = audit(leaking, "user_spending", instants=[cut])
    features = {feature.feature: feature for feature in report.features}
    assert features["events_since"].leaking_sources == ("shop.events",)
    assert features["amount_relative"].leaking_sources == ("shop.events",)
    assert features["visits_since"].leaking_sources == ("shop.visits",)
    with closing(connect(leaking.settings, read_only=True)) as lake:
        for example in features["visits_since"].examples:
            assert (example.event_timestamp, example.instant) == ("2024-01-20T00:00:00Z", cut)
            counted = lake.execute(
                "select count(*), count(*) filter (known_at < $cut) from lake.sources.visits"
                " where user_id = $user and known_at > $cut - interval 1 day",
                {"user": int(example.keys["user_id"]), "cut": cut},
            ).fetchone()
            assert (int(example.with_later), int(example.without_later)) == counted


def test_a_row_that_is_stamped_too_early_only_exists_with_later_rows(leaking: TinyPlatform):
    report = audit(leaking, "user_days", instants=[instant("2024-01-10")])
    assert report.verdict is LEAKS
    assert {example.event_timestamp for example in report.features[0].examples} == {"2024-01-10T00:00:00Z"}
    assert {example.exists for example in report.features[0].examples} == {"only with later rows"}


def test_rows_that_arrived_too_late_are_another_finding_than_a_leak(leaking: TinyPlatform):
    report = audit(leaking, "user_honest", instants=[LATE_FOR])
    assert (report.verdict, report.arrival) == (CLEAN, Arrival.LATE_INFORMED)
    features = {feature.feature: feature for feature in report.features}
    events = features["events_1d"]
    assert (events.rows_late_informed, events.late_sources, events.rows_leaking) == (1, ("shop.events",), 0)
    (example,) = events.late_examples
    assert (example.keys, int(example.with_later) - int(example.without_later)) == ({"user_id": "7"}, 1)
    assert audit(leaking, "user_honest", instants=[instant("2024-01-10")]).arrival is Arrival.IN_TIME


def test_a_table_without_a_clock_may_still_be_seen_to_inform_late(leaking: TinyPlatform):
    segment = audit(leaking, "user_segment", instants=[instant("2024-01-10")]).features[1]
    assert (segment.verdict, segment.arrival) == (UNKNOWN, Arrival.LATE_INFORMED)
    assert segment.late_sources == ("shop.users",)


def test_an_instant_that_cuts_nothing_proves_nothing(leaking: TinyPlatform):
    after = audit(leaking, "user_honest", instants=[instant("2024-06-01")])
    assert "no row of the sample" in after.features[0].unknown[0].reason
    last = audit(leaking, "user_honest", instants=[instant("2024-02-13")])
    assert "nothing was cut" in last.features[0].unknown[0].reason
    with pytest.raises(RequestError, match="before the beginning of user_honest@1"):
        audit(leaking, "user_honest", instants=[instant("2023-12-31")])


def test_the_same_seed_draws_the_same_sample(leaking: TinyPlatform):
    once, again, other = (audit(leaking, "user_days", partitions=1, seed=seed).instants for seed in (1, 1, 2))
    assert once == again
    assert len({once, other}) == 2


@pytest.fixture
def command(leaking: TinyPlatform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call `feature-platform audit leakage`; its exit code and what it printed."""
    for field in dataclasses.fields(leaking.settings):
        monkeypatch.setenv(PREFIX + field.name.upper(), str(getattr(leaking.settings, field.name)))
    monkeypatch.setenv(PREFIX + "VALKEY_URL", "valkey://nowhere")

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["audit", "leakage", *arguments])
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return call


def test_the_exit_code_tells_clean_from_leaking_from_unknown(command):
    code, printed, _ = command("user_honest", "--at", "2024-01-10T00:00Z")
    assert (code, "user_honest@1: clean" in printed) == (0, True)
    code, printed, _ = command("user_segment", "--at", "2024-01-10T00:00Z")
    assert code == 3
    assert "unknown: shop.users has no `event_time`" in printed
    code, printed, _ = command("user_honest", "user_segment", "user_days", "--at", "2024-01-10T00:00Z")
    assert code == 1
    assert "events_of_day leaks: user_id 0 as of 2024-01-10T00:00:00Z, cut at 2024-01-10T00:00:00Z: the row" in printed


def test_json_holds_the_whole_report(command):
    code, printed, _ = command("user_spending", "--partitions", "1", "--json")
    (report,) = json.loads(printed)
    assert (code, report["verdict"], report["arrival"]) == (1, "leaks", "in time")
    assert report["code_version"]
    feature = next(one for one in report["features"] if one["feature"] == "events_since")
    assert feature["examples"][0]["with_later"] > feature["examples"][0]["without_later"]


def test_a_naive_instant_is_refused_with_the_fix(command):
    code, _, said = command("user_honest", "--at", "2024-01-10")
    assert code == 2  # 1 says that something leaks
    assert "'--at': '2024-01-10' has no time zone; write 2024-01-10T00:00:00Z" in said


# --- the verdict against an account in plain Python, on drawn facts and drawn mistakes


@dataclasses.dataclass(frozen=True)
class Mistake:
    """What is wrong with a bound of `feature_rows`, as a change to the SQL that dbt compiled from it."""

    old: str
    new: str
    seen: Callable[[datetime, datetime, timedelta], bool]
    """Whether a row of a stamp sees a fact, by its instant, within the lookback."""
    leaks: bool


def within(at: datetime, stamp: datetime, lookback: timedelta) -> bool:
    return stamp - lookback <= at < stamp


UPPER = "source_rows.known_at < batches.event_timestamp"
LOWER = "source_rows.known_at >= batches.event_timestamp"
MISTAKES = {
    "none": Mistake("", "", within, leaks=False),
    "one second longer ago": Mistake(
        LOWER,
        LOWER + " - interval 1 second",
        lambda at, stamp, lookback: within(at, stamp, lookback + timedelta(seconds=1)),
        leaks=False,
    ),
    "at the stamp, too": Mistake(
        UPPER,
        UPPER.replace("<", "<="),
        lambda at, stamp, lookback: stamp - lookback <= at <= stamp,
        leaks=True,
    ),
    "one microsecond more": Mistake(
        UPPER,
        UPPER + " + interval 1 microsecond",
        lambda at, stamp, lookback: stamp - lookback <= at < stamp + timedelta(microseconds=1),
        leaks=True,
    ),
    "one day more": Mistake(
        UPPER,
        UPPER + " + interval 1 day",
        lambda at, stamp, lookback: stamp - lookback <= at < stamp + timedelta(days=1),
        leaks=True,
    ),
    "no upper bound": Mistake(UPPER, "true", lambda at, stamp, lookback: stamp - lookback <= at, leaks=True),
}

Fact = tuple[int, int, datetime, datetime]
"""User, amount, when it was known, when it arrived."""
STAMP = instant("2024-01-10")
HOURS = st.integers(min_value=-5 * 24, max_value=3 * 24).map(lambda hours: timedelta(hours=hours))
BESIDE = st.sampled_from([timedelta(0), timedelta(microseconds=1), -timedelta(microseconds=1), timedelta(seconds=1)])
DELAYS = st.sampled_from([timedelta(0), timedelta(minutes=30), timedelta(minutes=31), timedelta(days=2)])


@st.composite
def facts(draw: st.DrawFn) -> tuple[Fact, ...]:
    """Facts around a stamp, never two of a user at one instant; one of them lies exactly at the stamp."""
    drawn = draw(
        st.lists(
            st.tuples(st.integers(0, 1), st.integers(1, 9), st.builds(operator.add, HOURS, BESIDE), DELAYS),
            max_size=12,
        )
    )
    placed = {(user, STAMP + at): (amount, delay) for user, amount, at, delay in drawn}
    placed[0, STAMP] = (5, timedelta(0))
    return tuple((user, amount, at, at + delay) for (user, at), (amount, delay) in placed.items())


def account(known: Iterable[Fact], run: Run, mistake: Mistake, lookback: timedelta) -> dict[tuple, tuple]:
    """The rows of `user_honest` up to the instant under audit, with the mistake."""
    first, last = run.partitions[0].end, run.partitions[-1].end
    rows = {}
    for stamp, user in itertools.product([partition.end for partition in run.partitions], (0, 1)):
        seen = [
            (at, amount)
            for who, amount, at, _ in known
            if who == user and mistake.seen(at, stamp, lookback) and first - lookback <= at < last
        ]
        if seen and stamp <= run.through:
            recent = sum(at >= stamp - timedelta(days=1) for at, _ in seen)
            rows[user, stamp] = (recent, float(sum(amount for _, amount in seen)), float(max(seen)[1]))
    return rows


def differing(one: dict[tuple, tuple], other: dict[tuple, tuple]) -> list[int]:
    """Rows per feature in which two accounts differ."""
    pairs = [
        (one.get(key, (None,) * 3), other.get(key, (None,) * 3), key in one and key in other) for key in one | other
    ]
    return [sum(not both or mine[n] != theirs[n] for mine, theirs, both in pairs) for n in range(3)]


@pytest.fixture(scope="module")
def honest(leaking: TinyPlatform):
    """`user_honest` as dbt compiles it for the run that audits an instant."""
    view = leaking.registry.view("user_honest")
    manifest = load_manifest(leaking.settings)

    @functools.cache
    def compiled(at: datetime) -> tuple[Run, CompiledView]:
        (run,) = runs_at(view, [at])
        directory = leaking.settings.home / "compiled" / uuid.uuid4().hex
        return run, compile_view(leaking.settings, manifest, view, run.partitions, directory=directory)

    return compiled


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_verdict_is_what_an_account_in_plain_python_says(honest, mistake: str):
    """A model of the window macros alone is always clean; the same with a bound that is off by anything leaks."""
    wrong = MISTAKES[mistake]

    @given(facts(), st.integers(1, 96), st.sampled_from([timedelta(0), timedelta(hours=7)]))
    @hypothesis_settings(max_examples=12, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    def check(known: tuple[Fact, ...], lookback_hours: int, after: timedelta):
        run, compiled = honest(STAMP + after)
        lookback = timedelta(hours=max(lookback_hours, 24))
        assert wrong.old in compiled.sql
        assert "interval '259200 seconds'" in compiled.sql
        sql = compiled.sql.replace(wrong.old, wrong.new) if wrong.old else compiled.sql
        sql = sql.replace("interval '259200 seconds'", f"interval '{int(lookback.total_seconds())} seconds'")
        report = audit_facts(known, run, dataclasses.replace(compiled, sql=sql))

        cut = [fact for fact in known if fact[2] < run.through]
        arrived = [fact for fact in cut if fact[3] <= run.through + compiled.view.availability_delay]
        full, base, late = (account(some, run, wrong, lookback) for some in (known, cut, arrived))
        assert [feature.rows_leaking for feature in report.features] == differing(full, base)
        assert [feature.rows_late_informed for feature in report.features] == differing(base, late)
        if not wrong.leaks:
            assert report.verdict is (CLEAN if full and len(cut) < len(known) else UNKNOWN)
        elif not after:
            assert report.verdict is LEAKS

    check()


def audit_facts(known: Iterable[Fact], run: Run, compiled: CompiledView) -> LeakageReport:
    """Audit compiled SQL over facts that lie in memory."""
    with closing(duckdb.connect()) as connection:
        connection.execute(
            "set threads = 1; set TimeZone = 'UTC'; attach ':memory:' as stored; attach ':memory:' as lake"
        )
        connection.execute("create schema stored.sources; use lake")
        connection.execute(
            "create table stored.sources.events"
            " (user_id bigint, amount double, known_at timestamptz, ingested_at timestamptz)"
        )
        connection.executemany("insert into stored.sources.events values (?, ?, ?, ?)", [list(fact) for fact in known])
        audit = Audit(
            connection=connection,
            view=compiled.view,
            seed=0,
            on_progress=lambda _: None,
            unstable=unstable_functions(connection),
        )
        audit.add(run, compiled)
        return audit.report(snapshot=0, seconds=0.0)
