"""Profiles and the default suite: what a pass over real rows finds, and what earlier batches make of it."""

from __future__ import annotations

import hashlib
import random
import statistics
import uuid
from dataclasses import replace
from datetime import timedelta

import duckdb
import pytest
from ledger_batches import measured
from views import DAY, view_with

from feature_platform.domain.batch import Batch
from feature_platform.domain.feature_view import Column
from feature_platform.domain.profile import QUANTILES, BatchProfile, FeatureProfile
from feature_platform.domain.quality_rules import FeatureRules, QualityRules, ReferenceKind, Rule, reference
from feature_platform.domain.types import parse_column_type
from feature_platform.domain.windows import Grain, partition_starting
from feature_platform.ledger import Ledger
from feature_platform.quality import judge_profiles, load_earlier, profile_batches, suite_of

TYPES = {
    "n": "bigint", "x": "double", "price": "decimal(9,2)", "flag": "boolean", "word": "varchar", "day": "date",
    "at": "timestamptz", "vector": "float[]", "raw": "blob",
}  # fmt: skip
RECENT = Rule(reference=reference(ReferenceKind.RECENT, Grain.DAY), tolerance=0.25)
VIEW = replace(
    view_with(),
    features=tuple(Column(name=name, type=parse_column_type(kind)) for name, kind in TYPES.items()),
    quality=QualityRules(
        volume=Rule(reference=reference(ReferenceKind.SAME_WEEKDAY, Grain.DAY), tolerance=0.5),
        features={name: FeatureRules(nulls=RECENT, drift=RECENT if name in "nxword" else None) for name in TYPES}
        | {"word": FeatureRules(nulls=RECENT, drift=RECENT, top_values=True)},
    ),
)


def batch_of(offset: int) -> Batch:
    partition = partition_starting(DAY + timedelta(days=offset), Grain.DAY)
    return Batch(batch_id=str(uuid.uuid4()), seq=offset + 1, view=VIEW.key, partition=partition)


@pytest.fixture
def lake():
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'; attach ':memory:' as lake; create schema lake.batches")
    columns = ", ".join(f'"{name}" {kind}' for name, kind in TYPES.items())
    connection.execute(
        f"create table lake.batches.carrier_delays_v1 (carrier varchar, event_timestamp timestamptz, {columns},"
        " _batch_id varchar, _partition_start timestamptz)"
    )
    yield connection
    connection.close()


def write(lake, batch: Batch, values: str, rows: int) -> None:
    """Rows i of a batch, its features as SQL over i."""
    lake.execute(
        f"insert into lake.batches.carrier_delays_v1 select 'c' || i, '{batch.partition.end.isoformat()}', {values},"
        f" '{batch.batch_id}', '{batch.partition.start.isoformat()}' from range({rows}) as r (i)"
    )


USUAL = (
    "i, i / 10.0, (i / 4)::decimal(9, 2), i % 4 = 0, 'w' || (i % 3), date '2026-03-01' + i::int,"
    " timestamptz '2026-03-01 00:00:00+00' + to_hours(i), [i, 1.5], encode('b' || i)"
)


def md5_bucket(word: str) -> int:
    """The last eight bytes of the digest, little-endian."""
    return int.from_bytes(hashlib.md5(word.encode()).digest()[8:], "little") % 16  # noqa: S324


