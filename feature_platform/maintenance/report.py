"""What maintenance did, or would do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feature_platform.domain.retention import Fate, Judged
from feature_platform.lake.maintenance import FilesRemoved
from feature_platform.lake.slices import Files


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBatches:
    """Batches that nobody sees and that stay, for one reason."""

    why: Fate
    batches: int
    rows: int
    bytes: int
    """As measured when they were computed."""
    details: tuple[str, ...]
    """The training sets or stores that keep them; of instants the first, from which on some of them may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """What was done to one table: a view's, or the feature log."""

    table: str
    """`name@version` of the view; `serving.served_features` for the log."""
    retired: Mapping[Fate, int]
    """How many batches were retired, by the reason; of a dry run, would be."""
    rows_deleted: int
    merged: tuple[str, ...]
    """The slices that were written anew."""
    before: Files
    after: Files
    """Of a dry run: the same as before."""
    kept: tuple[KeptBatches, ...] = ()
    bytes_retired: int = 0
    """Of the retired batches, as measured when they were computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceReport:
    """One run of maintenance."""

    is_dry_run: bool
    tables: tuple[TableReport, ...]
    files: FilesRemoved | None
    """None: only some views were asked for."""
    seconds: float

    @property
    def rows_deleted(self) -> int:
        """Of all tables."""
        return sum(table.rows_deleted for table in self.tables)


def summarize(judged: Iterable[Judged]) -> tuple[KeptBatches, ...]:
    """What stays, by the reason."""
    of_reason: defaultdict[Fate, list[Judged]] = defaultdict(list)
    for one in judged:
        if not one.fate.goes:
            of_reason[one.fate].append(one)
    return tuple(
        KeptBatches(
            why=fate,
            batches=len(of_reason[fate]),
            rows=sum(one.batch.rows or 0 for one in of_reason[fate]),
            bytes=sum(one.batch.bytes for one in of_reason[fate]),
            details=_details(fate, of_reason[fate]),
        )
        for fate in Fate
        if fate in of_reason
    )


def _details(fate: Fate, judged: Iterable[Judged]) -> tuple[str, ...]:
    details = sorted({part for one in judged for part in one.detail.split(", ")})
    if fate in (Fate.YOUNG, Fate.ALIVE) and len(details) > 1:
        return (f"the first {details[0]}",)
    return tuple(details)
