"""The lake: DuckLake (Parquet files and a catalog in Postgres), read and written by DuckDB in this process.

Rule: every connection has a memory limit, its own temp directory and UTC, and can download nothing. Tables are created
and altered by deploy alone, under the exclusive deployment lock; runs only append.
"""

from __future__ import annotations

from feature_platform.lake.connection import CATALOG, catalog_uri, connect, open_duckdb
from feature_platform.lake.extensions import extension_directory
from feature_platform.lake.scratch import scratch_directory

__all__ = ["CATALOG", "catalog_uri", "connect", "extension_directory", "open_duckdb", "scratch_directory"]
