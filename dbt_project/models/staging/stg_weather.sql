with

weather as (

    select * from {{ source('nycflights13', 'weather') }}

),

renamed as (

    select
        origin,
        observed_hour,
        temp as temperature_f,
        dewp as dew_point_f,
        humid as humidity_percent,
        wind_speed as wind_speed_mph,
        wind_gust as wind_gust_mph,
        precip as precipitation_in,
        pressure as pressure_mb,
        visib as visibility_mi,
        known_at,
        ingested_at
    from weather

)

select * from renamed
