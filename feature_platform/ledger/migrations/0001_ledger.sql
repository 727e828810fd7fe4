-- The ledger: an append-only record of batches and of what happened to them.
-- Every append runs under one advisory transaction lock and takes its number from `ledger_seq_next()` while it holds
-- it, so the order of numbers is the order of commits and "as of sequence n" never changes.
-- What can be derived (superseded, active, late, online_at) is derived, never recorded.

create table ledger_counter (
    only_row boolean primary key default true check (only_row),
    value bigint not null
);
insert into ledger_counter (value) values (0);

create function ledger_seq_next() returns bigint language sql as $$
    update ledger_counter set value = value + 1 returning value
$$;

create table deployments (
    ledger_seq bigint primary key default ledger_seq_next(),
    deployed_at timestamptz not null default clock_timestamp(),
    platform_version text not null,
    manifest_hash text not null,
    views jsonb not null            -- per view key: table, code version, columns, owner, declaration
);

-- opened: a run has taken the id and may write rows under it
create table batches (
    batch_id uuid primary key,
    batch_seq bigint not null unique,   -- = ledger_seq: order of opening decides which batch supersedes which
    view text not null,                 -- name@version
    partition_start timestamptz not null,
    partition_end timestamptz not null,
    grain text not null check (grain in ('hour', 'day', 'month')),
    run_id text not null,
    code_version text not null,
    opened_at timestamptz not null default clock_timestamp(),
    check (partition_start < partition_end)
);
create index batches_by_partition on batches (view, partition_start, batch_seq desc);
create index batches_by_run on batches (run_id);

-- computed: its rows are committed in the lake
create table batch_computed (
    batch_id uuid primary key references batches,
    ledger_seq bigint not null unique default ledger_seq_next(),
    computed_at timestamptz not null default clock_timestamp(),
    row_count bigint not null check (row_count >= 0),
    byte_count bigint not null check (byte_count >= 0),
    compute_seconds double precision not null check (compute_seconds >= 0),
    peak_memory_bytes bigint not null check (peak_memory_bytes >= 0),
    source_watermark timestamptz
);

-- checked: what each check said
create table batch_checks (
    batch_id uuid not null references batch_computed,
    check_name text not null,
    kind text not null check (kind in ('data_test', 'expectation', 'contract')),
    passed boolean not null,
    blocking boolean not null,
    detail jsonb not null default '{}',
    checked_at timestamptz not null default clock_timestamp(),
    primary key (batch_id, check_name)
);

-- audited: all checks that were declared have spoken
create table batch_audited (
    batch_id uuid primary key references batch_computed,
    ledger_seq bigint not null unique default ledger_seq_next(),
    audited_at timestamptz not null default clock_timestamp(),
    passed boolean not null,            -- no blocking check failed
    unique (batch_id, passed)
);

-- failed: the run gave up; the batch will never be published
create table batch_failed (
    batch_id uuid primary key references batches,
    ledger_seq bigint not null unique default ledger_seq_next(),
    failed_at timestamptz not null default clock_timestamp(),
    reason text not null
);

-- published: visible for training and sync
create table batch_published (
    batch_id uuid primary key,
    audit_passed boolean not null default true check (audit_passed),
    ledger_seq bigint not null unique default ledger_seq_next(),
    view text not null,
    position bigint not null check (position > 0),
    published_at timestamptz not null default clock_timestamp(),
    unique (view, position),
    -- the gate: only a batch whose audit passed can be published, whoever writes the row
    foreign key (batch_id, audit_passed) references batch_audited (batch_id, passed)
);
create index batch_published_by_seq on batch_published (view, ledger_seq);

create table sync_began (
    sync_id uuid primary key,
    ledger_seq bigint not null unique default ledger_seq_next(),
    view text not null,
    store text not null,
    from_position bigint not null,
    to_position bigint not null,
    server_run_id text not null,
    run_id text not null,
    began_at timestamptz not null default clock_timestamp(),
    check (from_position <= to_position)
);
create index sync_began_by_view on sync_began (view, store, to_position);

create table sync_ended (
    sync_id uuid primary key references sync_began,
    ledger_seq bigint not null unique default ledger_seq_next(),
    entities bigint not null,           -- entities the plan asserted
    written bigint not null,            -- values that changed the store
    tombstones bigint not null,         -- of those asserted, the ones asserted as "none"
    refused bigint not null,            -- the store already held a later position
    seconds double precision not null,
    ended_at timestamptz not null default clock_timestamp()
);

-- what each load of a source brought; `loaded_through` says up to which arrival instant nothing is missing
create table source_loads (
    ledger_seq bigint primary key default ledger_seq_next(),
    source text not null,
    loaded_through timestamptz not null,
    row_count bigint not null,
    watermark timestamptz,              -- newest ingested_at now in the lake
    run_id text not null,
    loaded_at timestamptz not null default clock_timestamp()
);
create index source_loads_by_source on source_loads (source, loaded_through desc);

