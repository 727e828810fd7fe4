-- Not a record: machines whose clock differed from this database's when they last began to work. One row per machine,
-- gone when its clock is right again.
create table wrong_clocks (
    machine text primary key,
    ahead interval not null,            -- negative if it is behind
    seen_at timestamptz not null default clock_timestamp()
);
