with

planes as (

    select * from {{ source('nycflights13', 'planes') }}

),

renamed as (

    select
        tailnum,
        manufacturer,
        model as aircraft_model,
        type as aircraft_type,
        engine as engine_type,
        engines,
        seats,
        built_on,
        known_at,
        ingested_at
    from planes

)

select * from renamed
