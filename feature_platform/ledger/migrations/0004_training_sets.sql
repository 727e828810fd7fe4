-- Kept training sets: of what each was made, so that it can be made again, and which were given up.
-- A set needs the rows of its batches for as long as it is kept: `training_set_needs` is what retention asks.

create table training_sets (
    name text not null,
    version integer not null check (version > 0),
    ledger_seq bigint not null unique default ledger_seq_next(),
    at_sequence bigint not null,        -- the state of the ledger that decided which batches were visible
    manifest jsonb not null,
    created_by text not null,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (name, version)
);

-- the batches whose rows the join could see, by their numbers: those of one backfill are one range
create table training_set_batches (
    name text not null,
    version integer not null,
    view text not null,                 -- name@version
    batch_seqs int8multirange not null,
    primary key (name, version, view),
    foreign key (name, version) references training_sets
);

-- given up: its batches may go; the record and the files stay
create table training_set_released (
    name text not null,
    version integer not null,
    ledger_seq bigint not null unique default ledger_seq_next(),
    reason text not null,
    released_by text not null,
    released_at timestamptz not null default clock_timestamp(),
    primary key (name, version),
    foreign key (name, version) references training_sets
);

do $$
declare t text;
begin
    foreach t in array array['training_sets', 'training_set_batches', 'training_set_released'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
            for each statement execute function refuse_change()', t);
    end loop;
end $$;

create view training_set_needs as
select b.batch_id, b.batch_seq, b.view, s.name, s.version
from training_set_batches s
cross join lateral unnest(s.batch_seqs) as r (numbers)
join batches b on b.view = s.view and b.batch_seq >= lower(r.numbers) and b.batch_seq < upper(r.numbers)
where not exists (select from training_set_released g where g.name = s.name and g.version = s.version);