def test_a_profile_says_what_plain_sql_says_of_each_batch(lake):
    batches = [batch_of(0), batch_of(1), batch_of(2)]
    write(lake, batches[0], USUAL, 101)
    write(lake, batches[1], "null, case when i = 0 then 'nan'::double when i = 1 then 'inf'::double when i < 5"
          " then null else i end, null, null, null, null, null, null, null", 10)  # fmt: skip
    first, second, third = profile_batches(VIEW, lake, batches, rows={batches[0].batch_id: 101})
    n, x = first.features["n"], first.features["x"]
    assert (first.row_count, first.key_nulls, first.last_event) == (101, {"carrier": 0}, batches[0].partition.end)
    assert (n.nulls, n.nans, n.minimum, n.maximum, n.mean) == (0, 0, 0, 100, 50)
    assert n.quantiles == pytest.approx([100 * point for point in QUANTILES], abs=2)
    assert x.quantiles == pytest.approx([10 * point for point in QUANTILES], abs=0.2)
    assert n.distinct == pytest.approx(101, rel=0.1)
    assert first.features["price"].maximum == 25
    assert first.features["flag"].mean == pytest.approx(26 / 101)
    word = first.features["word"]
    assert word.buckets == tuple(
        34 * (bucket == md5_bucket("w0")) + 34 * (bucket == md5_bucket("w1")) + 33 * (bucket == md5_bucket("w2"))
        for bucket in range(16)
    )
    assert word.top == (("w0", 34), ("w1", 34), ("w2", 33))
    assert first.features["day"].minimum == "2026-03-01"
    assert first.features["at"].maximum == "2026-03-05T04:00:00+00:00"
    assert (first.features["vector"].minimum, first.features["raw"].distinct > 90) == (2, True)
    spoiled = second.features["x"]
    # NaN and infinity are in no statistic: they would be the greatest value of all
    assert (spoiled.nulls, spoiled.nans, spoiled.minimum, spoiled.maximum) == (3, 1, 5, 9)
    assert second.missing_share("x") == 0.4
    assert second.features["word"] == FeatureProfile(nulls=10, distinct=0)
    assert third == BatchProfile(batch_id=batches[2].batch_id, row_count=0)


def test_values_are_kept_only_where_that_is_declared(lake):
    batch = batch_of(0)
    write(lake, batch, USUAL, 20)
    (profile,) = profile_batches(VIEW, lake, [batch], rows={})
    assert {name for name, one in profile.features.items() if one.top} == {"word"}
    rules = dict(VIEW.quality.features) | {"word": FeatureRules(nulls=RECENT, drift=RECENT)}
    silent = replace(VIEW, quality=replace(VIEW.quality, features=rules))
    (profile,) = profile_batches(silent, lake, [batch], rows={})
    assert "w0" not in str({name: one.to_json() for name, one in profile.features.items()})


@pytest.fixture
def ledger(ledger_url):
    with Ledger.connect(ledger_url) as ledger:
        yield ledger


def publish(ledger: Ledger, profiles: dict[int, BatchProfile], view=VIEW) -> None:
    """Batches with these profiles, by their day, as a run publishes them."""
    partitions = [partition_starting(DAY + timedelta(days=day), Grain.DAY) for day in profiles]
    batches = ledger.open_batches(view, partitions, run_id="run")
    known = [replace(one, batch_id=batch.batch_id) for one, batch in zip(profiles.values(), batches, strict=True)]
    ledger.record_computed(measured(one.batch_id, one.row_count) for one in known)
    ledger.record_profiles(known, seconds=0.1)
    ledger.record_audited([one.batch_id for one in known], passed=True)
    ledger.publish([one.batch_id for one in known])


def profile(rows: int = 100, nulls: int = 0, shift: float = 0.0, **changes) -> BatchProfile:
    one = FeatureProfile(nulls=nulls, quantiles=tuple(shift + 10 * point for point in QUANTILES), **changes)
    return BatchProfile(
        batch_id=str(uuid.uuid4()),
        row_count=rows,
        features=dict.fromkeys(TYPES, one),
        key_nulls={"carrier": 0},
        first_event=DAY + timedelta(days=1),
        last_event=DAY + timedelta(days=1),
    )


def verdicts(ledger: Ledger, day: int, found: BatchProfile, view=VIEW):
    batch = batch_of(day)
    end = batch.partition.end
    found = replace(found, batch_id=batch.batch_id, first_event=end, last_event=end)
    outcomes = judge_profiles(view, [batch], [found], load_earlier(ledger, view, [batch], [found]))
    assert [one.check for one in outcomes] == list(suite_of(view))
    return {one.check: one for one in outcomes}


def test_a_batch_beside_a_month_of_others(ledger):
    publish(ledger, {day: profile(rows=100 + day % 3, nulls=day % 2) for day in range(30)})
    assert all(one.passed for one in verdicts(ledger, 30, profile()).values())
    fewer = verdicts(ledger, 30, profile(rows=20))["batch_volume"]
    assert (fewer.passed, fewer.blocking, fewer.detail["batches"], fewer.detail["usual"]) == (False, False, 4, 101.5)
    assert not verdicts(ledger, 30, profile(rows=0))["batch_volume"].passed
    missing = verdicts(ledger, 30, profile(nulls=60))["feature_nulls"]
    assert (missing.passed, missing.detail["failed"]["n"]["observed"]) == (False, 0.6)
    moved = verdicts(ledger, 30, profile(shift=9))["feature_drift"]
    assert (moved.passed, {*moved.detail["failed"]}) == (False, {"n", "x", "word"})
    assert moved.detail["observed_value"] == pytest.approx(1, abs=0.01)
    nan = verdicts(ledger, 30, profile(nans=1))["feature_nulls"]
    assert (nan.passed, nan.detail["failed"]["x"]["reason"]) == (False, "1 NaN: write NULL where there is no value")


