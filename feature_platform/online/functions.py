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
    # the name contains the hash of the text, so a library of that name is this one
    if not (isinstance(reply, libvalkey.ReplyError) and "already exists" in str(reply)):
        raise_if_error(reply, connection.address)


def write_name() -> str:
    """Name of the function that writes rows."""
    return f"fp_write_{library()[0]}"


def push_name() -> str:
    """Name of the function that writes pushed rows."""
    return f"fp_push_{library()[0]}"


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
    _, _, line = info.decode().partition("run_id:")
    return StoreLook(
        server_run_id=line.split()[0],
        positions={
            view: (nonce.decode(), int(position)) if nonce is not None and position is not None else None
            for view, (nonce, position) in zip(asked, held, strict=True)
        },
    )


def _call(connection: Connection, name: str, key: str, *arguments: str | int) -> Any:
    command = libvalkey.pack_command(("FCALL", f"fp_{name}_{library()[0]}", 1, key, *arguments))
    connection.send(command)
    reply = connection.receive()
    if isinstance(reply, libvalkey.ReplyError) and "Function not found" in str(reply):
        load(connection)
        connection.send(command)
        reply = connection.receive()
    raise_if_error(reply, connection.address)
    return reply
