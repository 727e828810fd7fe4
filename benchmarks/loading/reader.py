"""The process that reads at full speed: `python reader.py URL PROGRESS SECONDS` prints a line of JSON now and then.

Rule: nothing is kept of a read but counts, so memory that grows is the client's. Every row is looked at: one value of
each kind of every read, all of every eighth. What may be seen follows from what the writer told before and after.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil

THREADS: Final = 3
TASKS: Final = 8
EVERY: Final = 5.0
"""Seconds between two lines."""
_SIZES: Final = (1, 1, 1, 10, 10, 100)
_THOROUGH: Final = 8


class Judge:
    """Counts reads, and what was wrong with them. One per thread."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self.counts: Counter[str] = Counter()
        self.first: str = ""

    def before(self) -> tuple[int, int, int]:
        """What was true when the read began."""
        told: tuple[int, int, int] = self._progress.get()
        return told

    def answer(self, before: tuple[int, int, int], entities: Sequence[int], columns: Any) -> None:
        """Look at what came."""
        begun, _, lost_after = self._progress.get()
        _, done, lost_before = before
        lost = bool(lost_before or lost_after)
        self.counts["reads"] += 1
        self.counts["rows"] += len(entities)
        thorough = self.counts["reads"] % _THOROUGH == 0
        for place, entity in enumerate(entities):
            number = columns["i0"][place]
            if number is None or math.isnan(number):  # NaN: of numpy
                self.counts["missing while lost" if lost else "missing"] += 1
                if not lost:
                    self._tell(f"entity {entity} is missing; version {done} was acknowledged")
                continue
            version = int(number) - entity * world.VERSIONS
            right = world.expected(entity, version)
            names = world.FEATURES if thorough else ("f19", "i0", "s2")
            same = all(
                columns[name][place] == value
                for name, value in zip(world.FEATURES, right, strict=True)
                if name in names
            )
            if not same or not (0 if lost else done) <= version <= begun:
                self.counts["wrong"] += 1
                self._tell(f"entity {entity}: version {version} of {done} to {begun}, values fit: {same}")

    def failed(self, before: tuple[int, int, int], error: Exception) -> None:
        """Count an error."""
        lost = before[2] or self._progress.get()[2]
        self.counts[f"{type(error).__name__}{' while lost' if lost else ''}"] += 1
        if not lost:
            self._tell(f"{type(error).__name__}: {error}")

    def _tell(self, text: str) -> None:
        self.first = self.first or text


def read_in_thread(client: Any, judge: Judge, seed: int, until: float) -> None:
    """One request after the other, in every form of answer."""
    source = random.Random(seed)
    forms = ("rows", "columns", "numpy")
    while time.monotonic() < until:
        entities = source.sample(range(world.ENTITIES), source.choice(_SIZES))
        before = judge.before()
        try:
            answer = client.get_online_features(world.VIEW, [{"entity": entity} for entity in entities])
            judge.answer(before, entities, _columns(answer, source.choice(forms)))
        except FeaturePlatformError as error:
            judge.failed(before, error)


def _columns(answer: Any, form: str) -> Any:
    if form == "rows":
        rows = [row.values for row in answer]
        return {name: [row[name] for row in rows] for name in world.FEATURES}
    if form == "columns":
        return answer.to_columns()
    return answer.to_numpy()


async def read_in_tasks(client: Any, judge: Judge, until: float) -> None:
    """Several requests at once."""

    async def one(seed: int) -> None:
        source = random.Random(seed)
        while time.monotonic() < until:
            entities = source.sample(range(world.ENTITIES), source.choice(_SIZES))
            before = judge.before()
            try:
                answer = await client.get_online_features(world.VIEW, [{"entity": entity} for entity in entities])
                judge.answer(before, entities, answer.to_columns())
            except FeaturePlatformError as error:
                judge.failed(before, error)

    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(one(1000 + number))
    await client.close()


def main() -> None:
    """Read until the time is over."""
    url, path, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    progress, until = world.Progress(path), time.monotonic() + seconds
    judges = [Judge(progress) for _ in range(THREADS + 1)]
    settings = OnlineSettings.parse(url, timeout_seconds=2.0)
    client, own = FeatureClient(settings), psutil.Process()
    threads = [
        threading.Thread(target=read_in_thread, args=(client, judges[number], number, until))
        for number in range(THREADS)
    ]
    tasks = read_in_tasks(AsyncFeatureClient(settings), judges[-1], until)
    threads.append(threading.Thread(target=asyncio.run, args=(tasks,)))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(EVERY, max(until - time.monotonic(), 0.2)))
        if time.monotonic() > until:
            break
        gc.collect()  # what is garbage is no growth
        _tell(own, judges)
    for thread in threads:
        thread.join()
    client.close()
    _tell(own, judges, ended=True)


def _tell(own: psutil.Process, judges: Sequence[Judge], *, ended: bool = False) -> None:
    counts: Counter[str] = Counter()
    for judge in judges:
        counts.update(dict(judge.counts))
    line = {
        "rss_mb": own.memory_info().rss / 2**20,
        "fds": own.num_fds(),
        "connections": len([one for one in own.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]),
        "counts": counts,
        "first": next((judge.first for judge in judges if judge.first), ""),
        "ended": ended,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    for parent in (1, 2):
        sys.path.insert(0, str(Path(os.path.realpath(__file__)).parents[parent]))
    from feature_platform.errors import FeaturePlatformError
    from feature_platform.online import FeatureClient
    from feature_platform.online.aio import AsyncFeatureClient
    from feature_platform.online.settings import OnlineSettings
    from loading import world

    main()