-- alerts: opened once, resolved once
create table incidents (
    incident_id uuid primary key,
    ledger_seq bigint not null unique default ledger_seq_next(),
    kind text not null,
    subject text not null,              -- e.g. carrier_delays@1 on store default
    severity text not null check (severity in ('warn', 'error')),
    owner text not null,
    message text not null,
    opened_at timestamptz not null default clock_timestamp()
);
create table incident_resolved (
    incident_id uuid primary key references incidents,
    ledger_seq bigint not null unique default ledger_seq_next(),
    resolved_at timestamptz not null default clock_timestamp()
);

-- facts fixed once for a project, e.g. the shift of the reference project's clock
create table project_facts (
    name text primary key,
    value text not null,
    recorded_at timestamptz not null default clock_timestamp()
);

-- rows are facts: no role may change or remove them
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only: % on % refused', tg_op, tg_table_name;
end $$;

do $$
declare t text;
begin
    foreach t in array array['deployments', 'batches', 'batch_computed', 'batch_checks', 'batch_audited',
        'batch_failed', 'batch_published', 'sync_began', 'sync_ended', 'source_loads', 'incidents',
        'incident_resolved', 'project_facts'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
            for each statement execute function refuse_change()', t);
    end loop;
end $$;

-- a batch either failed or was published, never both; failed is final
create function refuse_contradiction() returns trigger language plpgsql as $$
begin
    if exists (select from batch_failed f where f.batch_id = new.batch_id) then
        raise exception 'batch % has failed: % refused', new.batch_id, tg_table_name;
    end if;
    return new;
end $$;
create trigger not_failed before insert on batch_computed for each row execute function refuse_contradiction();
create trigger not_failed before insert on batch_audited for each row execute function refuse_contradiction();
create trigger not_failed before insert on batch_published for each row execute function refuse_contradiction();

create function refuse_failing_published() returns trigger language plpgsql as $$
begin
    if exists (select from batch_published p where p.batch_id = new.batch_id) then
        raise exception 'batch % is published: it cannot fail any more', new.batch_id;
    end if;
    return new;
end $$;
create trigger not_published before insert on batch_failed
    for each row execute function refuse_failing_published();

create view published_batches as
select b.batch_id, b.batch_seq, b.view, b.partition_start, b.partition_end, b.grain, b.run_id, b.code_version,
       p.position, p.ledger_seq, c.row_count, c.byte_count, c.source_watermark,
       b.opened_at, c.computed_at, p.published_at
from batch_published p
join batches b using (batch_id)
join batch_computed c using (batch_id);

-- left behind: opened, neither published nor failed; a live run explains it, a crash leaves it
create view unfinished_batches as
select b.* from batches b
where not exists (select from batch_published p where p.batch_id = b.batch_id)
  and not exists (select from batch_failed f where f.batch_id = b.batch_id);

-- everything that happened, one line per event, for people
create view ledger_events as
select b.batch_seq as ledger_seq, b.opened_at as at, 'opened' as event, b.view, b.batch_id::text as subject,
       jsonb_build_object('partition_start', b.partition_start, 'run_id', b.run_id) as detail
from batches b
union all
select c.ledger_seq, c.computed_at, 'computed', b.view, b.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start, 'rows', c.row_count, 'bytes', c.byte_count,
                          'seconds', c.compute_seconds)
from batch_computed c join batches b using (batch_id)
union all
select a.ledger_seq, a.audited_at, case when a.passed then 'audited' else 'rejected' end, b.view, b.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start)
from batch_audited a join batches b using (batch_id)
union all
select f.ledger_seq, f.failed_at, 'failed', b.view, b.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start, 'reason', f.reason)
from batch_failed f join batches b using (batch_id)
union all
select p.ledger_seq, p.published_at, 'published', b.view, b.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start, 'position', p.position)
from batch_published p join batches b using (batch_id)
union all
select s.ledger_seq, s.began_at, 'sync began', s.view, s.sync_id::text,
       jsonb_build_object('store', s.store, 'from', s.from_position, 'to', s.to_position)
from sync_began s
union all
select e.ledger_seq, e.ended_at, 'sync ended', s.view, s.sync_id::text,
       jsonb_build_object('store', s.store, 'to', s.to_position, 'entities', e.entities, 'written', e.written,
                          'refused', e.refused)
from sync_ended e join sync_began s using (sync_id)
union all
select l.ledger_seq, l.loaded_at, 'source loaded', null, l.source,
       jsonb_build_object('loaded_through', l.loaded_through, 'rows', l.row_count)
from source_loads l
union all
select d.ledger_seq, d.deployed_at, 'deployed', null, d.manifest_hash,
       jsonb_build_object('views', (select jsonb_agg(k) from jsonb_object_keys(d.views) k))
from deployments d
union all
select i.ledger_seq, i.opened_at, 'incident opened', null, i.incident_id::text,
       jsonb_build_object('kind', i.kind, 'subject', i.subject, 'severity', i.severity)
from incidents i
union all
select r.ledger_seq, r.resolved_at, 'incident resolved', null, r.incident_id::text, '{}'
from incident_resolved r;
