-- A longer window rains at least as much as a shorter one (sums of doubles may differ in the last bits).
select
    origin,
    event_timestamp,
    precipitation_in_3h,
    precipitation_in_24h
from {{ this_batch(ref('airport_weather', v=1)) }} as written
where precipitation_in_3h > precipitation_in_24h + 1e-9
