-- Profiles: what the values of each batch look like. Later batches are compared with them, and people see a history.

create table batch_profiles (
    batch_id uuid primary key references batch_computed,
    row_count bigint not null check (row_count >= 0),
    features jsonb not null,            -- per feature: nulls, distinct, min, max, mean, quantiles …
    seconds double precision not null check (seconds >= 0),
    profiled_at timestamptz not null default clock_timestamp()
);
create trigger append_only before update or delete or truncate on batch_profiles
    for each statement execute function refuse_change();

-- checks that are judged by a profile
alter table batch_checks drop constraint batch_checks_kind_check;
alter table batch_checks add constraint batch_checks_kind_check
    check (kind in ('data_test', 'expectation', 'contract', 'profile'));
