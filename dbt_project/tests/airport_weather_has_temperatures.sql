-- A station may be silent or without a thermometer, but never all of them at once: then the SQL or the feed is wrong.
select
    event_timestamp,
    count(*) as airports
from {{ this_batch(ref('airport_weather', v=1)) }} as written
group by event_timestamp
having count(temperature_f) = 0
