-- Pushes: rows fresher than a batch, logged here before an online store gets them.
-- A push's number is its place in the ledger: numbers of one view order its pushes as they were committed.

create table pushes (
    ledger_seq bigint primary key default ledger_seq_next(),
    view text not null,                 -- name@version
    row_count integer not null check (row_count > 0),
    newest_event timestamptz not null,  -- the greatest event_timestamp of its rows
    pushed_by text not null,
    pushed_at timestamptz not null default clock_timestamp()
);
create index on pushes (view, ledger_seq);

-- The rows, as an Arrow IPC stream. They go when they are in the lake and no store could serve them any more;
-- that they were pushed stays.
create table push_rows (
    ledger_seq bigint primary key references pushes,
    arrow bytea not null
);

-- A store has written all rows of a push. Repeated when a store was lost and got them again.
create table push_acknowledged (
    push_seq bigint not null references pushes,
    store text not null,
    ledger_seq bigint not null unique default ledger_seq_next(),
    nonce text not null,                -- of the store's push position then, and
    server_run_id text not null,        -- the server process: another one may have lost the rows
    acknowledged_at timestamptz not null default clock_timestamp(),
    primary key (push_seq, store, ledger_seq)
);
create index on push_acknowledged (store, push_seq);

do $$
declare t text;
begin
    foreach t in array array['pushes', 'push_acknowledged'] loop
        execute format('create trigger append_only before update or delete or truncate on %I
            for each statement execute function refuse_change()', t);
    end loop;
end $$;
