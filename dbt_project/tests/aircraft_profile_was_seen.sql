-- An aircraft is in a snapshot only if it was seen by then.
select
    tailnum,
    event_timestamp,
    seen_since
from {{ this_batch(ref('aircraft_profile', v=1)) }} as written
where seen_since > event_timestamp
