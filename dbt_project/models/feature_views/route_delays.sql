with

flights as (

    select * from {{ feature_rows(ref('stg_flights'), event_time='known_at', lookback='28 days') }} as flights

),

route_delays as (

    select
        origin,
        dest,
        event_timestamp,
        {% for days in [7, 28] %}
            {{ rolling('count(*)', days ~ ' days') }} as flights_{{ days }}d,
            {{ rolling('avg(dep_delay)', days ~ ' days') }} as dep_delay_mean_{{ days }}d,
            {{ rolling('avg(arr_delay)', days ~ ' days') }} as arr_delay_mean_{{ days }}d,
            {{ rolling('avg(left_late::integer)', days ~ ' days') }} as late_share_{{ days }}d,
        {% endfor %}
        {{ rolling('avg(cancelled::integer)', '28 days') }} as cancelled_share_28d,
        {{ rolling('avg(air_time)', '28 days') }} as air_time_mean_28d
    from flights
    group by origin, dest, event_timestamp

)

select * from route_delays
