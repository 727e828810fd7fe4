-- What an online store said of itself whenever it was asked: before and after each sync, and about once a minute.
-- Facts only. That a store was restarted, emptied or set back is derived by comparing neighbours
-- (docs/reference/ledger.md): mode `served` answers "unknown" for those times.
--
-- Growth is bounded: a look that saw exactly what the store's last row says is one small row (`same_as`, no document).

create table store_observed (
    ledger_seq bigint primary key default ledger_seq_next(),
    store text not null,
    asked_seq bigint not null,          -- the ledger's last number just before the store was asked
    asked_at timestamptz not null,      -- the ledger's clock just before the store was asked
    observed_at timestamptz not null default clock_timestamp(),
    server_run_id text,
    -- per view {"nonce": …, "position": n}, or "at_least" for n; nonce null: the store holds no position of the view
    views jsonb,
    same_as bigint references store_observed,
    sync_id uuid references sync_began, -- the sync that asked; null for a look from outside
    check ((same_as is null) = (views is not null)),
    check ((same_as is null) = (server_run_id is not null))
);
create index store_observed_by_store on store_observed (store, ledger_seq) where views is not null;
create index store_observed_repeats on store_observed (same_as, asked_at) where same_as is not null;

create trigger append_only before update or delete or truncate on store_observed
    for each statement execute function refuse_change();