def test_silence_is_said_and_nan_is_told_even_then(ledger):
    found = verdicts(ledger, 0, profile())
    assert all(one.passed for one in found.values())
    assert found["batch_volume"].detail["silent"] == "0 earlier batches, 4 needed"
    assert found["feature_drift"].detail["silent"] == {"0 earlier batches, 14 needed": ["n", "x", "word"]}
    assert not verdicts(ledger, 0, profile(nans=1))["feature_nulls"].passed


def test_a_rule_without_enough_earlier_batches_says_nothing_of_them(ledger):
    publish(ledger, {day: profile() for day in range(13)})
    odd = verdicts(ledger, 13, profile(shift=90, nulls=60))
    assert all(odd[check].passed for check in ("feature_nulls", "feature_drift"))
    assert "13 earlier batches, 14 needed" in odd["feature_drift"].detail["silent"]
    publish(ledger, {13: profile()})
    odd = verdicts(ledger, 14, profile(shift=90, nulls=60))
    assert not any(odd[check].passed for check in ("feature_nulls", "feature_drift"))


def judged_by(kind: ReferenceKind, training_set: str = ""):
    """The view, with volume and the drift of x beside such a reference alone."""
    rule = Rule(reference=reference(kind, Grain.DAY, training_set=training_set), tolerance=0.25)
    return replace(VIEW, quality=QualityRules(volume=rule, features={"x": FeatureRules(drift=rule)}))


def test_previous_is_the_one_batch_before(ledger):
    view = judged_by(ReferenceKind.PREVIOUS)
    publish(ledger, {day: profile() for day in range(30)})
    publish(ledger, {30: profile(rows=1000, shift=50)})
    like_it, like_the_month = profile(rows=1000, shift=50), profile()
    assert all(one.passed for one in verdicts(ledger, 31, like_it, view).values())
    found = verdicts(ledger, 31, like_the_month, view)
    assert {check: one.passed for check, one in found.items()} == {
        "batch_contract": True, "batch_volume": False, "feature_drift": False,
    }  # fmt: skip


def test_same_weekday_is_not_the_days_between(ledger):
    view = judged_by(ReferenceKind.SAME_WEEKDAY)
    sunday = lambda day: DAY.weekday() == (DAY + timedelta(days=day)).weekday()  # noqa: E731
    weekend, week = profile(rows=1000, shift=50), profile()
    publish(ledger, {day: weekend if sunday(day) else week for day in range(35)})
    assert all(one.passed for one in verdicts(ledger, 35, weekend, view).values())
    for day, odd in ((35, week), (36, weekend)):
        found = verdicts(ledger, day, odd, view)
        assert not any(found[check].passed for check in ("batch_volume", "feature_drift"))


def test_rows_that_break_the_contract_never_pass(ledger):
    outside = replace(profile(), first_event=DAY, last_event=DAY)
    batch = batch_of(0)
    (contract, *_) = judge_profiles(VIEW, [batch], [outside], load_earlier(ledger, VIEW, [batch], [outside]))
    assert (contract.check, contract.passed, contract.blocking) == ("batch_contract", False, True)
    assert not verdicts(ledger, 0, replace(profile(), key_nulls={"carrier": 1}))["batch_contract"].passed


