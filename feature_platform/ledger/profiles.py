"""Profiles: what the values of batches look like, and those of earlier batches that a new one is compared with.

Rule: only what readers see is compared with: of each partition the active batch. A batch that was published before
there were profiles has none; its rows are counted all the same. What people look at is the last attempt at each
partition, also one that failed its checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_platform.domain.batch import Batch
from feature_platform.domain.profile import BatchProfile, FeatureProfile
from feature_platform.ledger.connection import LedgerConnection, Row
from feature_platform.ledger.rows import read_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class PastBatch:
    """A published batch as later ones see it."""

    batch: Batch
    profile: BatchProfile
    """Without features, if none was kept of it or none was asked for."""
    published_at: datetime


class ProfileLedger(LedgerConnection):
    """The part of the ledger that knows profiles."""

    def record_profiles(self, profiles: Iterable[BatchProfile], *, seconds: float) -> None:
        """Keep the profiles of computed batches. Repeating the same record is harmless.

        Args:
            profiles: of the batches of one run.
            seconds: how long profiling all of them took.
        """
        rows = tuple(profiles)
        with self._append() as append:
            append.insert(
                "insert into batch_profiles (batch_id, row_count, features, seconds) values %s"
                " on conflict (batch_id) do nothing returning 1",
                [
                    (
                        one.batch_id,
                        one.row_count,
                        json.dumps({name: feature.to_json() for name, feature in one.features.items()}),
                        seconds / len(rows),
                    )
                    for one in rows
                ],
            )

    def past_before(self, view_key: str, before: datetime, *, limit: int) -> tuple[PastBatch, ...]:
        """The active batches of the last partitions that start before an instant, newest first."""
        return self._past(" and b.partition_start < %s", (before,), view_key, limit=limit)

    def past_at(self, view_key: str, starts: Iterable[datetime], *, with_features: bool) -> tuple[PastBatch, ...]:
        """The active batches of the partitions that start at these instants, newest first."""
        return self._past(" and b.partition_start = any(%s)", ([*starts],), view_key, with_features=with_features)

    def first_with_rows(self, view_key: str) -> datetime | None:
        """The start of the first partition with a published batch that has rows; None: there is none."""
        start: datetime | None = self._fetch_value(
            "select min(partition_start) from published_batches where view = %s and row_count > 0", (view_key,)
        )
        return start

    def past_of_training_set(self, key: str, view_key: str, *, limit: int) -> tuple[PastBatch, ...] | None:
        """Batches of a view that a kept training set was made of, evenly spread over time; None: no such set is kept.

        Args:
            key: `name@version`; a name alone is its newest version.
            view_key: the view.
            limit: how many at most.
        """
        name, _, version = key.partition("@")
        wanted = int(version.removeprefix("v")) if version.removeprefix("v").isdigit() else None
        sets = self._fetch(
            "select s.name, s.version from training_sets s where s.name = %s and (%s::int is null or s.version = %s)"
            " and not exists (select from training_set_released r where r.name = s.name and r.version = s.version)"
            " order by s.version desc limit 1",
            (name, wanted, wanted),
        )
        if not sets or bool(version) != (wanted is not None):
            return None
        numbered = self._fetch(
            "select b.batch_id, row_number() over (order by b.partition_start, b.batch_seq) as place,"
            " count(*) over () as total from training_set_needs n join batches b using (batch_id)"
            " where n.name = %s and n.version = %s and n.view = %s",
            (*sets[0], view_key),
        )
        step = max(1, -(-len(numbered) // limit))
        chosen = [str(batch_id) for batch_id, place, _ in numbered if (place - 1) % step == 0]
        return self._past(" and b.batch_id = any(%s::uuid[])", (chosen,), view_key, is_active=False)

    def last_attempts(self, view_key: str, *, last: int) -> tuple[str, ...]:
        """Ids of the last attempts at the last so many partitions of a view that were computed, oldest first."""
        found = self._fetch(
            "select distinct on (partition_start) batch_id::text from batches join batch_computed using (batch_id)"
            " where view = %s order by partition_start desc, batch_seq desc limit %s",
            (view_key, last),
        )
        return tuple(batch_id for (batch_id,) in reversed(found))

    def profiles(self, batch_ids: Iterable[str]) -> dict[str, BatchProfile]:
        """What the rows of these batches look like, by id, as far as they were computed.

        One that was computed before there were profiles has no features.
        """
        rows = self._fetch(
            "select c.batch_id::text, c.row_count, f.features from batch_computed c left join batch_profiles f"
            " using (batch_id) where c.batch_id = any(%s::uuid[])",
            ([*batch_ids],),
        )
        return {row[0]: _profile(*row) for row in rows}

    def _past(
        self,
        condition: str,
        parameters: Sequence[object],
        view_key: str,
        *,
        limit: int | None = None,
        with_features: bool = True,
        is_active: bool = True,
    ) -> tuple[PastBatch, ...]:
        distinct = "distinct on (b.partition_start)" if is_active else ""
        features = "f.features" if with_features else "null"
        rows = self._fetch(
            f"select {distinct} b.batch_id::text, b.batch_seq, b.view, b.partition_start, b.partition_end, b.grain,"
            f" p.published_at, c.row_count, {features} from batches b join batch_published p using (batch_id)"
            " join batch_computed c using (batch_id) left join batch_profiles f using (batch_id)"
            f" where b.view = %s{condition} order by b.partition_start desc, b.batch_seq desc limit %s",
            (view_key, *parameters, limit),
        )
        return tuple(map(_read, rows))


def _read(row: Row) -> PastBatch:
    return PastBatch(batch=read_batch(row), published_at=row[6], profile=_profile(row[0], row[7], row[8]))


def _profile(batch_id: str, row_count: int, features: Mapping[str, Mapping[str, Any]] | None) -> BatchProfile:
    known = {name: FeatureProfile.from_json(one) for name, one in (features or {}).items()}
    return BatchProfile(batch_id=batch_id, row_count=row_count, features=known)
