with

flights as (

    select * from {{ feature_rows(ref('stg_flights'), event_time='known_at', lookback='28 days') }} as flights

),

route_delays as (

    select
        origin,
        dest,
        event_timestamp,
        {% for window in ['7 days', '28 days'] -%}
        {%- set suffix = window.split(' ')[0] ~ 'd' -%}
        {{ rolling('count(*)', window) }} as flights_{{ suffix }},
        {{ rolling('avg(dep_delay)', window) }} as dep_delay_mean_{{ suffix }},
        {{ rolling('avg(arr_delay)', window) }} as arr_delay_mean_{{ suffix }},
        {{ rolling('avg(left_late::integer)', window) }} as late_share_{{ suffix }},
        {% endfor -%}
        {{ rolling('avg(cancelled::integer)', '28 days') }} as cancelled_share_28d,
        {{ rolling('avg(air_time)', '28 days') }} as air_time_mean_28d
    from flights
    group by origin, dest, event_timestamp

)

select * from route_delays
