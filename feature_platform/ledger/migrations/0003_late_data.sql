-- Late data: what each batch has read of its sources, scans for rows that arrived too late, batches held for approval.
-- Whether a partition is late now, and what became of it, is derived (ledger/late.py), never recorded.

-- what a batch could read of one source, taken at the snapshot before its SQL ran
create table batch_reads (
    batch_id uuid not null references batch_computed,
    source text not null,
    watermark timestamptz,              -- newest arrival among the rows before the partition's end; null: there were none
    lookback_seconds double precision check (lookback_seconds >= 0),    -- null: not known, then everything before
    primary key (batch_id, source)
);

-- one look at the rows of a source that arrived in (arrived_after, arrived_through]; scans of a source are one chain
create table late_scans (
    ledger_seq bigint primary key default ledger_seq_next(),
    source text not null,
    arrived_after timestamptz not null,
    arrived_through timestamptz not null,
    row_count bigint not null,          -- rows that arrived in the interval
    overdue_rows bigint not null,       -- of these, longer after their event time than the declared reporting_lag
    lag_p50_seconds double precision,   -- from event time to arrival; null without rows
    lag_p90_seconds double precision,
    lag_p99_seconds double precision,
    lag_max_seconds double precision,
    seconds double precision not null,
    run_id text not null,
    scanned_at timestamptz not null default clock_timestamp(),
    check (arrived_after < arrived_through),
    unique (source, arrived_after)
);

-- of a scan, what concerned partitions of a view that were computed already
create table late_scan_views (
    ledger_seq bigint not null references late_scans,
    view text not null,
    row_count bigint not null,          -- rows that at least one of the partitions had not read
    partitions bigint not null,
    lag_p50_seconds double precision not null,
    lag_p90_seconds double precision not null,
    lag_p99_seconds double precision not null,
    lag_max_seconds double precision not null,
    primary key (ledger_seq, view)
);

create table late_partitions (
    ledger_seq bigint not null references late_scans,
    view text not null,
    partition_start timestamptz not null,
    partition_end timestamptz not null,
    grain text not null check (grain in ('hour', 'day', 'month')),
    row_count bigint not null check (row_count > 0),
    oldest_event timestamptz not null,
    first_arrival timestamptz not null,
    last_arrival timestamptz not null,
    lag_max_seconds double precision not null,
    primary key (ledger_seq, view, partition_start)
);
create index late_partitions_by_partition on late_partitions (view, partition_start);

-- held: audited and not published until somebody approves; the batch before it keeps serving and training
create table batch_held (
    batch_id uuid primary key,
    audit_passed boolean not null default true check (audit_passed),
    ledger_seq bigint not null unique default ledger_seq_next(),
    held_at timestamptz not null default clock_timestamp(),
    foreign key (batch_id, audit_passed) references batch_audited (batch_id, passed)
);

-- rejected: a held batch that will never be published
create table batch_rejected (
    batch_id uuid primary key references batch_held,
    ledger_seq bigint not null unique default ledger_seq_next(),
    rejected_at timestamptz not null default clock_timestamp(),
    reason text not null
);

do $$
declare t text;
begin
    foreach t in array array['batch_reads', 'late_scans', 'late_scan_views', 'late_partitions', 'batch_held',
        'batch_rejected'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
            for each statement execute function refuse_change()', t);
    end loop;
end $$;

create trigger not_failed before insert on batch_held for each row execute function refuse_contradiction();
create trigger not_published before insert on batch_held for each row execute function refuse_failing_published();
create trigger not_published before insert on batch_rejected for each row execute function refuse_failing_published();

create function refuse_rejected() returns trigger language plpgsql as $$
begin
    if exists (select from batch_rejected r where r.batch_id = new.batch_id) then
        raise exception 'batch % was rejected: % refused', new.batch_id, tg_table_name;
    end if;
    return new;
end $$;
create trigger not_rejected before insert on batch_published for each row execute function refuse_rejected();

create function refuse_failing_held() returns trigger language plpgsql as $$
begin
    if exists (select from batch_held h where h.batch_id = new.batch_id) then
        raise exception 'batch % is held: it can be approved or rejected, it cannot fail any more', new.batch_id;
    end if;
    return new;
end $$;
create trigger not_held before insert on batch_failed for each row execute function refuse_failing_held();

-- waiting for a decision: held, neither rejected nor published, and no later batch of the partition was
create view held_batches as
select b.*, c.row_count, c.byte_count, c.compute_seconds, h.held_at
from batch_held h
join batches b using (batch_id)
join batch_computed c using (batch_id)
where not exists (select from batch_rejected r where r.batch_id = h.batch_id)
  and not exists (
    select from batches later
    join batch_published p on p.batch_id = later.batch_id
    where later.view = b.view and later.partition_start = b.partition_start and later.batch_seq >= b.batch_seq)
  and not exists (
    select from batches later
    join batch_held newer on newer.batch_id = later.batch_id
    where later.view = b.view and later.partition_start = b.partition_start and later.batch_seq > b.batch_seq);

create or replace view unfinished_batches as
select b.* from batches b
where not exists (select from batch_published p where p.batch_id = b.batch_id)
  and not exists (select from batch_failed f where f.batch_id = b.batch_id)
  and not exists (select from batch_held h where h.batch_id = b.batch_id);

-- added to what the view says already, so that migrations need not know of each other
do $$
begin
    execute 'create or replace view ledger_events as ' || rtrim(pg_get_viewdef('ledger_events'::regclass), '; ') || $sql$
union all
select h.ledger_seq, h.held_at, 'held', b.view, b.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start)
from batch_held h join batches b using (batch_id)
union all
select r.ledger_seq, r.rejected_at, 'held batch rejected', b.view, b.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start, 'reason', r.reason)
from batch_rejected r join batches b using (batch_id)
union all
select s.ledger_seq, s.scanned_at, 'late rows looked for', null, s.source,
       jsonb_build_object('arrived_after', s.arrived_after, 'arrived_through', s.arrived_through,
                          'rows', s.row_count, 'overdue', s.overdue_rows)
from late_scans s
union all
select v.ledger_seq, s.scanned_at, 'late rows found', v.view, s.source,
       jsonb_build_object('rows', v.row_count, 'partitions', v.partitions, 'lag_max_seconds', v.lag_max_seconds)
from late_scan_views v join late_scans s using (ledger_seq)$sql$;
end $$;
