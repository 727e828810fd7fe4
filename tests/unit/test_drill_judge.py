"""The judge of the drill: what is planted into its records is found, and what is right is not complained of."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from drill.judge import Verdict, judge  # noqa: E402
from drill.table import as_markdown, as_text, result_line  # noqa: E402

EVENT = datetime(2013, 10, 2, tzinfo=UTC)
# of the raw file, by hand: EWR as of midnight; the observation of 23:00 is known at midnight itself
EWR = {
    "temperature_f": 75.92,
    "wind_gust_mph": None,
    "observation_age_minutes": 60,
    "precipitation_in_3h": 0.0,
    "precipitation_in_24h": 0.0,
    "wind_speed_mph_max_3h": 13.809359999999998,
    "wind_speed_mph_max_24h": 13.809359999999998,
}
# and if what was known after 20:00 had not arrived
EWR_WITHOUT_THREE_HOURS = EWR | {
    "temperature_f": 82.04,
    "observation_age_minutes": 240,
    "precipitation_in_3h": None,
    "wind_speed_mph_max_3h": None,
    "wind_speed_mph_max_24h": 9.20624,
}


def at(minutes: float) -> str:
    """So many minutes after the hour's event."""
    return (EVENT + timedelta(minutes=minutes)).isoformat()


def answer(minutes: float, values: dict[str, Any], *, status: str = "fresh", event: datetime = EVENT) -> dict[str, Any]:
    row = {"key": ["EWR"], "status": status, "event": event.isoformat(), "values": values}
    return {"at": at(minutes), "view": "airport_weather", "rows": [row]}


def notice(minutes: float, receiver: str, status: str = "firing", kind: str = "stale") -> dict[str, Any]:
    return {
        "at": at(minutes),
        "receiver": receiver,
        "notice": {"status": status, "kind": kind, "subject": "airport_weather@1 in store default"},
    }


def fault(*, tells: tuple[str, ...] = ("airport_operations",), seen: bool = True) -> list[dict[str, Any]]:
    """A fault from minute 35 to minute 50."""
    return [
        {"at": at(35), "event": "injected", "fault": "planted", "what": "something is planted", "tells": tells},
        {"at": at(40), "event": "detected" if seen else "undetected", "fault": "planted", "by": "incident stale"},
        {"at": at(41), "event": "healed", "fault": "planted", "commands": ["feature-platform up"]},
        {"at": at(50), "event": "resolved", "fault": "planted", "left": [], "signals": [], "real_seconds": 9},
    ]


@pytest.fixture
def judged(tmp_path: Path):
    def run(
        answers: list[dict[str, Any]],
        notices: list[dict[str, Any]],
        log: list[dict[str, Any]],
        kept: list[dict[str, Any]] = [],  # noqa: B006
    ) -> Verdict:
        world = {
            "at": at(30),
            "event": "world",
            "shift_days": 0,
            "since": (EVENT - timedelta(days=2)).isoformat(),
            "begin": (EVENT - timedelta(hours=1)).isoformat(),
        }
        for name, lines in (
            ("answers", answers),
            ("notices", notices),
            ("faults", [world, *log]),
            ("kept_airport_weather", kept),
        ):
            if lines or name != "kept_airport_weather":
                (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "keys.json").write_text(json.dumps({"airport_weather": [{"origin": "EWR"}]}))
        return judge(tmp_path, repository=REPOSITORY)

    return run


def test_what_is_right_is_not_complained_of(judged) -> None:
    verdict = judged(
        [answer(36, EWR), answer(45, EWR, status="stale"), {"at": at(46), "view": "airport_weather", "error": "Gone"}],
        [notice(40, "airport_operations"), notice(48, "airport_operations", "resolved")],
        fault(),
        [{"key": ["EWR"], "event": EVENT.isoformat(), "values": EWR}],
    )
    assert verdict.is_clean
    assert verdict.judged == 2
    assert dict(verdict.cases[0].answers) == {"fresh": 1, "stale": 1, "Gone": 1}
    said = as_text(verdict)
    assert "1 fresh, 1 stale, 1 Gone" in said
    assert "airport_operations: stale firing; airport_operations: stale resolved" in said
    assert result_line(verdict) == (
        'RESULT {"faults": 1, "undetected": 0, "lost": 0, "served_wrong_as_fresh": 0, "wrongly_routed": 0,'
        ' "not_resolved": 0}'
    )


def test_planted_faults_of_the_platform_are_found(judged) -> None:
    wrong = EWR | {"temperature_f": 75.93}
    old = answer(45, EWR, event=EVENT - timedelta(hours=2))
    verdict = judged(
        [answer(36, wrong), old, answer(46, wrong, status="stale"), answer(60, wrong | {"temperature_f": None})],
        [notice(40, "flight_operations")],
        fault(seen=False),
        [{"key": ["EWR"], "event": EVENT.isoformat(), "values": wrong}],
    )
    assert verdict.result == {
        "faults": 1,
        "undetected": 1,
        "lost": 1,
        "served_wrong_as_fresh": 4,
        "wrongly_routed": 1,
        "not_resolved": 0,
    }
    assert "'temperature_f': (75.92, 75.93)" in verdict.cases[0].wrong[0]
    assert "older than 2:00:00" in verdict.cases[0].wrong[1]
    page = as_markdown(verdict, "# Drill\n<!-- drill: begin -->old<!-- drill: end -->\nmore\n")
    assert page.startswith("# Drill\n")
    assert page.endswith("\nmore\n")
    assert "begin -->old" not in page
    assert "| planted | **nothing** | - |" in page
    assert "3 wrong" in page


def test_an_owner_who_was_not_told_and_a_stack_that_stays_ill_are_found(judged) -> None:
    log = fault()
    log[-1] |= {"event": "not_resolved", "left": ["stopped daemon"]}
    verdict = judged([], [], log)
    assert verdict.result["wrongly_routed"] == 1
    assert verdict.result["not_resolved"] == 1
    assert verdict.cases[0].misrouted == ["airport_operations was not told"]
    # what is kept was never written down: nobody knows
    assert verdict.result["lost"] is None
    assert "lost: not compared" in as_text(verdict)


def test_rows_that_were_held_back_may_be_missing_only_for_a_while(judged) -> None:
    held = {
        "at": at(35),
        "event": "held_back",
        "table": "weather",
        "after": (EVENT - timedelta(hours=3, minutes=30)).isoformat(),
        "through": at(20),
        "seconds": 0,
        "until": at(600),
    }
    kept = [{"key": ["EWR"], "event": EVENT.isoformat(), "values": EWR}]
    verdict = judged([answer(36, EWR_WITHOUT_THREE_HOURS)], [], [*fault(tells=()), held], kept)
    assert verdict.is_clean
    assert verdict.cases[0].incomplete == 1
    # the oldest was due at 21:20, and may be 4 hours late; then somebody must have seen it
    unseen = [line | {"at": at(90)} if line["event"] != "injected" else line for line in fault(tells=())]
    verdict = judged([answer(81, EWR_WITHOUT_THREE_HOURS)], [], [*unseen, held])
    assert verdict.result["served_wrong_as_fresh"] == 1
    # a notice that reached somebody counts, whenever the drill looked; of another kind it does not
    answers = [answer(81, EWR_WITHOUT_THREE_HOURS)]
    for kind, wrong in (("source", 0), ("stale", 1)):
        verdict = judged(answers, [notice(80, "airport_operations", kind=kind)], [*unseen, held])
        assert verdict.result["served_wrong_as_fresh"] == wrong
