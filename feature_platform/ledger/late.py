"""Late data in the ledger: what batches have read, scans and what they found, and which partitions are late now.

Rule: a scan is recorded once, as the next link of its source's chain; of two scans of the same rows the second records
nothing. Late is derived: rows that a scan found, and that the partition's active batch has not read.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta

from feature_platform.domain.late_data import ComputedPartition, Lags, LatePartition, LateScan
from feature_platform.domain.windows import Grain, Partition
from feature_platform.ledger.connection import Append, LedgerConnection, Row

_NEVER = datetime(1, 1, 1, tzinfo=UTC)


class LateLedger(LedgerConnection):
    """The part of the ledger that knows late data."""

    # -- scans --------------------------------------------------------------------------------------------------

    def scanned_through(self, source: str) -> datetime | None:
        """Up to which arrival instant late rows of a source were looked for; None if never."""
        found: datetime | None = self._fetch_value(
            "select max(arrived_through) from late_scans where source = %s", (source,)
        )
        return found

    def computed_partitions(self, view_key: str, source: str) -> tuple[ComputedPartition, ...]:
        """The partitions for which rows of a source can come too late, by partition.

        A batch that is being computed counts too: it may take its snapshot before the rows are there and be published
        after they were looked for. A batch opened after this question reads all that the ledger called loaded before.
        """
        rows = self._fetch(_COMPUTED, (view_key, view_key, source, source, view_key))
        loads = self._loads(source)
        found: dict[Partition, ComputedPartition] = {}
        for start, end, grain, seq, is_read, watermark, lookback in rows:
            partition = Partition(start=start, end=end, grain=Grain(grain))
            one = ComputedPartition(
                partition=partition,
                seen_through=watermark if is_read else _loaded_at(loads, seq),
                lookback=None if lookback is None else timedelta(seconds=lookback),
            )
            found[partition] = _either(found[partition], one) if partition in found else one
        return tuple(found[partition] for partition in sorted(found))

    def oldest_reading(self, view_key: str, source: str) -> datetime | None:
        """An arrival instant up to which every computed partition of the view has read the source; None without any.

        What a batch reads is at least what was loaded when it was opened.
        """
        seq = self._fetch_value(f"select min(batch_seq) from ({_CURRENT}) as current", (view_key, view_key))
        return None if seq is None else _loaded_at(self._loads(source), seq) or _NEVER

    def record_scan(self, scan: LateScan, *, run_id: str, previous: datetime | None) -> int | None:
        """Record a scan; its number, or None if another one, which has looked at the same rows, came first.

        Args:
            scan: what was found.
            run_id: who looked.
            previous: `scanned_through` as it was before the scan.
        """
        with self._append() as append:
            ((last,),) = append.fetch("select max(arrived_through) from late_scans where source = %s", (scan.source,))
            if last != previous:
                return None
            (number,) = append.take_numbers(1)
            _insert_scan(append, scan, number, run_id)
        return number

    def scans(self, source: str | None = None, *, limit: int | None = None) -> tuple[LateScan, ...]:
        """Recorded scans, newest first, without what they found of partitions (`late_partitions`)."""
        rows = self._fetch(
            "select source, arrived_after, arrived_through, row_count, overdue_rows, lag_p50_seconds, lag_p90_seconds,"
            " lag_p99_seconds, lag_max_seconds, seconds, ledger_seq, scanned_at from late_scans"
            " where %s::text is null or source = %s order by ledger_seq desc limit %s",
            (source, source, limit),
        )
        return tuple(
            LateScan(
                source=row[0],
                arrived_after=row[1],
                arrived_through=row[2],
                row_count=row[3],
                overdue_rows=row[4],
                lags=None if row[5] is None else _lags(row[5:9]),
                views=(),
                seconds=row[9],
                ledger_seq=row[10],
                scanned_at=row[11],
            )
            for row in rows
        )

    def late_totals(self, view_key: str) -> tuple[int, timedelta | None]:
        """How many rows ever came late for a view, and the longest lag among them."""
        ((count, longest),) = self._fetch(
            "select coalesce(sum(row_count), 0), max(lag_max_seconds) from late_scan_views where view = %s", (view_key,)
        )
        return int(count), None if longest is None else timedelta(seconds=longest)

    def late_lags(self, view_key: str) -> Lags | None:
        """How late the rows were that the last look found to be late for a view; None if none ever did."""
        rows = self._fetch(
            "select lag_p50_seconds, lag_p90_seconds, lag_p99_seconds, lag_max_seconds from late_scan_views"
            " where view = %s order by ledger_seq desc limit 1",
            (view_key,),
        )
        return _lags(rows[0]) if rows else None

    # -- what is late now ---------------------------------------------------------------------------------------

    def late_partitions(self, view_key: str) -> tuple[LatePartition, ...]:
        """The view's partitions whose active batch has not read rows that it may read, by partition."""
        rows = self._fetch(_LATE, (view_key, view_key))
        return tuple(
            LatePartition(
                view=view_key,
                partition=Partition(start=row[0], end=row[1], grain=Grain(row[2])),
                sources=tuple(row[3]),
                row_count=int(row[4]),
                oldest_event=row[5],
                first_arrival=row[6],
                last_arrival=row[7],
                longest_lag=timedelta(seconds=row[8]),
                found_seq=row[9],
                found_at=row[10],
                active_batch=row[11],
                active_rows=row[12],
                compute_seconds=row[13],
                attempt=row[14],
                attempt_batch=row[15],
            )
            for row in rows
        )

    def _loads(self, source: str) -> list[tuple[int, datetime]]:
        """(number of a load, how far the source was loaded from then on), in order."""
        return [
            (number, through)
            for number, through in self._fetch(
                "select ledger_seq, max(loaded_through) over (order by ledger_seq) from source_loads where source = %s"
                " order by ledger_seq",
                (source,),
            )
        ]


