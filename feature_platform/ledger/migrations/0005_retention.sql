-- Retired batches: their rows go. Recorded before the first row is deleted, so whoever reads rows and then asks whether
-- the batches were retired knows whether the rows were all there.

create table batch_retired (
    batch_id uuid primary key references batches,
    ledger_seq bigint not null unique default ledger_seq_next(),
    view text not null,                 -- name@version
    reason text not null check (reason in ('superseded', 'never published')),
    retired_at timestamptz not null default clock_timestamp()
);
create index batch_retired_by_view on batch_retired (view, ledger_seq);

-- the deletion is committed in the lake; without this record maintenance looks for the rows again
create table batch_deleted (
    batch_id uuid primary key references batch_retired,
    ledger_seq bigint not null unique default ledger_seq_next(),
    row_count bigint not null check (row_count >= 0),
    deleted_at timestamptz not null default clock_timestamp()
);

do $$
declare t text;
begin
    foreach t in array array['batch_retired', 'batch_deleted'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
            for each statement execute function refuse_change()', t);
    end loop;
end $$;

-- what somebody sees, may see or needs is never retired, whoever writes the row
create function refuse_retiring() returns trigger language plpgsql as $$
begin
    if exists (select from batch_published p where p.batch_id = new.batch_id) and not exists (
        select from batches b
        join batches later on later.view = b.view and later.partition_start = b.partition_start
            and later.batch_seq > b.batch_seq
        join batch_published p on p.batch_id = later.batch_id
        where b.batch_id = new.batch_id) then
        raise exception 'batch % is active: it cannot be retired', new.batch_id;
    end if;
    if exists (select from held_batches h where h.batch_id = new.batch_id) then
        raise exception 'batch % waits for approval: it cannot be retired', new.batch_id;
    end if;
    if exists (select from training_set_needs n where n.batch_id = new.batch_id) then
        raise exception 'batch % is needed by a kept training set: it cannot be retired', new.batch_id;
    end if;
    return new;
end $$;
create trigger nobody_needs_it before insert on batch_retired for each row execute function refuse_retiring();

-- a retired batch has come to its end
create function refuse_retired() returns trigger language plpgsql as $$
begin
    if exists (select from batch_retired r where r.batch_id = new.batch_id) then
        raise exception 'batch % was retired: % refused', new.batch_id, tg_table_name;
    end if;
    return new;
end $$;
do $$
declare t text;
begin
    foreach t in array array['batch_computed', 'batch_audited', 'batch_held', 'batch_published'] loop
        execute format('create trigger not_retired before insert on %I
            for each row execute function refuse_retired()', t);
    end loop;
end $$;

-- of a training set that is recorded and a batch of it that is retired, the second is refused
create function refuse_retired_needs() returns trigger language plpgsql as $$
begin
    if exists (
        select from batch_retired r join batches b using (batch_id)
        where b.view = new.view and new.batch_seqs @> b.batch_seq) then
        raise exception 'a batch of %, which training set %@% needs, was retired', new.view, new.name, new.version;
    end if;
    return new;
end $$;
create trigger nothing_retired before insert on training_set_batches
    for each row execute function refuse_retired_needs();

create or replace view published_batches as
select b.batch_id, b.batch_seq, b.view, b.partition_start, b.partition_end, b.grain, b.run_id, b.code_version,
       p.position, p.ledger_seq, c.row_count, c.byte_count, c.source_watermark,
       b.opened_at, c.computed_at, p.published_at, r.ledger_seq as retired_seq
from batch_published p
join batches b using (batch_id)
join batch_computed c using (batch_id)
left join batch_retired r using (batch_id);

create or replace view unfinished_batches as
select b.* from batches b
where not exists (select from batch_published p where p.batch_id = b.batch_id)
  and not exists (select from batch_failed f where f.batch_id = b.batch_id)
  and not exists (select from batch_held h where h.batch_id = b.batch_id)
  and not exists (select from batch_retired r where r.batch_id = b.batch_id);

-- added to what the view says already, so that migrations need not know of each other
do $$
begin
    execute 'create or replace view ledger_events as ' || rtrim(pg_get_viewdef('ledger_events'::regclass), '; ') || $sql$
union all
select r.ledger_seq, r.retired_at, 'retired', r.view, r.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start, 'reason', r.reason)
from batch_retired r join batches b using (batch_id)
union all
select d.ledger_seq, d.deleted_at, 'rows deleted', b.view, d.batch_id::text,
       jsonb_build_object('partition_start', b.partition_start, 'rows', d.row_count)
from batch_deleted d join batches b using (batch_id)$sql$;
end $$;
