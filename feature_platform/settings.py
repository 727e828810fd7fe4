"""Addresses of the services, read once at the edge of a process.

Rule: a value comes from the environment; if it is not there, from `connections.json` in the data directory,
which `feature-platform up` writes for the embedded services. Nothing is guessed. Standard library only, because
the online client uses it.

| variable | meaning |
|---|---|
| `FEATURE_PLATFORM_PROJECT` | directory with `dbt_project/` (default: nearest parent that has one) |
| `FEATURE_PLATFORM_HOME` | data directory (default: `<project>/.feature_platform`) |
| `FEATURE_PLATFORM_LEDGER_URL` | Postgres of the ledger, `postgresql://…` |
| `FEATURE_PLATFORM_LAKE_CATALOG` | Postgres of the DuckLake catalog, libpq keywords (`dbname=… host=…`) |
| `FEATURE_PLATFORM_LAKE_DATA` | directory or bucket of the lake's Parquet files |
| `FEATURE_PLATFORM_TRAINING_SETS` | directory or bucket of kept training sets (default: `<home>/training_sets`) |
| `FEATURE_PLATFORM_VALKEY_URL` | online store, `valkey://…` or `unix://…` |
| `FEATURE_PLATFORM_STORE` | name of this online store (region) in the ledger (default: `default`) |
| `FEATURE_PLATFORM_STORES` | further online stores (regions): a JSON object, name → address |
| `FEATURE_PLATFORM_DAGSTER_URL` | Postgres of Dagster, as `up` writes it; Dagster itself reads `DAGSTER_PG_URL` |
| `FEATURE_PLATFORM_DUCKDB_MEMORY` | DuckDB's memory limit (default: `1GB`) |
| `FEATURE_PLATFORM_DAGSTER_UI` | address of a Dagster UI that `up` did not start, for `materialize` and `backfill` |
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from feature_platform.errors import ConfigurationError, UnknownNameError, chosen_from

PREFIX = "FEATURE_PLATFORM_"
CONNECTIONS_FILE = "connections.json"


def project_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The directory that holds `dbt_project/`.

    Raises:
        ConfigurationError: neither the variable is set nor a parent of the working directory fits.
    """
    environ = os.environ if environ is None else environ
    if declared := environ.get(PREFIX + "PROJECT"):
        return Path(declared).resolve()
    here = Path.cwd().resolve()
    for candidate in (here, *here.parents):
        if (candidate / "dbt_project" / "dbt_project.yml").is_file():
            return candidate
    raise ConfigurationError(
        "no feature platform project found",
        found=f"no dbt_project/dbt_project.yml in {here} or above",
        hint=f"change into the project, or set {PREFIX}PROJECT",
    )


def home_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The data directory; it need not exist yet."""
    environ = os.environ if environ is None else environ
    if declared := environ.get(PREFIX + "HOME"):
        return Path(declared).resolve()
    return project_dir(environ) / ".feature_platform"


def read(name: str, environ: Mapping[str, str] | None = None, *, default: str | None = None) -> str:
    """One setting, by its name without the prefix (`"VALKEY_URL"`).

    Raises:
        ConfigurationError: it is set nowhere and has no default.
    """
    environ = os.environ if environ is None else environ
    variable = PREFIX + name
    if value := environ.get(variable):
        return value
    looked_at = "the environment"
    try:
        connections = home_dir(environ) / CONNECTIONS_FILE
        looked_at += f" and {connections}"
        value = json.loads(connections.read_text(encoding="utf-8")).get(variable)
    except (ConfigurationError, FileNotFoundError):
        value = None
    except ValueError as error:
        raise ConfigurationError(
            f"{connections} is not valid JSON",
            found=str(error),
            hint="run `feature-platform up` to write it again",
        ) from error
    if value:
        return str(value)
    if default is not None:
        return default
    raise ConfigurationError(
        f"{variable} is not set",
        found=f"nothing in {looked_at}",
        hint=f"start the embedded services with `feature-platform up`, or set {variable}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a process of the platform (not the online client) needs to know about its surroundings."""

    project: Path
    home: Path
    # addresses may hold passwords: never in a log or a traceback
    ledger_url: str = field(repr=False)
    lake_catalog: str = field(repr=False)
    lake_data: str
    valkey_url: str = field(repr=False)
    store: str
    duckdb_memory: str
    training_sets: str = ""
    """Where kept training sets lie; empty: in the data directory."""
    more_stores: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Further online stores: name and address of each."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read all settings.

        Raises:
            ConfigurationError: one is missing.
        """
        environ = os.environ if environ is None else environ
        return cls(
            project=project_dir(environ),
            home=home_dir(environ),
            ledger_url=read("LEDGER_URL", environ),
            lake_catalog=read("LAKE_CATALOG", environ),
            lake_data=read("LAKE_DATA", environ),
            valkey_url=read("VALKEY_URL", environ),
            store=read("STORE", environ, default="default"),
            duckdb_memory=read("DUCKDB_MEMORY", environ, default="1GB"),
            training_sets=read("TRAINING_SETS", environ, default=""),
            more_stores=_stores(read("STORES", environ, default="{}")),
        )

    @property
    def all_stores(self) -> dict[str, str]:
        """Every online store, name to address; the platform's own is the first."""
        return {self.store: self.valkey_url} | dict(self.more_stores)

    def at_store(self, name: str) -> Settings:
        """The same with another of the stores in its place.

        Raises:
            UnknownNameError: there is no such store.
        """
        stores = self.all_stores
        if name not in stores:
            raise UnknownNameError(
                f"there is no online store {name!r}",
                allowed=chosen_from(stores),
                hint=f"check the spelling, or add it to {PREFIX}STORES",
            )
        return replace(
            self,
            store=name,
            valkey_url=stores[name],
            more_stores=tuple((other, url) for other, url in stores.items() if other != name),
        )

    @property
    def manifest_path(self) -> Path:
        """The manifest that the last `feature-platform deploy` built; Dagster and all commands read this one."""
        return self.home / "dbt" / "manifest.json"

    @property
    def training_sets_root(self) -> str:
        """Directory or bucket of kept training sets. A relative one is the project's, wherever it is asked from."""
        if "://" in self.training_sets:
            return self.training_sets
        return str(self.project / self.training_sets if self.training_sets else self.home / "training_sets")

    @property
    def scratch(self) -> Path:
        """DuckDB's temp directory: spilled data of running processes."""
        return self.home / "scratch"


def _stores(text: str) -> tuple[tuple[str, str], ...]:
    try:
        stores = json.loads(text)
    except ValueError:
        stores = None
    if not isinstance(stores, dict) or not all(isinstance(url, str) and url for url in stores.values()):
        raise ConfigurationError(
            f"{PREFIX}STORES is malformed",
            allowed='a JSON object like {"us": "valkey://us.example:6379"}',
            hint="name each further online store and give its address",
        )
    return tuple(stores.items())
