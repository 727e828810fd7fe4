"""The verdict: what was served, told and kept during a drill, against plain SQL over the raw files.

Rule: it imports nothing of the platform. It reads what the reader and the receivers recorded, the log of faults, the
declarations (owners, SLAs) as YAML, and the raw files through `tests/e2e/raw_flights.py`, which shares no code with the
platform either. An answer carries its event time, and is right if it is what the raw files say as of then.

Rows that a fault held back were not there to be used: an answer computed without them is `incomplete`, and wrong if the
source had been overdue for longer than it may be while nothing had been seen.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb

from drill.declared import Declared
from drill.raw import open_raw, raw_flights

PLATFORM, CONSUMER = "platform", "delay_prediction"
"""Receivers of what belongs to no view, and of the service that reads both views."""
FELT_BY_SERVICES = ("leaks", "lost", "need", "parity", "unreachable")
"""Kinds that a consumer is told besides."""
_WITH_VALUES = ("fresh", "stale")
"""Statuses of rows whose values a model is given."""
_HOUR = timedelta(hours=1)
_DUE = timedelta(minutes=30)
_LATEST = timedelta(hours=26)
"""No view looks further back, so no later arrival changes a row."""
_TABLE_OF = {"airport_weather": "weather", "aircraft_state": "flights"}


@dataclass(slots=True, kw_only=True)
class Told:
    """What one receiver got about a fault."""

    at: datetime
    receiver: str
    status: str
    kind: str
    subject: str


@dataclass(slots=True, kw_only=True)
class Case:
    """One fault and what came of it."""

    name: str
    what: str
    tells: tuple[str, ...]
    injected: datetime
    detected: datetime | None = None
    by: str = ""
    also: list[str] = field(default_factory=list)
    healed: datetime | None = None
    commands: list[str] = field(default_factory=list)
    over: datetime | None = None
    left: list[str] = field(default_factory=list)
    is_resolved: bool = False
    not_injected: str = ""
    """Why the fault could not be injected on this machine."""
    real_seconds: int = 0
    told: list[Told] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """Rows by their status, and requests by the error they ended with."""
    wrong: list[str] = field(default_factory=list)
    """Rows served as fresh that were not, and rows with other values than those of their event time."""
    incomplete: int = 0
    """Rows that are right but for those that were held back."""
    misrouted: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What came of a drill."""

    cases: list[Case]
    between: Case
    """What was served and told while nothing was injected."""
    lost: list[str] | None
    """None if the drill ended before what is kept was written down."""
    judged: int
    """Rows compared with the raw files."""

    @property
    def result(self) -> dict[str, int | None]:
        """The counts of the last line."""
        run = [case for case in self.cases if not case.not_injected]
        every = [*run, self.between]
        return {
            "faults": len(run),
            "undetected": sum(case.detected is None for case in run),
            "lost": None if self.lost is None else len(self.lost),
            "served_wrong_as_fresh": sum(len(case.wrong) for case in every),
            "wrongly_routed": sum(len(case.misrouted) for case in every),
            "not_resolved": sum(not case.is_resolved for case in run),
        }

    @property
    def is_clean(self) -> bool:
        """Whether every fault was injected and every count but the first is 0."""
        return not any(case.not_injected for case in self.cases) and not any(
            count != 0 for name, count in self.result.items() if name != "faults"
        )


