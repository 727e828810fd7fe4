{#
  Windows that cannot reach past `event_timestamp`.

  `feature_rows` pairs each batch with the source rows known strictly before its event_timestamp, and no macro here
  can widen that. `rolling` and `latest` only narrow it.
#}

{% macro duration_seconds(duration, what) -%}
  {%- set match = modules.re.fullmatch('([0-9]+) +(second|minute|hour|day|week)s?', duration | string | trim) -%}
  {%- if match is none -%}
    {{ exceptions.raise_compiler_error(
        "feature_platform: " ~ what ~ " is no duration\n  found:   " ~ duration
        ~ "\n  allowed: a whole number and one of second(s), minute(s), hour(s), day(s), week(s), e.g. '28 days'"
    ) }}
  {%- endif -%}
  {%- set size = {'second': 1, 'minute': 60, 'hour': 3600, 'day': 86400, 'week': 604800}[match.group(2)] -%}
  {{ return((match.group(1) | int) * size) }}
{%- endmacro %}


{% macro feature_rows(relation, event_time, lookback) -%}
  {#-
    The rows of `relation` that each of the run's batches may see: those whose `event_time` lies in
    [event_timestamp - lookback, event_timestamp). One row per (batch, source row), with `event_timestamp` and
    `_event_time` added.

        from {{ feature_rows(ref('stg_flights'), event_time='known_at', lookback='28 days') }} as flights
  -#}
  {%- set seconds = duration_seconds(lookback, "lookback of feature_rows()") -%}
  {#- rolling() checks its window against this; the context's `model` is a copy that lives as long as one compilation -#}
  {%- do model.setdefault('_feature_platform_lookbacks', []).append(seconds) -%}
  {%- set bounds = run_bounds() -%}
  {#- a comment that says how far back the batch reaches: late rows are mapped to partitions by it #}
  /* feature_rows {{ tojson({'relation': relation | string, 'event_time': event_time, 'seconds': seconds}) }} */
  (
    select
      {#- first, so that a column of the same name in the relation cannot take its place #}
      batches.event_timestamp,
      source_rows.{{ event_time }} as _event_time,
      source_rows.*
    from (
      select *
      from {{ relation }}
      where {{ event_time }} >= {{ bounds.first_end }} - interval '{{ seconds }} seconds'
        and {{ event_time }} < {{ bounds.last_end }}
    ) as source_rows
    inner join {{ batches() }} as batches
      on source_rows.{{ event_time }} < batches.event_timestamp
      and source_rows.{{ event_time }} >= batches.event_timestamp - interval '{{ seconds }} seconds'
  )
{%- endmacro %}


{% macro rolling(aggregate, window, lookback=none) -%}
  {#-
    An aggregate over the last `window` before event_timestamp, on rows of feature_rows():

        {{ rolling('avg(dep_delay)', '7 days') }} as dep_delay_mean_7d

    A window longer than the lookback would silently see less than it says, so it does not compile. A model with
    several feature_rows() is held to the shortest, unless `lookback` says which one this aggregate reads.
  -#}
  {%- set seconds = duration_seconds(window, "window of rolling()") -%}
  {%- set lookbacks = model.get('_feature_platform_lookbacks', []) -%}
  {%- if lookback is not none -%}
    {%- set reach = duration_seconds(lookback, "lookback of rolling()") -%}
    {%- if reach not in lookbacks -%}
      {{ exceptions.raise_compiler_error(
          "feature_platform: " ~ model.name ~ ": rolling() names a lookback that no feature_rows() above it has\n"
          ~ "  found:   " ~ lookback
      ) }}
    {%- endif -%}
  {%- elif lookbacks -%}
    {%- set reach = lookbacks | min -%}
  {%- else -%}
    {{ exceptions.raise_compiler_error(
        "feature_platform: " ~ model.name ~ ": rolling() without feature_rows()\n"
        ~ "  next:    read the source through feature_rows() in a CTE above; rolling() needs its columns "
        ~ "event_timestamp and _event_time"
    ) }}
  {%- endif -%}
  {%- if seconds > reach -%}
    {{ exceptions.raise_compiler_error(
        "feature_platform: " ~ model.name ~ ": a window of rolling() is longer than the lookback of feature_rows()\n"
        ~ "  found:   a window of '" ~ window ~ "' over rows that reach back " ~ reach ~ " seconds\n"
        ~ "  next:    shorten the window, or give feature_rows() lookback='" ~ window ~ "'"
    ) }}
  {%- endif -%}
  {%- if seconds == reach and lookbacks | length == 1 -%}
  {{ aggregate }}
  {%- else -%}
  {{ aggregate }} filter (where _event_time >= event_timestamp - interval '{{ seconds }} seconds')
  {%- endif -%}
{%- endmacro %}


{% macro latest(expression, then_by=none) -%}
  {#-
    The value of the newest row before event_timestamp, NULL if that row holds NULL (arg_max would skip it).

    Where a key may have two rows of one instant, `then_by` names the column whose greatest value decides: without it
    each recomputation, and each column, may choose another row.
  -#}
  {%- if then_by is none -%}
  arg_max_null({{ expression }}, _event_time)
  {%- else -%}
  arg_max_null({{ expression }}, {'at': _event_time, 'then_by': {{ then_by }}})
  {%- endif -%}
{%- endmacro %}
