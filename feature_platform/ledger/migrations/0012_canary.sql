-- What became of values that the platform wrote, synced and read for no other reason than to see that this works.

create table canary_reads (
    ledger_seq bigint primary key default ledger_seq_next(),
    store text not null,
    batch_id uuid references batches,   -- with the value; null: none could be opened
    written_at timestamptz not null,    -- the value's event time
    online_at timestamptz,              -- the sync that brought it had ended; null: it did not
    read_at timestamptz,                -- a client had the answer; null: it had none
    failed_at text check (failed_at in ('write', 'sync', 'read', 'compare')),   -- null: it was read as it was written
    failure text,                       -- what differed, or why there is no answer
    recorded_at timestamptz not null default clock_timestamp(),
    check ((failed_at is null) = (failure is null)),
    check (failed_at is not null or read_at is not null)
);
create index on canary_reads (store, ledger_seq desc);
create index on canary_reads (store, written_at desc) where failed_at is null;
create trigger append_only before update or delete or truncate on canary_reads
    for each statement execute function refuse_change();
