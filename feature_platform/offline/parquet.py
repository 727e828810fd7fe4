"""Parquet that comes out the same every time, and what a file holds as one number.

Rule: with the same rows in the same order and one version of DuckDB the bytes are the same, whatever the number of
threads and the memory limit. So the settings are fixed here, and rows are always ordered.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb

from feature_platform.domain.types import FeatureType, usual_bytes
from feature_platform.lake.sql import quote_identifier as quote
from feature_platform.lake.sql import quote_literal, rows_per_group

_WRITER: Final[Mapping[str, Any]] = {
    "format": "parquet",
    "parquet_version": "v1",
    "compression": "zstd",
    "compression_level": 3,
}
_LABEL_BYTES: Final = 32


def writer_for(types: Iterable[FeatureType]) -> Mapping[str, Any]:
    """The writer's settings for labels and features of these types: the wider the rows, the fewer in a row group."""
    return {**_WRITER, "row_group_size": rows_per_group(_LABEL_BYTES + sum(map(usual_bytes, types)))}


def copy_to_parquet(
    connection: duckdb.DuckDBPyConnection,
    select: str,
    path: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    writer: Mapping[str, Any] | None = None,
) -> None:
    """Stream an ordered select to a new file.

    Args:
        connection: runs it.
        select: an ordered select.
        path: the file.
        parameters: of the select.
        writer: the writer's settings (`writer_for`; default: those for narrow rows).
    """
    settings = writer_for(()) if writer is None else writer
    options = ", ".join(f"{name} {quote_literal(v) if isinstance(v, str) else v}" for name, v in settings.items())
    connection.execute(f"copy ({select}) to {quote_literal(str(path))} ({options})", dict(parameters or {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a Parquet file holds."""

    rows: int
    schema: Mapping[str, str]
    """Column → DuckDB type, in order."""
    content_hash: str


def read_content(connection: duckdb.DuckDBPyConnection, path: Path) -> Content:
    """Rows, columns and the content hash of a file, streamed.

    The content hash does not depend on the order of rows, on compression or on who wrote the file: per row the MD5 of
    its values as text, each with its length; over all rows the two halves of it summed up as whole numbers; then
    SHA-256 over columns, number of rows and both sums. (A sum, because with XOR two equal rows would vanish.)
    """
    source = read_parquet(path)
    schema = {row[0]: row[1] for row in connection.execute(f"describe select * from {source}").fetchall()}
    texts = ", ".join(
        f"coalesce(length({quote(name)}::varchar) || ':' || {quote(name)}::varchar, 'null')" for name in schema
    )
    (rows, low, high), *_ = connection.execute(
        "select count(*), sum(md5_number_lower(content)), sum(md5_number_upper(content))"
        f" from (select concat_ws(',', {texts}) as content from {source})"
    ).fetchall()
    whole = json.dumps([[*schema.items()], rows, int(low or 0), int(high or 0)])
    return Content(rows=rows, schema=schema, content_hash=hashlib.sha256(whole.encode()).hexdigest())


def read_parquet(path: Path, *, numbered: bool = False) -> str:
    """The file as a relation; special characters of its path are no pattern, and directories no columns.

    Args:
        path: the file.
        numbered: with a column `file_row_number`: 0, 1, 2 … in the order of the rows.
    """
    options = "hive_partitioning = false" + ", file_row_number = true" * numbered
    return f"read_parquet({quote_literal(glob.escape(str(path)))}, {options})"
