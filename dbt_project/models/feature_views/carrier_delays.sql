with

flights as (

    select * from {{ feature_rows(ref('stg_flights'), event_time='known_at', lookback='28 days') }} as flights

),

carrier_delays as (

    select
        carrier,
        event_timestamp,
        {% for window in ['1 day', '7 days', '28 days'] -%}
        {%- set suffix = window.split(' ')[0] ~ 'd' -%}
        {{ rolling('count(*)', window) }} as flights_{{ suffix }},
        {{ rolling('avg(dep_delay)', window) }} as dep_delay_mean_{{ suffix }},
        {{ rolling('avg(left_late::integer)', window) }} as late_share_{{ suffix }},
        {{ rolling('avg(cancelled::integer)', window) }} as cancelled_share_{{ suffix }},
        {% endfor -%}
        {{ rolling('avg(arr_delay)', '7 days') }} as arr_delay_mean_7d,
        {{ rolling('max(dep_delay)', '7 days') }} as dep_delay_max_7d
    from flights
    group by carrier, event_timestamp

)

select * from carrier_delays
