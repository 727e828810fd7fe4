"""DuckDB extensions come from Python wheels; nothing is downloaded at run time.

The wheels carry DuckDB's own signed binaries. DuckDB looks for them in `<directory>/v<version>/<platform>/`, so links
are placed there. A link is replaced when it points elsewhere (the virtual environment was moved or renewed).

Rule: a process lets DuckDB check the signature of each file once. DuckDB would hash 80 MB anew for every connection,
0.3 s of CPU, which is more than all the rest of opening the lake.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import duckdb

from feature_platform.errors import ConfigurationError

EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs")

_checked: set[tuple[Path, int, int, int]] = set()
"""Files whose signature DuckDB has checked in this process, as they were then."""


def extension_directory(home: Path) -> Path:
    """The directory to give DuckDB as `extension_directory`, with all extensions in place.

    Raises:
        ConfigurationError: a wheel is missing or is for another version of DuckDB.
    """
    directory = home / "duckdb" / "extensions"
    target = directory / f"v{duckdb.__version__}" / _platform()
    target.mkdir(parents=True, exist_ok=True)
    for name in EXTENSIONS:
        _link(wheel_file(name), target / f"{name}.duckdb_extension")
    return directory


def wheel_file(name: str) -> Path:
    """The extension's binary inside its installed wheel.

    Raises:
        ConfigurationError: the wheel is missing or is for another version of DuckDB.
    """
    package = f"duckdb_extension_{name}"
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if path.is_file():
            return path
    raise ConfigurationError(
        f"DuckDB's extension {name} is not installed for DuckDB {duckdb.__version__}",
        found=f"no {package}/extensions/v{duckdb.__version__} in this environment",
        hint=f"pip install {package.replace('_', '-')}=={duckdb.__version__}",
    )


def are_checked(names: Iterable[str]) -> bool:
    """Whether DuckDB has checked the signatures of these extensions in this process, and the files are the same."""
    return _checked.issuperset(map(_identity, names))


def load_extensions(connection: duckdb.DuckDBPyConnection, names: Iterable[str]) -> None:
    """Load them. Afterwards the connection loads nothing unsigned, however it was opened."""
    identities = {_identity(name) for name in names}
    row = connection.execute("select current_setting('allow_unsigned_extensions')").fetchone()
    for name in names:
        connection.execute(f"load {name}")
    if row == (False,):
        _checked.update(identities)
    connection.execute("set allow_unsigned_extensions = false")  # there is no way back to true


def _identity(name: str) -> tuple[Path, int, int, int]:
    path = wheel_file(name)
    stat = path.stat()
    return path, stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1)
def _platform() -> str:
    with duckdb.connect(":memory:") as connection:
        row = connection.execute("pragma platform").fetchone()
    return str(row[0]) if row else ""


def _link(source: Path, link: Path) -> None:
    if link.is_symlink() and link.readlink() == source:
        return
    ours = link.with_name(f".{link.name}.{os.getpid()}")
    ours.unlink(missing_ok=True)
    ours.symlink_to(source)
    ours.replace(link)  # atomic: several processes may arrive here at once
