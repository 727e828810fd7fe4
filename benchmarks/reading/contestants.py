"""Who reads, and how: each contestant is told which entities of how many views, and says how long each read took.

Rule: what could be done before the clock starts is done before: entities are drawn, the floor's requests are framed.
Everyone but the floor and valkey-py's MGET ends with values of Python, numpy or Arrow in hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import libvalkey
import valkey

from feature_platform.online import FeatureClient
from feature_platform.online.aio import AsyncFeatureClient
from feature_platform.online.keys import row_key
from feature_platform.online.result import OnlineFeatures
from feature_platform.online.settings import OnlineSettings, ValkeyAddress
from reading import world

Draws = Sequence[Sequence[int]]


class Contestant(Protocol):
    """One who reads."""

    name: str

    def read(self, draws: Draws, views: int) -> list[float]:
        """Read these entities, one request for each draw; the seconds of each."""

    def close(self) -> None:
        """Let go of everything."""


def timed(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The seconds of each call."""
    seconds = []
    for call in calls:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def keys_of(draw: Sequence[int], views: int) -> list[bytes]:
    """The keys of one request."""
    return [row_key(f"{view}@1", b"%d" % entity) for view in world.VIEWS[:views] for entity in draw]


class Floor:
    """A framed MGET on a raw socket; the reply is read to its end, and not looked at."""

    name = "floor"

    def __init__(self, address: ValkeyAddress) -> None:
        self._socket = socket.create_connection((address.host, address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 18)
        self._expected: dict[bytes, int] = {}

    def read(self, draws: Draws, views: int) -> list[float]:
        """As the protocol says."""
        frames = [libvalkey.pack_command(("MGET", *keys_of(draw, views))) for draw in draws]
        for frame in frames:
            if frame not in self._expected:
                self._expected[frame] = self._length(frame)
        return timed([partial(self._once, frame, self._expected[frame]) for frame in frames])

    def _once(self, frame: bytes, expected: int) -> None:
        self._socket.sendall(frame)
        receive, buffer = self._socket.recv_into, self._buffer
        while expected > 0:
            expected -= receive(buffer)

    def _length(self, frame: bytes) -> int:
        """How many bytes the reply has: it is parsed once, before the clock starts."""
        self._socket.sendall(frame)
        reader, length = libvalkey.Reader(), 0
        while True:
            data = self._socket.recv(1 << 18)
            length += len(data)
            reader.feed(data)
            if reader.gets() is not False:
                return length

    def close(self) -> None:
        """As the protocol says."""
        self._socket.close()


class ValkeyPy:
    """valkey-py's MGET with its fast parser: bytes, not decoded."""

    name = "valkey-py MGET"

    def __init__(self, address: ValkeyAddress) -> None:
        self._client = valkey.Valkey(host=address.host, port=address.port)

    def read(self, draws: Draws, views: int) -> list[float]:
        """As the protocol says."""
        return timed([partial(self._client.mget, keys_of(draw, views)) for draw in draws])

    def close(self) -> None:
        """As the protocol says."""
        self._client.close()


Take = Callable[[OnlineFeatures], object]
TAKES: dict[str, Take] = {
    "ours, rows": lambda answer: [row.values for row in answer],
    "ours, columns": OnlineFeatures.to_columns,
    "ours, numpy": OnlineFeatures.to_numpy,
    "ours, Arrow": OnlineFeatures.to_arrow,
}


class Ours:
    """`FeatureClient`, with one form of answer."""

    def __init__(self, name: str, address: ValkeyAddress) -> None:
        self.name = name
        self._take = TAKES[name]
        self._client = FeatureClient(OnlineSettings(address=address, timeout_seconds=10.0))

    def read(self, draws: Draws, views: int) -> list[float]:
        """As the protocol says."""
        return timed([partial(self._once, entities_of(draw), views) for draw in draws])

    def _once(self, entities: Any, views: int) -> object:
        return self._take(self._client.get_online_features(world.VIEWS[:views], entities))

    def answer(self, draw: Sequence[int], views: int) -> dict[str, list[Any]]:
        """What is compared."""
        return self._client.get_online_features(world.VIEWS[:views], entities_of(draw)).to_columns()

    def close(self) -> None:
        """As the protocol says."""
        self._client.close()


def entities_of(draw: Sequence[int]) -> list[dict[str, int]]:
    """The entities of one request."""
    return [{world.KEY: entity} for entity in draw]


class OursAsync:
    """`AsyncFeatureClient`, rows, one request after the other."""

    name = "ours, asyncio rows"

    def __init__(self, address: ValkeyAddress) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncFeatureClient(OnlineSettings(address=address, timeout_seconds=10.0))

    def read(self, draws: Draws, views: int) -> list[float]:
        """As the protocol says."""

        async def all_of_them() -> list[float]:
            seconds = []
            for entities in map(entities_of, draws):
                began = time.perf_counter()
                TAKES["ours, rows"](await self._client.get_online_features(world.VIEWS[:views], entities))
                seconds.append(time.perf_counter() - began)
            return seconds

        return self._runner.run(all_of_them())

    def close(self) -> None:
        """As the protocol says."""
        self._runner.run(self._client.close())
        self._runner.close()


class Feast:
    """Feast, in its own environment and process: the pipe is outside its clock."""

    name = "Feast"

    def __init__(self, address: ValkeyAddress, python: str, directory: Path) -> None:
        self._process = subprocess.Popen(
            [
                python,
                str(Path(__file__).with_name("feast_contestant.py")),
                str(directory),
                f"{address.host}:{address.port}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"FEAST_USAGE": "False"},
        )
        while (line := self._line()) != "ready":
            print(f"  Feast: {line}")
        self.last: dict[str, list[Any]] = {}

    def read(self, draws: Draws, views: int) -> list[float]:
        """As the protocol says."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        self._process.stdin.write(json.dumps({"views": views, "draws": draws}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._line())
        self.last = found["answer"]
        return list(found["seconds"])

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"Feast ended with {self._process.wait()}; run {__file__} by hand to see why")
        return line.strip()

    def close(self) -> None:
        """As the protocol says."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
