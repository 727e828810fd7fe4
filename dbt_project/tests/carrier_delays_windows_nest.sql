-- A longer window holds at least the flights of a shorter one.
select
    carrier,
    event_timestamp,
    flights_1d,
    flights_7d,
    flights_28d
from {{ this_batch(ref('carrier_delays', v=1)) }} as written
where flights_1d > flights_7d or flights_7d > flights_28d
