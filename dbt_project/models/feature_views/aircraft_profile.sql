with

entries as (

    -- ten years: a snapshot holds every aircraft that was ever entered
    select * from {{ feature_rows(ref('stg_planes'), event_time='known_at', lookback='520 weeks') }} as entries

),

aircraft_profile as (

    select
        tailnum,
        event_timestamp,
        {{ latest('manufacturer') }} as manufacturer,
        {{ latest('aircraft_model') }} as aircraft_model,
        {{ latest('aircraft_type') }} as aircraft_type,
        {{ latest('engine_type') }} as engine_type,
        {{ latest("engine_type in ('Turbo-fan', 'Turbo-jet')") }} as is_jet,
        {{ latest('engines') }}::tinyint as engines,
        {{ latest('seats') }}::smallint as seats,
        (date_diff('day', {{ latest('built_on') }}, event_timestamp::date) / 365.25)::float as age_years,
        min(_event_time)::date as seen_since
    from entries
    group by tailnum, event_timestamp

)

select * from aircraft_profile
