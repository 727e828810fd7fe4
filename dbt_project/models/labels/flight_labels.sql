with

flights as (

    select * from {{ ref('stg_flights') }}

),

flight_labels as (

    select
        -- as asked one hour before the scheduled departure
        scheduled_departure_at - interval 1 hour as event_timestamp,
        flight_id,
        carrier,
        origin,
        dest,
        tailnum,
        left_late
    from flights
    -- a cancelled flight was neither late nor on time
    where left_late is not null

)

select * from flight_labels
