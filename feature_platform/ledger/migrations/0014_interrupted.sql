-- Whether a batch was given up because its run ended without it, and not because it was found bad: such a partition may be
-- computed again by itself.
alter table batch_failed add column interrupted boolean not null default false;   -- false: failed, or not known (older)
