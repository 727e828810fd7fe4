"""Kept training sets: recorded once under a name and a version, given up at most once, never changed.

A kept set needs the rows of every batch its join could see. Whoever removes rows asks `batches_sets_need` first, in
the append that says so (`training_set_needs` is the same as a view of the database); whoever keeps a set records it
after reading, so of two that meet one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.number_ranges import Ranges, to_ranges
from feature_platform.errors import NameTakenError, RowsRetiredError, UnknownNameError, chosen_from
from feature_platform.ledger.connection import Append, LedgerConnection, Row
from feature_platform.ledger.rows import PUBLISHED, read_published

_SETS = """
select s.name, s.version, s.ledger_seq, s.at_sequence, s.manifest, s.created_by, s.recorded_at, r.reason, r.released_by,
       r.released_at
from training_sets s left join training_set_released r using (name, version)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetRecord:
    """One kept training set as the ledger knows it."""

    name: str
    version: int
    ledger_seq: int
    at_sequence: int
    """The state of the ledger that decided which batches were visible."""
    manifest: Mapping[str, Any]
    created_by: str
    recorded_at: datetime
    released_reason: str | None
    released_by: str | None
    released_at: datetime | None
    """None while the set is kept."""

    @property
    def key(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


class TrainingSetLedger(LedgerConnection):
    """The part of the ledger that knows training sets."""

    def next_version(self, name: str) -> int:
        """The version the next set of this name gets: one more than the last."""
        return 1 + int(
            self._fetch_value("select coalesce(max(version), 0) from training_sets where name = %s", (name,))
        )

    def record_training_set(
        self,
        name: str,
        version: int,
        *,
        at_sequence: int,
        manifest: Mapping[str, Any],
        batches: Mapping[str, Iterable[int]],
        created_by: str,
    ) -> None:
        """Keep a set: from now on it exists, and its batches stay.

        Args:
            name: its name.
            version: its version.
            at_sequence: the state of the ledger it was made of.
            manifest: all that is to be known of it; JSON.
            batches: per view key, the numbers (`seq`) of the batches its join could see.
            created_by: who made it.

        Raises:
            NameTakenError: there is one of this name and version.
            RowsRetiredError: a batch of it was retired while it was made.
        """
        with self._append() as append:
            if not append.insert(
                "insert into training_sets (name, version, at_sequence, manifest, created_by) values %s"
                " on conflict (name, version) do nothing returning 1",
                [(name, version, at_sequence, json.dumps(manifest), created_by)],
            ):
                raise NameTakenError(
                    f"there is a training set {name}@{version} already",
                    allowed="each name and version is given once",
                    hint=f"create it as {name!r}, which takes the next version, or choose another name",
                )
            needed = [(view, _multirange(to_ranges(seqs))) for view, seqs in sorted(batches.items())]
            for view, seqs in needed:
                _refuse_retired(append, f"{name}@{version}", view, seqs)
            append.insert(
                "insert into training_set_batches (name, version, view, batch_seqs) values %s returning 1",
                [(name, version, view, seqs) for view, seqs in needed],
            )

    def release_training_set(self, name: str, version: int, *, reason: str, released_by: str) -> bool:
        """Give a set up: its batches may go. False if it was given up before.

        Raises:
            UnknownNameError: there is no such set.
        """
        self.training_set(name, version)
        with self._append() as append:
            return bool(
                append.insert(
                    "insert into training_set_released (name, version, reason, released_by) values %s"
                    " on conflict do nothing returning 1",
                    [(name, version, reason, released_by)],
                )
            )

    def training_set(self, name: str, version: int | None = None) -> TrainingSetRecord:
        """The set of this name and version; without a version, the newest of the name.

        Raises:
            UnknownNameError: there is none.
        """
        rows = self._fetch(
            f"{_SETS} where s.name = %s and (%s::integer is null or s.version = %s) order by s.version desc limit 1",
            (name, version, version),
        )
        if not rows:
            known = self._fetch("select distinct name from training_sets")
            raise UnknownNameError(
                f"no training set {name if version is None else f'{name}@{version}'!r}",
                allowed=chosen_from(found for (found,) in known),
                hint="`feature-platform training-set list` shows all versions",
            )
        return _record(rows[0])

    def training_sets(self, name: str | None = None, *, limit: int | None = None) -> tuple[TrainingSetRecord, ...]:
        """Training sets, newest first, those given up included."""
        rows = self._fetch(
            f"{_SETS} where (%s::text is null or s.name = %s) order by s.ledger_seq desc limit %s", (name, name, limit)
        )
        return tuple(map(_record, rows))

    def count_code_versions(self, batch_seqs: Iterable[int]) -> dict[str, int]:
        """How many of these batches each code version computed."""
        rows = self._fetch(
            "select code_version, count(*) from unnest(%s::int8multirange) as r (numbers)"
            " join batches b on b.batch_seq >= lower(r.numbers) and b.batch_seq < upper(r.numbers)"
            " group by code_version order by min(b.batch_seq)",
            (_multirange(to_ranges(batch_seqs)),),
        )
        return dict(rows)

    def batches_numbered(self, view_key: str, numbers: Ranges) -> tuple[PublishedBatch, ...]:
        """The published batches of a view with these numbers (`seq`), by partition."""
        rows = self._fetch(
            f"select {PUBLISHED} from unnest(%s::int8multirange) as r (numbers)"
            " join published_batches b on b.batch_seq >= lower(r.numbers) and b.batch_seq < upper(r.numbers)"
            " where view = %s order by partition_start, batch_seq",
            (_multirange(numbers), view_key),
        )
        return tuple(map(read_published, rows))

    def code_versions(self, batch_ids: Iterable[str]) -> dict[str, str]:
        """The code version that computed each of these batches, by id."""
        rows = self._fetch(
            "select batch_id::text, code_version from batches where batch_id = any(%s::uuid[])", ([*batch_ids],)
        )
        return dict(rows)

    def publish_numbers(self, batch_ids: Iterable[str]) -> dict[str, int]:
        """The number of each published batch's publish, by id: what is asked `as of` an earlier one does not see it."""
        rows = self._fetch(
            "select batch_id::text, ledger_seq from batch_published where batch_id = any(%s::uuid[])", ([*batch_ids],)
        )
        return dict(rows)

    def batches_sets_need(self, view_key: str) -> Mapping[str, tuple[str, ...]]:
        """The batches of a view that kept sets need, by id, and the sets (`name@version`) that need each.

        Their rows must stay in the lake. A set that was given up needs nothing.
        """
        rows = self._fetch(
            "select batch_id::text, array_agg(name || '@' || version order by name, version)"
            " from training_set_needs where view = %s group by batch_id, batch_seq order by batch_seq",
            (view_key,),
        )
        return {batch_id: tuple(sets) for batch_id, sets in rows}


def _refuse_retired(append: Append, key: str, view: str, seqs: str) -> None:
    ((retired,),) = append.fetch(
        "select count(*) from batch_retired r join batches b using (batch_id)"
        " where r.view = %s and %s::int8multirange @> b.batch_seq",
        (view, seqs),
    )
    if retired:
        raise RowsRetiredError(
            f"training set {key} cannot be kept: what it was made of is no longer whole",
            found=f"{retired} of its batches of {view} were retired while it was made",
            hint="create it again; as of an older `at_sequence` it cannot be made any more",
        )


def _multirange(ranges: Ranges) -> str:
    """As Postgres reads an `int8multirange`.

    >>> _multirange(((1, 2), (5, 5)))
    '{[1,2],[5,5]}'
    """
    return "{" + ",".join(f"[{first},{last}]" for first, last in ranges) + "}"


def _record(row: Row) -> TrainingSetRecord:
    return TrainingSetRecord(
        name=row[0],
        version=row[1],
        ledger_seq=row[2],
        at_sequence=row[3],
        manifest=row[4],
        created_by=row[5],
        recorded_at=row[6],
        released_reason=row[7],
        released_by=row[8],
        released_at=row[9],
    )