def test_an_empty_batch_never_passes_unless_the_view_allows_it(ledger):
    empty = replace(profile(rows=0), features={}, key_nulls={})

    def contract(day: int, view=VIEW, *, has_input: bool = False):
        batch = batch_of(day)
        found = [replace(empty, batch_id=batch.batch_id, first_event=None, last_event=None)]
        earlier = load_earlier(ledger, view, [batch], found)
        said = judge_profiles(view, [batch], found, earlier, with_input={batch.batch_id} if has_input else ())
        return said[0].passed, said[0].blocking, "allow_empty" in said[0].detail.get("message", "")

    assert contract(3) == (True, True, False)  # nothing that rows could be made of
    assert contract(3, has_input=True) == (False, True, True)
    publish(ledger, {4: replace(empty), 5: profile()})
    assert contract(5) == (True, True, False)  # later partitions say nothing of earlier ones
    assert contract(6) == (False, True, True)
    allowed = replace(VIEW, quality=replace(VIEW.quality, allow_empty=True))
    assert contract(6, allowed, has_input=True) == (True, True, False)
    assert ("not empty" in suite_of(VIEW)["batch_contract"][0]) is not (
        "not empty" in suite_of(allowed)["batch_contract"][0]
    )


def test_severity_decides_block_or_warn(ledger):
    publish(ledger, {day: profile() for day in range(30)})
    strict = replace(RECENT, severity="error")
    features = dict(VIEW.quality.features) | {"x": FeatureRules(nulls=strict, drift=None)}
    view = replace(VIEW, quality=replace(VIEW.quality, features=features))
    assert suite_of(view)["feature_nulls"][1]
    assert verdicts(ledger, 30, profile(nulls=60), view)["feature_nulls"].blocking
    only_n = profile()
    only_n = replace(only_n, features=dict(only_n.features) | {"n": profile(nulls=60).features["n"]})
    assert (found := verdicts(ledger, 30, only_n, view)["feature_nulls"]).passed is found.blocking is False


def test_a_pinned_training_set_is_what_its_batches_were_and_a_missing_one_never_passes(ledger):
    publish(ledger, {day: profile() for day in range(3)})
    publish(ledger, {day: profile(shift=50) for day in range(3, 33)})
    pinned = replace(RECENT, reference=reference(ReferenceKind.TRAINING_SET, Grain.DAY, training_set="flights@1"))
    view = replace(VIEW, quality=QualityRules(features={"x": FeatureRules(drift=pinned)}))
    missing = verdicts(ledger, 33, profile(), view)["feature_drift"]
    assert (missing.passed, "flights@1" in missing.detail["failed"]["x"]["error"]) == (False, True)
    volume = verdicts(ledger, 33, profile(), judged_by(ReferenceKind.TRAINING_SET, "flights@1"))["batch_volume"]
    assert (volume.passed, "flights@1" in volume.detail["error"]) == (False, True)
    seqs = [one.seq for one in ledger.active_batches(VIEW.key)][:3]
    ledger.record_training_set(
        "flights", 1, at_sequence=1, manifest={}, batches={VIEW.key: seqs}, created_by="somebody"
    )
    assert verdicts(ledger, 33, profile(), view)["feature_drift"].passed
    assert not verdicts(ledger, 33, profile(shift=50), view)["feature_drift"].passed
    # beside the last month it is the other way round
    assert verdicts(ledger, 33, profile(shift=50))["feature_drift"].passed
    assert not verdicts(ledger, 33, profile())["feature_drift"].passed


def test_the_verdict_does_not_depend_on_how_a_backfill_was_cut(ledger):
    chance = random.Random(7)
    days = {day: profile(rows=chance.randint(10, 200), nulls=chance.randint(0, 10), shift=chance.gauss(0, 2))
            for day in range(40)}  # fmt: skip
    publish(ledger, {day: days[day] for day in range(20) if day != 11})
    run = [batch_of(day) for day in (11, *range(20, 40))]
    profiles = [replace(days[b.seq - 1], batch_id=b.batch_id, first_event=b.partition.end, last_event=b.partition.end)
                for b in run]  # fmt: skip
    together = judge_profiles(VIEW, run, profiles, load_earlier(ledger, VIEW, run, profiles))
    alone = []
    for batch, found in zip(run, profiles, strict=True):
        alone += judge_profiles(VIEW, [batch], [found], load_earlier(ledger, VIEW, [batch], [found]))
        publish(ledger, {batch.seq - 1: found})
    assert list(together) == alone
    assert statistics.mean(one.passed for one in together) < 1


def test_batches_published_before_there_were_profiles_are_counted(ledger):
    bare = {day: replace(profile(rows=100), features={}) for day in range(30)}
    publish(ledger, bare)
    found = verdicts(ledger, 30, profile(rows=10))
    assert not found["batch_volume"].passed
    assert found["feature_drift"].passed