def judge(records: Path, *, repository: Path) -> Verdict:
    """Judge the records of a drill."""
    log = list(_lines(records / "faults.jsonl"))
    world = next(line for line in log if line["event"] == "world")
    declared = Declared.read(repository / "dbt_project" / "models")
    cases = _cases(log)
    between = Case(name="between", what="nothing is injected", tells=(), injected=_instant(world["at"]))
    for line in _lines(records / "notices.jsonl"):
        _judge_notice(line, _case_at(cases, between, _instant(line["at"])), declared)
    views = json.loads((records / "keys.json").read_text(encoding="utf-8"))
    with closing(open_raw(repository, world, log, tables={_TABLE_OF[view] for view in views})) as raw:
        truth = Truth(raw=raw, module=raw_flights(repository), declared=declared, holds=_holds(log, cases, between))
        judged = 0
        for answer in _lines(records / "answers.jsonl"):
            judged += _judge_answer(answer, _case_at(cases, between, _instant(answer["at"])), truth)
        is_kept = all((records / f"kept_{view}.jsonl").exists() for view in views)
        lost = list(_lost(records, world, truth)) if is_kept else None
    for case in cases:
        told = {one.receiver for one in case.told if one.status == "firing"}
        if case.detected is not None:
            case.misrouted += [f"{owner} was not told" for owner in case.tells if owner not in told]
    return Verdict(cases=cases, between=between, lost=lost, judged=judged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Rows that a fault held back."""

    table: str
    after: datetime
    through: datetime
    seen: datetime | None
    """When the fault was detected, or the first notice of a source or of late rows reached somebody."""


def _holds(log: list[dict[str, Any]], cases: list[Case], between: Case) -> list[Hold]:
    holds = []
    for line in (line for line in log if line["event"] == "held_back"):
        case = _case_at(cases, between, _instant(line["at"]))
        told = [one.at for one in case.told if one.status == "firing" and one.kind in ("source", "late")]
        seen = min([*told, *([case.detected] if case.detected else [])], default=None)
        after, through = _instant(line["after"]), _instant(line["through"])
        holds.append(Hold(table=line["table"], after=after, through=through, seen=seen))
    return holds


# -- the log ---------------------------------------------------------


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _cases(log: list[dict[str, Any]]) -> list[Case]:
    cases: dict[str, Case] = {}
    for line in log:
        at, name = _instant(line["at"]), line.get("fault", "")
        if line["event"] == "injected":
            cases[name] = Case(name=name, what=line["what"], tells=tuple(line["tells"]), injected=at)
        elif line["event"] == "not_injected":
            cases[name].not_injected, cases[name].over = line["why"], at
        elif line["event"] == "detected":
            cases[name].detected, cases[name].by = at, line["by"]
        elif line["event"] == "healed":
            cases[name].healed, cases[name].commands = at, line["commands"]
        elif line["event"] in ("resolved", "not_resolved"):
            case = cases[name]
            case.over, case.left, case.is_resolved = at, line["left"], line["event"] == "resolved"
            case.also, case.real_seconds = line["signals"], line["real_seconds"]
    return list(cases.values())


def _case_at(cases: list[Case], between: Case, at: datetime) -> Case:
    for case in cases:
        if case.injected <= at and (case.over is None or at <= case.over):
            return case
    return between


# -- notices ---------------------------------------------------------


def _judge_notice(line: Mapping[str, Any], case: Case, declared: Declared) -> None:
    notice = line["notice"]
    told = Told(
        at=_instant(line["at"]),
        receiver=line["receiver"],
        status=notice["status"],
        kind=notice["kind"],
        subject=notice["subject"],
    )
    case.told.append(told)
    owner = declared.owners.get(told.subject.partition("@")[0], PLATFORM)
    if told.receiver != owner and not (told.receiver == CONSUMER and told.kind in FELT_BY_SERVICES):
        case.misrouted.append(f"{told.kind} of {told.subject} went to {told.receiver}, its owner is {owner}")


# -- answers ---------------------------------------------------------


def _judge_answer(answer: Mapping[str, Any], case: Case, truth: Truth) -> int:
    """Count an answer; how many of its rows were compared."""
    if "error" in answer:
        case.answers[answer["error"]] += 1
        return 0
    at, view, compared = _instant(answer["at"]), answer["view"], 0
    for row in answer["rows"]:
        case.answers[row["status"]] += 1
        if row["status"] not in _WITH_VALUES:
            continue
        compared += 1
        event, is_fresh = _instant(row["event"]), row["status"] == "fresh"
        said = f"{view} {'/'.join(row['key'])} {row['status']} at {at:%H:%M:%S}, event {event:%d %H:%M}"
        if is_fresh and at - event > truth.declared.freshness[view]:
            case.wrong.append(f"{said}: older than {truth.declared.freshness[view]}")
        elif differs := truth.differences(view, tuple(row["key"]), event, row["values"]):
            overdue = truth.overdue_without(view, tuple(row["key"]), event, row["values"], at=at)
            if overdue is None:
                case.wrong.append(f"{said}: {differs}")
            elif is_fresh and truth.is_unseen(view, overdue, at=at):
                case.wrong.append(
                    f"{said}: computed without rows that are {at - overdue} overdue, and nothing was seen"
                )
            else:
                case.incomplete += 1
    return compared


@dataclass(slots=True, kw_only=True)
class Truth:
    """What the raw files say."""

    raw: duckdb.DuckDBPyConnection
    module: ModuleType
    declared: Declared
    holds: list[Hold]
    known: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def expected(self, view: str, key: tuple[str, ...], event: datetime, *, seen: datetime | None = None) -> Any:
        """The features as of an event time, of all rows or of those that had arrived by an instant."""
        asked = (view, key, event, seen)
        if asked not in self.known:
            self.raw.execute("set variable seen = $1::timestamptz", [seen or datetime(2200, 1, 1, tzinfo=UTC)])
            self.known[asked] = getattr(self.module, view)(self.raw, *key, event)
        return self.known[asked]

    def differences(
        self,
        view: str,
        key: tuple[str, ...],
        event: datetime,
        values: Mapping[str, Any],
        *,
        seen: datetime | None = None,
    ) -> dict[str, tuple[Any, Any]]:
        """Feature → (raw files, served), of those that differ."""
        expected = self.expected(view, key, event, seen=seen)
        if expected is None:
            return {"row": (None, "served")}
        return {name: (value, values[name]) for name, value in expected.items() if not _equal(value, values[name])}

    def overdue_without(
        self, view: str, key: tuple[str, ...], event: datetime, values: Mapping[str, Any], *, at: datetime
    ) -> datetime | None:
        """If the values are those of the rows that had arrived by then: when the oldest of the others was due."""
        seen = event + _DUE
        while seen <= min(at, event + _LATEST):
            if not self.differences(view, key, event, values, seen=seen):
                return self._overdue(view, event, seen=seen, at=at)
            seen += _HOUR / 2
        return None

    def is_unseen(self, view: str, due: datetime, *, at: datetime) -> bool:
        """Whether a row was overdue for longer than it may be, and nobody had been told of what held it back."""
        table = _TABLE_OF[view]
        if at - due <= self.declared.arrival[table]:
            return False
        holds = [hold for hold in self.holds if hold.table == table and hold.after < due <= hold.through]
        return not any(hold.seen is not None and hold.seen <= at for hold in holds)

    def _overdue(self, view: str, event: datetime, *, seen: datetime, at: datetime) -> datetime:
        """When the oldest row was due that should have been there and was not."""
        (oldest,) = self.raw.execute(
            f"select min(ingested_at) from {_TABLE_OF[view]}_all"
            " where known_at < $1 and ingested_at <= $2 and arrived_at > $2",
            [event, seen],
        ).fetchone() or (None,)
        return oldest if oldest is not None else at


def _equal(expected: Any, found: Any) -> bool:
    if isinstance(expected, datetime) and isinstance(found, str):
        return _instant(found) == expected.astimezone(UTC)
    if isinstance(expected, float) and isinstance(found, int | float):
        return math.isclose(expected, found, rel_tol=1e-9)
    return bool(expected == found)


# -- what is kept ---------------------------------------------------------


def _lost(records: Path, world: Mapping[str, Any], truth: Truth) -> Iterator[str]:
    """Rows that should be published at the end and are not, or say something else."""
    entities = json.loads((records / "keys.json").read_text(encoding="utf-8"))
    for view, keys in entities.items():
        rows = _lines(records / f"kept_{view}.jsonl")
        kept = {(tuple(row["key"]), _instant(row["event"])): row["values"] for row in rows}
        last = max((event for _, event in kept), default=_instant(world["at"]))
        event = _instant(world["begin"]) + _HOUR
        while event <= last:
            for key in (tuple(one.values()) for one in keys):
                values = kept.get((key, event))
                if values is None and truth.expected(view, key, event) is not None:
                    yield f"{view} {'/'.join(key)} of {event:%d %H:%M} is not there"
                elif values is not None and (differs := truth.differences(view, key, event, values)):
                    yield f"{view} {'/'.join(key)} of {event:%d %H:%M} says {differs}"
            event += _HOUR