# the batches that count: of each partition the active one, and those opened after it that may yet be published
_CURRENT = """
select b.batch_id, b.batch_seq, b.view, b.partition_start, b.partition_end, b.grain, b.code_version
from batches b
left join (
    select distinct on (partition_start) partition_start, batch_seq
    from published_batches where view = %s order by partition_start, batch_seq desc
) active on active.partition_start = b.partition_start
where b.view = %s and b.batch_seq >= coalesce(active.batch_seq, 0)
  and not exists (select from batch_failed f where f.batch_id = b.batch_id)
  and not exists (select from batch_rejected r where r.batch_id = b.batch_id)
"""

# a batch that has not run yet will reach as far back as the last one of the same code
_COMPUTED = f"""
select c.partition_start, c.partition_end, c.grain, c.batch_seq, r.batch_id is not null, r.watermark,
       case when r.batch_id is not null then r.lookback_seconds else same.lookback_seconds end
from ({_CURRENT}) c
left join batch_reads r on r.batch_id = c.batch_id and r.source = %s
left join (
    select distinct on (b.code_version) b.code_version, r.lookback_seconds
    from batch_reads r join batches b using (batch_id)
    where r.source = %s and b.view = %s order by b.code_version, b.batch_seq desc
) same on same.code_version = c.code_version and not exists (select from batch_computed k where k.batch_id = c.batch_id)
"""

