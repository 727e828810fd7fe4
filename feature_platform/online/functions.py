"""The server-side functions: loaded where they are missing, called by everything that writes rows or positions.

Rule: rows and positions are written by these functions only (`functions.lua` says what they do). A library carries
the hash of its text in its name, so loading is idempotent and two versions of the platform can write side by side.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import libvalkey

from feature_platform.online.connection import Connection, raise_if_error
from feature_platform.online.keys import position_key, push_position_key


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePosition:
    """What the store says of itself: how far it holds a view, and who it is."""

    position: int
    nonce: str
    """Drawn when the position was created; a store that lost its data has another one."""
    server_run_id: str
    """The running server process; another one may have lost the last writes."""
    progress: str = ""
    """How far a plan got that did not end (`note`)."""

    @property
    def furthest(self) -> int:
        """The greatest position of a part."""
        return self.position

    @property
    def parts(self) -> tuple[PositionPart, ...]:
        """Parts of the store that are at different positions, the one furthest behind first."""
        return (PositionPart(position=self.position),)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionPart:
    """Part of a store, and how far it holds a view."""

    position: int
    slots: bytes | None = None
    """A byte per slot of a cluster, 1 for those of the part; None: the whole store."""


@cache
def library() -> tuple[str, str]:
    """The hash of the functions' text, and the text to load."""
    text = resources.files(__package__).joinpath("functions.lua").read_text(encoding="utf-8")
    version = hashlib.sha256(text.encode()).hexdigest()[:8]
    return version, f"#!lua name=feature_platform_{version}\n" + text.replace("_HASH'", f"_{version}'")


def load(connection: Connection) -> None:
    """Load the functions; those that are there already stay.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    _, text = library()
    connection.send(libvalkey.pack_command(("FUNCTION", "LOAD", text)))
    reply = connection.receive()
    if not was_loaded(reply):
        raise_if_error(reply, connection.address)


def was_loaded(reply: object) -> bool:
    """Whether a refusal to load says that the functions are there: their name contains the hash of the text."""
    return isinstance(reply, libvalkey.ReplyError) and "already exists" in str(reply)


def is_missing(reply: object) -> bool:
    """Whether a refused call says that the functions are not loaded."""
    return isinstance(reply, libvalkey.ReplyError) and says_missing(str(reply))


def says_missing(message: str) -> bool:
    """The same, of the refusal's text."""
    return "Function not found" in message


def name_of(function: str) -> str:
    """The name under which the store knows a function."""
    return f"fp_{function}_{library()[0]}"


def write_name() -> str:
    """Name of the function that writes rows."""
    return name_of("write")


def push_name() -> str:
    """Name of the function that writes pushed rows."""
    return name_of("push")


def begin_pushes(connection: Connection, view: str) -> StorePosition:
    """Which store this is, as far as pushed rows go: one that lost them has another nonce. Its position is always 0.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    nonce, position, run_id, *_ = _call(connection, "begin", push_position_key(view), uuid.uuid4().hex)
    return StorePosition(position=int(position), nonce=nonce.decode(), server_run_id=run_id.decode())


def begin(connection: Connection, view: str) -> StorePosition:
    """How far the store holds a view; a store that never held it answers 0 from now on.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    nonce, position, run_id, progress = _call(connection, "begin", position_key(view), uuid.uuid4().hex)
    return StorePosition(
        position=int(position), nonce=nonce.decode(), server_run_id=run_id.decode(), progress=progress.decode()
    )


def advance(connection: Connection, view: str, begun: StorePosition, position: int) -> bool:
    """Record that everything up to this position is written. It never moves back.

    Returns:
        False if the store is no longer the one that `begin` met: what was written may be gone.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    return bool(_call(connection, "advance", position_key(view), begun.nonce, begun.server_run_id, position))


def note(connection: Connection, view: str, begun: StorePosition, progress: str) -> bool:
    """Leave how far a plan is, once so much is acknowledged; the next `begin` returns it, `advance` clears it.

    Returns:
        False if the store is no longer the one that `begin` met.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    return bool(_call(connection, "note", position_key(view), begun.nonce, begun.server_run_id, progress))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLook:
    """What a store says of several views at once."""

    server_run_id: str
    positions: Mapping[str, tuple[str, int] | None]
    """Per view, nonce and position; None if the store holds none."""


def probe(connection: Connection, views: Iterable[str]) -> StoreLook:
    """Where the store is, in one round trip. Reads only: nothing is created, no function is needed.

    Raises:
        FeaturePlatformError: the store cannot be reached or refused.
    """
    asked = tuple(views)
    commands = [("HMGET", position_key(view), "nonce", "position") for view in asked]
    # one connection leads to one server process, so positions and run id belong together
    info, *held = connection.pipeline([("INFO", "server"), *commands])
    return StoreLook(
        server_run_id=run_id_in(info),
        positions={
            view: (nonce.decode(), int(position)) if nonce is not None and position is not None else None
            for view, (nonce, position) in zip(asked, held, strict=True)
        },
    )


def run_id_in(info: bytes) -> str:
    """The run id of the server process, in its answer to `INFO server`."""
    return info.decode().partition("run_id:")[2].split()[0]


def _call(connection: Connection, name: str, key: str, *arguments: str | int) -> Any:
    command = libvalkey.pack_command(("FCALL", name_of(name), 1, key, *arguments))
    connection.send(command)
    reply = connection.receive()
    if is_missing(reply):
        load(connection)
        connection.send(command)
        reply = connection.receive()
    raise_if_error(reply, connection.address)
    return reply
