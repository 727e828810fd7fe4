with

observations as (

    select * from {{ feature_rows(ref('stg_weather'), event_time='known_at', lookback='24 hours') }} as observations

),

airport_weather as (

    select
        origin,
        event_timestamp,
        {{ latest('temperature_f') }} as temperature_f,
        {{ latest('dew_point_f') }} as dew_point_f,
        {{ latest('humidity_percent') }} as humidity_percent,
        {{ latest('wind_speed_mph') }} as wind_speed_mph,
        {{ latest('wind_gust_mph') }} as wind_gust_mph,
        {{ latest('pressure_mb') }} as pressure_mb,
        {{ latest('visibility_mi') }} as visibility_mi,
        date_diff('minute', max(_event_time), event_timestamp)::integer as observation_age_minutes,
        {{ rolling('sum(precipitation_in)', '3 hours') }} as precipitation_in_3h,
        {{ rolling('max(wind_speed_mph)', '3 hours') }} as wind_speed_mph_max_3h,
        {{ rolling('min(visibility_mi)', '3 hours') }} as visibility_mi_min_3h,
        {{ rolling('sum(precipitation_in)', '24 hours') }} as precipitation_in_24h,
        {{ rolling('max(wind_speed_mph)', '24 hours') }} as wind_speed_mph_max_24h,
        {{ rolling('avg(temperature_f)', '24 hours') }} as temperature_f_mean_24h
    from observations
    group by origin, event_timestamp

)

select * from airport_weather