# a batch has read what a scan found if it was opened after the scan, or if its watermark says so
_LATE = """
with active as (
    select distinct on (partition_start) * from published_batches
    where view = %s order by partition_start, batch_seq desc
),
late as (
    select f.*, s.source, s.scanned_at, a.batch_id as active_batch, a.batch_seq as active_seq,
           a.row_count as active_rows,
           (select max(b.batch_seq) from batches b
            where b.view = f.view and b.partition_start = f.partition_start) as tried_seq
    from late_partitions f
    join late_scans s using (ledger_seq)
    join active a on a.partition_start = f.partition_start
    left join batch_reads r on r.batch_id = a.batch_id and r.source = s.source
    where f.view = %s and a.batch_seq < f.ledger_seq
      and not (r.batch_id is not null and coalesce(r.watermark >= f.last_arrival, false))
),
partitions as (
    select partition_start, partition_end, grain, array_agg(distinct source order by source) as sources,
           sum(row_count) as row_count, min(oldest_event) as oldest_event, min(first_arrival) as first_arrival,
           max(last_arrival) as last_arrival, max(lag_max_seconds) as lag_max_seconds, max(ledger_seq) as found_seq,
           coalesce(min(scanned_at) filter (where ledger_seq > tried_seq), max(scanned_at)) as found_at, active_batch,
           active_seq, active_rows, max(view) as view
    from late group by partition_start, partition_end, grain, active_batch, active_seq, active_rows
)
select p.partition_start, p.partition_end, p.grain, p.sources, p.row_count, p.oldest_event, p.first_arrival,
       p.last_arrival, p.lag_max_seconds, p.found_seq, p.found_at, p.active_batch::text, p.active_rows,
       c.compute_seconds, attempt.state, attempt.batch_id::text
from partitions p
join batch_computed c on c.batch_id = p.active_batch
left join lateral (
    select b.batch_id, case
        when exists (select from batch_rejected x where x.batch_id = b.batch_id) then 'rejected'
        when exists (select from batch_held x where x.batch_id = b.batch_id) then 'held'
        when exists (select from batch_failed x where x.batch_id = b.batch_id) then 'failed'
        else 'running' end as state
    from batches b
    where b.view = p.view and b.partition_start = p.partition_start and b.batch_seq > p.active_seq
      and not exists (
        select from late l left join batch_reads r on r.batch_id = b.batch_id and r.source = l.source
        where l.partition_start = p.partition_start and l.ledger_seq > b.batch_seq
          and not coalesce(r.watermark >= l.last_arrival, false))
    order by b.batch_seq desc limit 1
) attempt on true
order by p.partition_start
"""


def _insert_scan(append: Append, scan: LateScan, number: int, run_id: str) -> None:
    append.insert(
        "insert into late_scans (ledger_seq, source, arrived_after, arrived_through, row_count, overdue_rows,"
        " lag_p50_seconds, lag_p90_seconds, lag_p99_seconds, lag_max_seconds, seconds, run_id) values %s returning 1",
        [
            (
                number,
                scan.source,
                scan.arrived_after,
                scan.arrived_through,
                scan.row_count,
                scan.overdue_rows,
                *(_seconds(scan.lags) if scan.lags else (None,) * 4),
                scan.seconds,
                run_id,
            )
        ],
    )
    append.insert(
        "insert into late_scan_views (ledger_seq, view, row_count, partitions, lag_p50_seconds, lag_p90_seconds,"
        " lag_p99_seconds, lag_max_seconds) values %s returning 1",
        [(number, one.view, one.row_count, len(one.partitions), *_seconds(one.lags)) for one in scan.views],
    )
    append.insert(
        "insert into late_partitions (ledger_seq, view, partition_start, partition_end, grain, row_count,"
        " oldest_event, first_arrival, last_arrival, lag_max_seconds) values %s returning 1",
        [
            (
                number,
                late.view,
                late.partition.start,
                late.partition.end,
                late.partition.grain.value,
                late.row_count,
                late.oldest_event,
                late.first_arrival,
                late.last_arrival,
                late.longest_lag.total_seconds(),
            )
            for one in scan.views
            for late in one.partitions
        ],
    )


def _loaded_at(loads: list[tuple[int, datetime]], seq: int) -> datetime | None:
    """How far the source was loaded when the batch of this number was opened."""
    before = bisect_left(loads, (seq, _NEVER))
    return loads[before - 1][1] if before else None


def _either(one: ComputedPartition, other: ComputedPartition) -> ComputedPartition:
    """What can come too late for either of two batches of one partition."""
    seen = (one.seen_through, other.seen_through)
    reach = (one.lookback, other.lookback)
    return ComputedPartition(
        partition=one.partition,
        seen_through=None if None in seen else min(at for at in seen if at is not None),
        lookback=None if None in reach else max(length for length in reach if length is not None),
    )


def _seconds(lags: Lags) -> tuple[float, ...]:
    return tuple(lag.total_seconds() for lag in (lags.p50, lags.p90, lags.p99, lags.longest))


def _lags(row: Row) -> Lags:
    p50, p90, p99, longest = (timedelta(seconds=value) for value in row)
    return Lags(p50=p50, p90=p90, p99=p99, longest=longest)
