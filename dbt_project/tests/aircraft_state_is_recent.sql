-- The last landing lies strictly before the hour, 12 hours back at most, and the minutes are counted from it.
select
    tailnum,
    event_timestamp,
    landed_at,
    minutes_since_landing
from {{ this_batch(ref('aircraft_state', v=1)) }} as written
where
    landed_at >= event_timestamp
    or landed_at < event_timestamp - interval 12 hours
    or minutes_since_landing <> date_diff('minute', landed_at, event_timestamp)
