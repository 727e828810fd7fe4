with

landings as (

    select *
    from {{ feature_rows(ref('stg_flights'), event_time='known_at', lookback='24 hours') }} as flights
    -- a cancelled leg has no landing; a diverted one has it when it came in at last
    where tailnum is not null and arrived_at is not null

),

aircraft_state as (

    select
        tailnum,
        event_timestamp,
        {{ latest('arr_delay', then_by='flight_id') }} as last_arr_delay,
        {{ latest('dep_delay', then_by='flight_id') }} as last_dep_delay,
        {{ latest('diverted', then_by='flight_id') }} as last_diverted,
        {{ latest('dest', then_by='flight_id') }} as last_dest,
        {{ latest('air_time', then_by='flight_id') }}::smallint as last_air_time,
        max(arrived_at) as landed_at,
        date_diff('minute', max(arrived_at), event_timestamp)::smallint as minutes_since_landing,
        {{ rolling('count(*)', '24 hours') }}::smallint as legs_24h,
        {{ rolling('avg(arr_delay)', '24 hours') }} as arr_delay_mean_24h,
        {{ rolling('max(arr_delay)', '24 hours') }} as arr_delay_max_24h
    from landings
    group by tailnum, event_timestamp
    -- later the aircraft has long flown back, unseen: the row would say nothing
    having {{ rolling('count(*)', '12 hours') }} > 0

)

select * from aircraft_state
