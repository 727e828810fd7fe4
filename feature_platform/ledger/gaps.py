"""Partitions of which something is missing: no batch was ever opened, or the last ones were cut off with their runs.

Rule: what was found bad is no gap. A partition whose batch failed a check stays as it is until somebody changed the
model or the source; computing the same rows again would say the same.
"""

from __future__ import annotations

from datetime import datetime

from feature_platform.domain.windows import Partition, partition_starting
from feature_platform.ledger.connection import LedgerConnection

_EVERY = (
    "select started at time zone 'UTC'"
    " from generate_series(%(first)s::timestamp, %(last)s::timestamp, %(step)s::interval) started"
)
_BATCHES_HERE = (
    "from batches left join batch_failed failed using (batch_id)"
    " where view = %(view)s and partition_start = started at time zone 'UTC'"
)


class GapLedger(LedgerConnection):
    """The part of the ledger that knows what was not made."""

    def never_begun(self, view_key: str, first: Partition, last: Partition) -> tuple[Partition, ...]:
        """The partitions from one to another that no batch was ever opened for, in order of time."""
        return self._gaps(f"where not exists (select {_BATCHES_HERE})", view_key, first, last)

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
        return self._gaps(
            "cross join lateral"
            f" (select max(batch_seq) as seq {_BATCHES_HERE} and failed.interrupted is not true) other"
            " cross join lateral"
            f" (select count(*) as attempts, max(failed.failed_at) as given_up_at {_BATCHES_HERE}"
            " and batch_seq > coalesce(other.seq, 0)) cut"
            " where cut.attempts between 1 and %(attempts)s - 1 and cut.given_up_at < %(before)s"
            " and (other.seq is null or %(again)s and exists ("
            "select from batches join batch_published using (batch_id) where batch_seq = other.seq))",
            view_key,
            first,
            last,
            before=before,
            attempts=attempts,
            again=again,
        )

    def _gaps(
        self, condition: str, view_key: str, first: Partition, last: Partition, **parameters: object
    ) -> tuple[Partition, ...]:
        found = self._fetch(
            f"{_EVERY} {condition} order by started",
            {
                "first": _by_utc(first),
                "last": _by_utc(last),
                "step": f"1 {first.grain.value}",
                "view": view_key,
                **parameters,
            },
        )
        return tuple(partition_starting(row[0], first.grain) for row in found)


def _by_utc(partition: Partition) -> str:
    """Its start by the clock of UTC: months of `timestamptz` would be those of the session's zone."""
    return partition.start.replace(tzinfo=None).isoformat()
