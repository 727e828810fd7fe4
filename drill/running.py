"""Injecting faults and waiting: until each is seen, until it is over, never without a bound.

Rule: it only writes down what it did and what could be seen; the verdict is `judge`'s. The stack's time passes in steps
of a minute at first and then from mark to mark: minute 21, when what has arrived is loaded, and minute 31, when the
hour's features are due.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from drill.fault import Fault
from drill.lake_disk import CannotInjectError, LakeDisk
from drill.project import VIEWS
from drill.signals import has_scheduled_since, holes, open_incidents, runs_going_on, signals, stopped_processes
from drill.sources import Feed
from drill.stack import CommandError, Stack

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
_LOADED, _DUE = 21, 31
_MINUTES_AT_FIRST = 6
_SETTLE_SECONDS = 4.0
"""Sensors are looked at every five seconds; half of the looks come too early, and are repeated."""
_TICK_SECONDS = 65.0
"""The scheduler sleeps until the next full minute, in real time, whatever the clock does meanwhile."""
_RUNS_SECONDS = 90.0
_SERVED_SECONDS = 180.0
_FAILURES = (CommandError, LookupError, ValueError, OSError, subprocess.SubprocessError, psutil.Error)
"""What a command, a process or a file of a broken stack may answer with: of a fault, never of the drill."""


@dataclass(slots=True, kw_only=True)
class Drill:
    """One drill on one stack: what faults are given to work with."""

    stack: Stack
    feed: Feed
    lake_disk: LakeDisk
    record: Path
    """The log of faults: a line per event."""
    say: Callable[[str], None]
    began: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.stack.clock.now()

    def now(self) -> datetime:
        """What the stack's clocks show."""
        return self.stack.clock.now()

    def log(self, event: str, **facts: Any) -> None:
        """A line of the record."""
        line = {"at": self.now().isoformat(), "event": event, **facts}
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=_plain) + "\n")

    # -- time ---------------------------------------------------------

    def minute(self) -> None:
        """A minute and a second pass, and whoever looks every minute has looked."""
        self.stack.clock.advance(MINUTE + timedelta(seconds=1))
        time.sleep(_SETTLE_SECONDS)

    def to_mark(self) -> None:
        """Time passes until the next mark; what is going on is waited for."""
        now = self.now()
        marks = [now.replace(minute=minute, second=0) + hours * HOUR for hours in (0, 1) for minute in (_LOADED, _DUE)]
        mark = min(one for one in marks if one > now)
        self.stack.clock.advance(mark - now)
        if mark.minute == _LOADED:
            self.load()
        elif not stopped_processes(self.stack):
            self.until(lambda: has_scheduled_since(self.stack, mark), seconds=_TICK_SECONDS)
        time.sleep(_SETTLE_SECONDS)
        self.until(lambda: runs_going_on(self.stack) == 0, seconds=_RUNS_SECONDS)

    def jump(self, by: timedelta) -> None:
        """Hours pass at once; what comes due in them is caught up with."""
        self.stack.clock.advance(by - HOUR)
        while self.now().minute >= _DUE or self.now().minute < _LOADED:
            self.to_mark()
        self.hour()

    def pass_by(self, hours: int) -> None:
        """Hours in which nobody computes anything; what arrives is loaded."""
        for _ in range(hours):
            self.settle()
            self.stack.clock.advance(HOUR)
            self.load()
            time.sleep(_SETTLE_SECONDS)

    def load(self) -> None:
        """What has arrived is loaded, if that is possible."""
        if "postgres" not in stopped_processes(self.stack):
            self.feed.load(self.stack.settings, through=self.now())

    def hour(self) -> bool:
        """The next hour's features come due and are served; False if they are not within a bound."""
        while self.now().minute >= _DUE or self.now().minute < _LOADED:
            self.to_mark()
        self.to_mark()
        due = self.now().replace(minute=0, second=0, microsecond=0)
        return self.until(lambda: self.served_until() >= due, seconds=_SERVED_SECONDS)

    def until(self, holds: Callable[[], bool], *, seconds: float, every: float = 1.0) -> bool:
        """Wait in real time; False after so many seconds."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(every)
        return True

    # -- what there is ---------------------------------------------------------

    def served_until(self) -> datetime:
        """The newest event time that is served of every view."""
        views = {view["view"]: view["served_event"] for view in self.stack.status().get("views", ())}
        events = [datetime.fromisoformat(event) for event in views.values() if event]
        return min(events) if len(events) == len(VIEWS) else self.began - HOUR

    def due(self) -> datetime:
        """The event time of the newest hour that is due."""
        return (self.now() - HOUR / 2).replace(minute=0, second=0, microsecond=0)

    def newest_partition(self) -> str:
        """The key of the newest hour that is due."""
        return f"{self.due() - HOUR:%Y-%m-%d-%H:%M}"

    def materialize(self, view: str, partition: str = "", *, wait: bool = True) -> str:
        """A partition, by default the newest that is due, as an operator computes it; whether that succeeds shows.

        Returns its key: when a fault is healed, another hour may be the newest.
        """
        partition = partition or self.newest_partition()
        options = () if wait else ("--no-wait",)
        self.stack.command("materialize", view, "--partition", partition, *options, check=False)
        return partition

    # -- sources --------------------------------------------------------

    def hold_back(
        self,
        source: str,
        *,
        after: datetime,
        through: datetime | None = None,
        by: timedelta = timedelta(0),
        until: datetime | None = None,
    ) -> None:
        """Let what would arrive in (after, through] arrive so much later, not before an instant; the judge is told."""
        through, until = through or self.now(), until or self.began
        self.feed.change(
            source,
            f"select * replace (case when ingested_at > timestamptz '{after.isoformat()}'"
            f" and ingested_at <= timestamptz '{through.isoformat()}'"
            f" then greatest(ingested_at + interval '{by.total_seconds():.0f} seconds',"
            f" timestamptz '{until.isoformat()}') else ingested_at end as ingested_at) from rows",
        )
        self.log("held_back", table=source, after=after, through=through, seconds=by.total_seconds(), until=until)

    # -- faults ---------------------------------------------------------

    def run(self, fault: Fault) -> None:
        """Inject, wait until it is seen, heal, wait until all is well; whatever fails in that is written down."""
        try:
            self._run(fault)
        except BaseException:  # Ctrl-C; raised again
            self.log("not_injected", fault=fault.name, why="the drill was interrupted in it")
            raise

    def _run(self, fault: Fault) -> None:
        begin, injected = time.monotonic(), self.now()
        self.stack.said.clear()
        self.say(f"{fault.name}: {fault.what}")
        self.log("injected", fault=fault.name, what=fault.what, tells=fault.tells)
        steps = fault.inject(self)
        try:
            next(steps)
        except (CannotInjectError, *_FAILURES) as error:
            self.log("not_injected", fault=fault.name, why=str(error))
            self.say(f"  not injected: {error}")
            return
        left: list[str] = []
        try:
            first = self._await_seen(fault, injected)
            self.log("detected" if first else "undetected", fault=fault.name, by=first)
            self.say(f"  seen: {first or 'NOT SEEN'}, after {self.now() - injected}")
        except _FAILURES as error:
            self.log("undetected", fault=fault.name, by=None)
            left.append(f"nobody could look: {error}")
        self.stack.said.clear()
        try:
            next(steps, None)
        except _FAILURES as error:
            left.append(f"healing failed: {error}")
        healed = self.now()
        self.log("healed", fault=fault.name, commands=list(dict.fromkeys(self.stack.said)))
        try:
            if not self._await_well(fault, healed):
                left += self.what_is_wrong()
        except _FAILURES as error:
            left.append(f"nobody could look: {error}")
        self.log(
            "not_resolved" if left else "resolved",
            fault=fault.name,
            left=left,
            signals=signals(self.stack, since=injected),
            real_seconds=round(time.monotonic() - begin),
        )
        self.say(f"  over: {'NO' if left else 'yes'} {left or ''} ({time.monotonic() - begin:.0f} s)")

    def settle(self) -> None:
        """What a fault or its healing has started comes to its end, so that it is not booked on the next."""
        if not self.until(lambda: runs_going_on(self.stack) == 0, seconds=_RUNS_SECONDS):
            self.say(f"  {runs_going_on(self.stack)} run(s) still go on")

    def _await_seen(self, fault: Fault, injected: datetime) -> str | None:
        looks = 0
        while True:
            seen = signals(self.stack, since=injected)
            if first := next((one for one in seen if one.startswith(fault.seen_by)), None):
                return first
            if self.now() - injected > fault.within:
                return None
            looks += 1
            self.minute() if looks <= _MINUTES_AT_FIRST else self.to_mark()

    def _await_well(self, fault: Fault, healed: datetime) -> bool:
        self.settle()
        looks = 0
        while self.what_is_wrong():
            if self.now() - healed > fault.within:
                return False
            looks += 1
            if looks <= _MINUTES_AT_FIRST:
                self.minute()
                self.settle()  # a run takes as long as it takes, and not the hours that would pass meanwhile
            else:
                self.hour()
        return True

    def what_is_wrong(self) -> list[str]:
        """What runs not, what incidents are open, what is not fresh, and hours that came due and are not published."""
        stopped = stopped_processes(self.stack)
        if stopped:
            return [f"stopped {name}" for name in stopped]
        status = self.stack.status()
        stale = [f"{view['view']} is {view['state']}" for view in status.get("views", ()) if view["state"] != "fresh"]
        problems = [f"{one['kind']} {one['subject']}" for one in status.get("problems", ())]
        missing = holes(self.stack, until=self.due() - HOUR)
        return sorted({*stale, *problems, *open_incidents(self.stack), *missing})

    def finish(self) -> None:
        """Write down what is published of the entities that are read. What faults left out nobody computes now."""
        self.settle()
        for _ in range(
            _MINUTES_AT_FIRST
        ):  # rows that came late are looked for every minute, and used by runs of their own
            self.minute()
            self.settle()
        entities = json.loads((self.record.parent / "keys.json").read_text(encoding="utf-8"))
        for view, keys in entities.items():
            (column,) = keys[0]
            wanted = ", ".join(f"'{key[column]}'" for key in keys)
            query = f"select * from features.{view} where {column} in ({wanted})"
            rows = json.loads(self.stack.command("sql", "--json", "--limit", "0", query))
            with (self.record.parent / f"kept_{view}.jsonl").open("w", encoding="utf-8") as file:
                for row in rows:
                    line = {"key": [row.pop(column)], "event": row.pop("event_timestamp"), "values": row}
                    file.write(json.dumps(line) + "\n")

    def repair(self) -> None:
        """After a fault that did not end: what the runbook says, so that the next one begins on a well stack."""
        for command in (("deploy",), ("up", "--restart"), ("sync", "--all"), ("backfill", "--all", "--missing")):
            try:
                self.stack.command(*command)
            except _FAILURES as error:
                self.say(f"  {error}")
        for view in VIEWS:
            self.materialize(view)
        self.until(lambda: not self.what_is_wrong(), seconds=_RUNS_SECONDS, every=5.0)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
