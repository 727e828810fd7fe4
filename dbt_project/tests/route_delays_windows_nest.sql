-- A longer window holds at least the flights of a shorter one.
select
    origin,
    dest,
    event_timestamp,
    flights_7d,
    flights_28d
from {{ this_batch(ref('route_delays', v=1)) }} as written
where flights_7d > flights_28d
