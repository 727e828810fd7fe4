-- What a batch and a sync cost: processor seconds, and bytes on the wire.

-- Of its run, from its beginning until the batch was audited or given up; a run of many divides its seconds by rows.
create table batch_costs (
    batch_id uuid primary key references batches,
    ledger_seq bigint not null unique default ledger_seq_next(),
    cpu_seconds double precision not null check (cpu_seconds >= 0)
);
create trigger append_only before update or delete or truncate on batch_costs
    for each statement execute function refuse_change();

alter table sync_ended add column bytes_sent bigint check (bytes_sent >= 0);   -- null: it ended before they were counted
