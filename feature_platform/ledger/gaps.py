"""Partitions of which something is missing: no batch was ever opened, or the last ones were cut off with their runs.

Rule: what was found bad is no gap. A partition whose batch failed a check stays as it is until somebody changed the
model or the source; computing the same rows again would say the same.
"""

from __future__ import annotations

from datetime import datetime

from feature_platform.domain.windows import Partition, partition_starting
from feature_platform.ledger.connection import LedgerConnection

_HERE = "view = %(view)s and partition_start = started at time zone 'UTC'"


class GapLedger(LedgerConnection):
    """The part of the ledger that knows what was not made."""

    def never_begun(self, view_key: str, first: Partition, last: Partition) -> tuple[Partition, ...]:
        """The partitions from one to another that no batch was ever opened for, in order of time."""
        return self._partitions(
            first,
            "from generate_series(%(first)s::timestamp, %(last)s::timestamp, %(step)s::interval) started"
            f" where not exists (select from batches where {_HERE})",
            # by the clock of UTC: months of `timestamptz` would be those of the session's zone
            first=first.start.replace(tzinfo=None),
            last=last.start.replace(tzinfo=None),
            step=f"1 {first.grain.value}",
            view=view_key,
        )

    def cut_off(
        self, view_key: str, first: Partition, last: Partition, *, before: datetime, attempts: int, again: bool
    ) -> tuple[Partition, ...]:
        """The partitions from one to another whose last batches were given up with their runs, in order of time.

        Args:
            view_key: `name@version`.
            first: the oldest partition to look at.
            last: the newest.
            before: the last of these batches was given up before that instant.
            attempts: there are fewer of them in a row than that.
            again: also where they were to replace a batch that is published; otherwise only where there is none.
        """
        return self._partitions(
            first,
            # begins with what was cut off, which is little, and not with every partition since the first deploy
            "from (select distinct partition_start at time zone 'UTC' as started"
            " from batches join batch_failed using (batch_id)"
            " where interrupted and view = %(view)s and partition_start between %(first)s and %(last)s) gaps"
            " cross join lateral (select max(batch_seq) as seq from batches left join batch_failed using (batch_id)"
            f" where {_HERE} and interrupted is not true) other"
            " cross join lateral (select count(*) as attempts, max(failed_at) as given_up_at"
            " from batches join batch_failed using (batch_id)"
            f" where {_HERE} and batch_seq > coalesce(other.seq, 0)) cut"
            " where attempts between 1 and %(attempts)s - 1 and given_up_at < %(before)s"
            " and (other.seq is null or %(again)s and exists"
            " (select from batches join batch_published using (batch_id) where batch_seq = other.seq))",
            first=first.start,
            last=last.start,
            view=view_key,
            before=before,
            attempts=attempts,
            again=again,
        )

    def _partitions(self, like: Partition, rest: str, **parameters: object) -> tuple[Partition, ...]:
        rows = self._fetch(f"select started at time zone 'UTC' {rest} order by started", parameters)
        return tuple(partition_starting(row[0], like.grain) for row in rows)
