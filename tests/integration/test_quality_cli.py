"""`feature-platform quality`, on a real ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result
from ledger_batches import measured
from tiny_platform import TinyPlatform

from feature_platform.cli.main import main
from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.profile import QUANTILES, BatchProfile, FeatureProfile
from feature_platform.domain.windows import partition_starting
from feature_platform.ledger import Ledger
from feature_platform.quality import judge_profiles, load_earlier

BLOCKING_TEST = "in_range_user_activity_v1_amount_3d__1000"


@pytest.fixture
def command(tiny: TinyPlatform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name in ("PROJECT", "HOME", "LEDGER_URL", "LAKE_CATALOG", "LAKE_DATA", "STORE"):
        monkeypatch.setenv("FEATURE_PLATFORM_" + name, str(getattr(tiny.settings, name.lower())))
    monkeypatch.setenv("FEATURE_PLATFORM_VALKEY_URL", "valkey://127.0.0.1:1")
    return lambda *words: CliRunner().invoke(main, ["quality", *words])


def write(ledger: Ledger, view, day: int, profile: BatchProfile, *, fails: bool = False) -> None:
    """A batch of a day as a run leaves it: judged by the suite, and by one data test."""
    partition = partition_starting(view.begin + timedelta(days=day), view.grain)
    (batch,) = ledger.open_batches(view, [partition], run_id="run")
    found = replace(profile, batch_id=batch.batch_id, first_event=partition.end, last_event=partition.end)
    ledger.record_computed([measured(batch.batch_id, found.row_count)])
    ledger.record_profiles([found], seconds=0.1)
    checks = judge_profiles(view, [batch], [found], load_earlier(ledger, view, [batch], [found]))
    test = CheckOutcome(
        batch_id=batch.batch_id, check=BLOCKING_TEST, kind="data_test", passed=not fails, blocking=True,
        detail={"message": "Got 3 results", "failing_rows": 3} if fails else {},
    )  # fmt: skip
    ledger.record_checks((*checks, test))
    ledger.record_audited([batch.batch_id], passed=not fails)
    if fails:
        ledger.record_failed([batch.batch_id], "CheckFailedError")
    else:
        ledger.publish([batch.batch_id])


def profile(*, nulls: int = 0, nans: int = 0, shift: float = 0.0) -> BatchProfile:
    amount = FeatureProfile(
        nulls=nulls, nans=nans, distinct=90, minimum=shift, maximum=shift + 10, mean=shift + 5,
        quantiles=tuple(shift + 10 * point for point in QUANTILES),
    )  # fmt: skip
    events = FeatureProfile(nulls=0, distinct=2, mean=1.5, top=(("1", 60), ("2", 40)))
    return BatchProfile(batch_id="", row_count=100, features={"events_1d": events, "amount_3d": amount})


def test_the_history_of_a_view_a_feature_and_a_check(tiny: TinyPlatform, command: Callable[..., Result]) -> None:
    assert "user_activity@1 has no batch yet" in command("user_activity").output
    assert json.loads(command("user_activity", "--json").output)["batches"] == []
    view = tiny.registry.view("user_activity")
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        for day in range(16):
            write(ledger, view, day, profile(shift=day % 3))
        write(ledger, view, 16, profile(nulls=60, nans=1, shift=90))
        write(ledger, view, 17, profile(shift=5000), fails=True)

    of_view = command("user_activity", "--last", "10").output
    assert "10 partitions, 2024-01-09 to 2024-01-18; rows ▄▄▄▄▄▄▄▄▄▄ 100" in of_view
    assert "not published: 1 (2024-01-18 failed)" in of_view
    (events,) = [line.split() for line in of_view.splitlines() if line.startswith(" events_1d")]
    assert events[1:] == ["0", "%", "1,", "60", "times", "-", "▄▄▄▄▄▄▄▄▄▄", "0"]
    (amount,) = [line.split() for line in of_view.splitlines() if line.startswith(" amount_3d")]
    assert (amount[-2:], "▁▁▁▁▁▁▁▁▁█" in amount) == (["3", "1"], True)
    (test,) = [line.split() for line in of_view.splitlines() if line.startswith(f" {BLOCKING_TEST}")]
    assert test[1:4] == ["·········F", "1", "2024-01-18:"]
    assert "········w" in of_view
    assert "2024-01-18: Got 3 results" in of_view

    of_feature = command("user_activity", "--feature", "amount_3d").output
    (told,) = [line for line in of_feature.splitlines() if "2024-01-17" in line and "published" in line]
    assert "61 %, 1 NaN" in told
    assert "feature_drift warned, feature_nulls warned" in told
    assert "mean 95" in told

    of_check = command("user_activity", "--check", "feature_nulls").output
    assert "amount_3d observed 0.61, usual 0, allowed 0; 1 NaN: write NULL where there is no value" in of_check
    assert "silent" in command("user_activity", "--check", "batch_volume", "--last", "18").output

    found = json.loads(command("user_activity", "--feature", "amount_3d", "--check", "feature_drift", "--json").output)
    assert (found["view"], found["quantiles_at"]) == ("user_activity@1", list(QUANTILES))
    first, spoiled, failed = found["batches"][0], found["batches"][-2], found["batches"][-1]
    assert (first["partition"], first["state"], first["rows"]) == ("2024-01-01", "published", 100)
    assert first["checks"][0]["verdict"] == "silent"
    assert first["features"]["amount_3d"]["drift_silent"] == "0 earlier batches, 14 needed"
    amount = spoiled["features"]["amount_3d"]
    assert (amount["null_rate"], amount["nans"], amount["mean"]) == (0.61, 1, 95)
    assert amount["drift"] > amount["drift_allowed"] > 0
    assert (failed["state"], failed["features"]["amount_3d"]["warned_or_failed"]) == (
        "failed", ["feature_drift", BLOCKING_TEST],
    )  # fmt: skip
    assert [*spoiled["features"]] == ["amount_3d"]

    assert "events_1d" in command("user_activity", "--feature", "amount").output
    assert "batch_contract" in command("user_activity", "--check", "nulls").output
    assert "no feature view" in command("user_activty").output
