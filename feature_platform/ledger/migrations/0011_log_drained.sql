-- What each commit of a drain of the feature log took over: the lake has it too, with the rows; this is for metrics.

create table log_drained (
    store text not null,
    ledger_seq bigint primary key default ledger_seq_next(),
    entries bigint not null check (entries >= 0),       -- requests
    row_count bigint not null check (row_count >= 0),
    unreadable bigint not null check (unreadable >= 0),
    lost bigint not null check (lost >= 0),             -- removed by the stream's cap before they were drained
    dropped bigint not null check (dropped >= 0),       -- by clients, as they said
    drained_at timestamptz not null default clock_timestamp()
);
create index on log_drained (store);
create trigger append_only before update or delete or truncate on log_drained
    for each statement execute function refuse_change();
