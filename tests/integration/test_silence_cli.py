"""`feature-platform silence`, on a real ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result
from tiny_platform import TinyPlatform

from feature_platform.cli.main import main
from feature_platform.ledger import Ledger
from feature_platform.observability import WATCH
from feature_platform.settings import PREFIX


@pytest.fixture
def command(tiny: TinyPlatform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for name in ("PROJECT", "HOME", "LEDGER_URL", "LAKE_CATALOG", "LAKE_DATA", "STORE"):
        monkeypatch.setenv(PREFIX + name, str(getattr(tiny.settings, name.lower())))
    monkeypatch.setenv(PREFIX + "VALKEY_URL", "valkey://127.0.0.1:1")
    return lambda *words: CliRunner().invoke(main, ["silence", *words])


def test_it_is_made_listed_shown_by_status_and_ended(tiny: TinyPlatform, command: Callable[..., Result]) -> None:
    assert "nothing is silent" in command("list").output
    made = command("add", "user_activity", "--for", "2h", "--why", "backfill", "--by", "ada")
    assert made.exit_code == 0, made.output
    assert "silent about user_activity@1 until" in made.output
    both = json.loads(
        command("add", "user_pulse", "stale", "--for", "30 minutes", "--why", "moved", "--by", "ada", "--json").output
    )
    assert (both["silence"]["view"], both["silence"]["kind"]) == ("user_pulse@1", "stale")
    listed = command("list").output
    assert "stale of user_pulse@1" in listed
    assert "backfill" in listed
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        ledger.open_batches(
            tiny.registry.view("user_activity"), tiny.partitions("user_activity", "2024-01-02"), run_id="r"
        )
        (batch,) = ledger.unfinished("user_activity@1")
        ledger.record_failed([batch.batch.batch_id], "the test failed it")
    (problem,) = [
        one
        for one in json.loads(CliRunner().invoke(main, ["status", "--json"]).output)["problems"]
        if one["kind"] == "failing"
    ]
    assert problem["silent"].endswith("UTC: backfill")
    assert (problem["runbook"], problem["since"]) == ("docs/runbooks/failed-check.md", None)
    ended = command("end", both["silence"]["silence_id"][:8])
    assert "no longer silent about stale of user_pulse@1" in ended.output
    assert [one["view"] for one in json.loads(command("list", "--json").output)] == ["user_activity@1"]
    assert "(over)" in command("list", "--all").output


def test_status_says_that_nobody_watches(tiny: TinyPlatform, command: Callable[..., Result]) -> None:
    said = lambda: json.loads(CliRunner().invoke(main, ["status", "--json"]).output)["unwatched"]  # noqa: E731
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        assert "has never looked" in said()
        ledger.beat({WATCH: ledger.now() - timedelta(minutes=7)})
        assert "has not looked for 7 min" in said()
        assert "nobody watches" in CliRunner().invoke(main, ["status"]).output
        ledger.beat({WATCH: ledger.now()})
        assert said() == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("user_activty", "--for", "2h", "--why", "x"), "no view and no kind"),
        (("user_activity", "--for", "2 fortnights", "--why", "x"), "write 30m, 2h or 1d"),
        (("stale", "--for", "60d", "--why", "x"), "at most 30 d"),
        (("stale", "lost", "--for", "1d", "--why", "x"), "too many words"),
        (("stale", "--for", "1d", "--why", " "), "a silence says why"),
    ],
)
def test_what_it_refuses(command: Callable[..., Result], words: tuple[str, ...], said: str) -> None:
    result = command("add", *words)
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)
