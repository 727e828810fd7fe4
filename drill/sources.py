"""The feed: the files that the reference loader reads, cut to a slice and doctored by faults.

Rule: a fault of a source is a different file under the name that the loader expects, so the loader itself is the one
that ships. Every file lies whole under its name at any time. Instants in the files are the data's own, `shift` earlier.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from feature_platform.lake import connect
from feature_platform.ledger import Ledger
from feature_platform.reference import SOURCES, load_source
from feature_platform.reference.extract import parquet_file
from feature_platform.settings import Settings

_NEVER_OLD = ("planes", "airports", "airlines")
"""Registers: they are not cut."""


@dataclass(slots=True, kw_only=True)
class Feed:
    """All source files of one home."""

    home: Path
    cache: Path
    """Where whole files are kept from drill to drill: making them takes half a minute."""
    since: datetime
    """Rows known before are left out."""
    shift: timedelta

    changes: dict[str, list[str]] = field(default_factory=dict)
    """By source: queries over `rows`, each over what the one before it gives."""

    def prepare(self) -> None:
        """Lay out the slice."""
        for name in SOURCES:
            self._deliver(name)

    def change(self, name: str, select: str) -> None:
        """Let the feed give this from now on: a query over `rows`, whose instants are those of the stack's clock."""
        self.changes.setdefault(name, []).append(select)
        self._deliver(name)

    def undo(self, name: str) -> None:
        """Take the last change back."""
        self.changes[name].pop()
        self._deliver(name)

    def load(
        self,
        settings: Settings,
        *,
        through: datetime,
        sources: Sequence[str] = ("flights", "weather"),
        after: datetime | None = None,
    ) -> None:
        """Bring to the lake what has arrived, as an ingestion outside Dagster does; the hourly runs do the same."""
        with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
            for name in sources:
                begin = after or ledger.loaded_through(SOURCES[name].ledger_name)
                load_source(lake, ledger, name, home=self.home, through=through, after=begin, run_id="drill")

    def _deliver(self, name: str) -> None:
        whole = parquet_file(SOURCES[name], self.cache)
        target = self.home / "reference" / whole.name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".draft")
        if name in _NEVER_OLD:
            shutil.copyfile(whole, draft)
        else:
            self._write(whole, draft, self.changes.get(name, ()))
        draft.replace(target)

    def _write(self, whole: Path, draft: Path, changes: Sequence[str]) -> None:
        days = self.shift.days
        instants = ("known_at", "ingested_at")
        moved = ", ".join(f"({one} + interval ({days}) days)::timestamptz as {one}" for one in instants)
        back = ", ".join(f"({one} - interval ({days}) days)::timestamptz as {one}" for one in instants)
        with duckdb.connect() as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(
                f"create view rows_0 as select * replace ({moved}) from read_parquet('{whole}')"
                f" where known_at >= timestamptz '{(self.since - self.shift).isoformat()}'"
            )
            for number, select in enumerate(changes):
                connection.execute(f"create view rows_{number + 1} as with rows as (from rows_{number}) {select}")
            connection.execute(
                f"copy (select * replace ({back}) from rows_{len(changes)} order by ingested_at)"
                f" to '{draft}' (format parquet, row_group_size 20480)"
            )
