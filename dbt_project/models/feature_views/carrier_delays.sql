with

flights as (

    select * from {{ feature_rows(ref('stg_flights'), event_time='known_at', lookback='28 days') }} as flights

),

carrier_delays as (

    select
        carrier,
        event_timestamp,
        {% for days in [1, 7, 28] %}
            {{ rolling('count(*)', days ~ ' days') }} as flights_{{ days }}d,
            {{ rolling('avg(dep_delay)', days ~ ' days') }} as dep_delay_mean_{{ days }}d,
            {{ rolling('avg(left_late::integer)', days ~ ' days') }} as late_share_{{ days }}d,
            {{ rolling('avg(cancelled::integer)', days ~ ' days') }} as cancelled_share_{{ days }}d,
        {% endfor %}
        {{ rolling('avg(arr_delay)', '7 days') }} as arr_delay_mean_7d,
        {{ rolling('max(dep_delay)', '7 days') }} as dep_delay_max_7d
    from flights
    group by carrier, event_timestamp

)

select * from carrier_delays
