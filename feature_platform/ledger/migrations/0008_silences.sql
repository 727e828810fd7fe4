-- Silences: for a time nobody is told of what concerns a view, a kind of problem, or both. Nothing else is hidden.

create table silences (
    silence_id uuid primary key,
    ledger_seq bigint not null unique default ledger_seq_next(),
    view text,                          -- name@version; null: every one
    kind text,                          -- of problem; null: every one
    why text not null check (why <> ''),
    made_by text not null,
    made_at timestamptz not null default clock_timestamp(),
    ends_at timestamptz not null,
    check (view is not null or kind is not null),
    check (made_at < ends_at)
);
create index on silences (ends_at);

-- ended by hand, before its time
create table silence_ended (
    silence_id uuid primary key references silences,
    ledger_seq bigint not null unique default ledger_seq_next(),
    ended_by text not null,
    ended_at timestamptz not null default clock_timestamp()
);

do $$
declare t text;
begin
    foreach t in array array['silences', 'silence_ended'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
            for each statement execute function refuse_change()', t);
    end loop;
end $$;

do $$
begin
    execute 'create or replace view ledger_events as ' || rtrim(pg_get_viewdef('ledger_events'::regclass), '; ') || $sql$
union all
select s.ledger_seq, s.made_at, 'silenced', s.view, s.silence_id::text,
       jsonb_build_object('kind', s.kind, 'why', s.why, 'by', s.made_by, 'until', s.ends_at)
from silences s
union all
select e.ledger_seq, e.ended_at, 'silence ended', s.view, s.silence_id::text, jsonb_build_object('by', e.ended_by)
from silence_ended e join silences s using (silence_id)$sql$;
end $$;
