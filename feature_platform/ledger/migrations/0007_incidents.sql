-- Incidents that change while they are open, who took which notice of them, and what parity checks found.

-- an open incident got worse or better; its severity is that of its last row here, else the one it was opened with
create table incident_changed (
    ledger_seq bigint primary key default ledger_seq_next(),
    incident_id uuid not null references incidents,
    severity text not null check (severity in ('warn', 'error')),
    message text not null,
    changed_at timestamptz not null default clock_timestamp()
);
create index on incident_changed (incident_id, ledger_seq desc);
create index on incidents (kind, subject, ledger_seq desc);

-- a route took a notice; written after it did, so that a crash in between repeats a notice and loses none
create table notices_taken (
    incident_id uuid not null references incidents,
    event text not null,                -- `opened`, `error`, `reminder 1`, …, `resolved`: what the notice said
    route text not null,                -- `log`, or a hash of the route as declared: an address may be a secret
    ledger_seq bigint not null unique default ledger_seq_next(),
    taken_at timestamptz not null default clock_timestamp(),
    primary key (incident_id, event, route)
);

-- a sample of a view's entities in a store was compared with what the ledger derives for them
create table parity_checked (
    ledger_seq bigint primary key default ledger_seq_next(),
    view text not null,                 -- name@version
    store text not null,
    compared bigint not null check (compared >= 0),
    differing bigint not null check (differing between 0 and compared),
    only_late boolean not null,         -- a sync alone settles all that differs
    fraction double precision not null check (fraction > 0 and fraction <= 1),
    seed text not null,                 -- with the fraction: which entities
    outcomes jsonb not null,
    causes jsonb not null,
    seconds double precision not null,
    checked_at timestamptz not null default clock_timestamp()
);
create index on parity_checked (view, store, ledger_seq desc);

do $$
declare t text;
begin
    foreach t in array array['incident_changed', 'notices_taken', 'parity_checked'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
            for each statement execute function refuse_change()', t);
    end loop;
end $$;

-- Not a record: when a part that cannot be asked from outside last said that it lives. One row per part.
create table heartbeats (
    part text primary key,
    beat_at timestamptz not null
);

do $$
begin
    execute 'create or replace view ledger_events as ' || rtrim(pg_get_viewdef('ledger_events'::regclass), '; ') || $sql$
union all
select c.ledger_seq, c.changed_at, 'incident changed', null, c.incident_id::text,
       jsonb_build_object('severity', c.severity, 'message', c.message)
from incident_changed c
union all
select n.ledger_seq, n.taken_at, 'notice taken', null, n.incident_id::text,
       jsonb_build_object('event', n.event, 'route', n.route)
from notices_taken n
union all
select p.ledger_seq, p.checked_at, 'parity checked', p.view, p.store,
       jsonb_build_object('compared', p.compared, 'differing', p.differing, 'only_late', p.only_late)
from parity_checked p$sql$;
end $$;
