"""Postgres and Valkey of one home together, and `connections.json`, which tells every other process where they are."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from feature_platform import settings
from feature_platform.errors import ServiceStartError
from feature_platform.local.accounts import SHARED, instance_id
from feature_platform.local.places import Places
from feature_platform.local.postgres import find_postgres, start_postgres, stop_postgres
from feature_platform.local.processes import write_text
from feature_platform.local.valkey import find_valkey, start_valkey, stop_valkey


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One service or process of the local stack."""

    name: str
    running: bool
    pid: int | None = None
    address: str = ""
    log: str = ""


def start(project: Path, home: Path) -> dict[str, str]:
    """Start Postgres and Valkey, or attach to them; safe to call from several processes at once.

    Returns:
        The settings by their environment variables, as written to `<home>/connections.json`.

    Raises:
        ServiceStartError: one of them did not start.
    """
    places = Places(home=home.resolve())
    with places.lock():
        postgres = start_postgres(places)
        valkey = start_valkey(places)
        values = {
            "LEDGER_URL": postgres.url("ledger"),
            "LAKE_CATALOG": f"dbname=lake {postgres.keywords}",
            "LAKE_DATA": str(places.lake),
            "VALKEY_URL": valkey.url,
            "DAGSTER_URL": postgres.url("dagster", driver="psycopg2"),
            "PROJECT": str(project.resolve()),
            "HOME": str(places.home),
        }
        connections = {settings.PREFIX + name: value for name, value in values.items()}
        write_text(places.home / settings.CONNECTIONS_FILE, json.dumps(connections, indent=2) + "\n")
    return connections


def stop(home: Path) -> tuple[str, ...]:
    """Stop Valkey and Postgres; the names of those that ran. Nothing committed is lost."""
    places = Places(home=home.resolve())
    if not places.home.exists():
        return ()
    with places.lock():
        stopped = {"valkey": stop_valkey(places), "postgres": stop_postgres(places)}
        places.remove_sockets()
    return tuple(name for name, ran in stopped.items() if ran)


def delete(home: Path) -> None:
    """Stop the services and delete everything they and the platform keep in this home.

    Raises:
        ServiceStartError: it does not look like a data directory.
    """
    home = home.resolve()
    if not home.exists():
        return
    if not (home / settings.CONNECTIONS_FILE).exists():
        raise ServiceStartError(
            f"{home} is not deleted",
            found=f"no {settings.CONNECTIONS_FILE} in it",
            allowed="a directory that `feature-platform up` made",
            hint="look into it, and delete it by hand",
        )
    stop(home)
    if known := instance_id(home):
        shutil.rmtree(SHARED / known, ignore_errors=True)
    shutil.rmtree(home)


def status(home: Path) -> tuple[ServiceStatus, ...]:
    """What runs. Changes nothing."""
    places = Places(home=home.resolve())
    postgres = find_postgres(places)
    valkey = find_valkey(places)
    return (
        ServiceStatus(
            name="postgres",
            running=postgres is not None,
            pid=postgres.pid if postgres else None,
            address=str(postgres.socket_dir) if postgres else "",
            log=_log(places, "postgres"),
        ),
        ServiceStatus(
            name="valkey",
            running=valkey is not None,
            pid=valkey.pid if valkey else None,
            address=str(valkey.socket) if valkey else "",
            log=_log(places, "valkey"),
        ),
    )


def _log(places: Places, name: str) -> str:
    path = places.logs / f"{name}.log"
    return os.fspath(path) if path.exists() else ""
