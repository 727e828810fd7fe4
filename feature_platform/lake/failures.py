"""What DuckDB says when reading or writing the lake fails → the platform's errors.

Rule: by what the message says, because a failure of the catalog's Postgres reaches us through several kinds of DuckDB's
errors, and through dbt as text only. What is not known to pass by itself is terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from feature_platform.errors import (
    DiskFullError,
    FeaturePlatformError,
    LakeConflictError,
    LedgerUnavailableError,
    MemoryLimitError,
)
from feature_platform.settings import PREFIX

_CONFLICT = re.compile(r"Failed to commit DuckLake transaction|Transaction conflict", re.IGNORECASE)
_NO_POSTGRES = re.compile(
    r"Unable to connect to Postgres|server closed the connection|terminating connection|no connection to the server"
    r"|could not connect to server|connection to server .* failed",
    re.IGNORECASE,
)
_NO_MEMORY = re.compile(r"Out of Memory Error|OutOfMemoryException|failed to offload data block", re.IGNORECASE)

_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)


def known_failure(message: str, *, doing: str) -> FeaturePlatformError | None:
    """The error that a message of DuckDB amounts to; None if it is none of those that are known.

    Args:
        message: what DuckDB said.
        doing: what was being done, as the beginning of a sentence: `reading carrier_delays@1`.
    """
    if _CONFLICT.search(message):
        return LakeConflictError(
            f"{doing}: another commit to the lake came first", found=message, hint="try again; nothing was written"
        )
    if _NO_POSTGRES.search(message):
        return LedgerUnavailableError(
            f"{doing}: the lake catalog's Postgres failed", found=message, hint="try again when it is back"
        )
    if _NO_MEMORY.search(message):
        return MemoryLimitError(
            f"{doing} needed more memory than DuckDB is given",
            found=message,
            hint=f"set {PREFIX}DUCKDB_MEMORY to more (each process may use that much), take fewer partitions at once,"
            " or make room where it spills to",
        )
    if _NO_ROOM.search(message):
        return DiskFullError(
            f"{doing} needed more room than its disk has",
            found=message,
            hint="make room, and try again (docs/runbooks/disk-full.md says where)",
        )
    return None


@contextmanager
def lake_errors(doing: str) -> Iterator[None]:
    """Turn what DuckDB raises into the platform's errors.

    Args:
        doing: what is being done, as the beginning of a sentence.
    """
    try:
        yield
    except duckdb.Error as error:
        known = known_failure(str(error), doing=doing)
        raise known or FeaturePlatformError(f"{doing} failed", found=str(error)) from error
