{#
  The batches of this run.

  A run opens its batches in the ledger first and passes them as the variable `feature_platform`:
  `{batches: [{batch_id, partition_start, partition_end}, ...]}`. No model ever asks what time it is.
#}

{% macro run_batches() -%}
  {#- The run's batches as a list. Empty while dbt parses; at execution a run without batches is an error. -#}
  {%- set found = var('feature_platform', {}).get('batches', []) -%}
  {%- if execute and not found -%}
    {{ exceptions.raise_compiler_error(
        "feature_platform: no batches: " ~ model.name ~ " needs the batches of a run, and the variable "
        ~ "`feature_platform` holds none.\n"
        ~ "  allowed: feature_platform: {batches: [{batch_id: ..., partition_start: ..., partition_end: ...}]}\n"
        ~ "  next:    run it through the platform (`feature-platform materialize`), which opens the batches first; "
        ~ "a unit test gives them under `overrides: vars:`"
    ) }}
  {%- endif -%}
  {{ return(found) }}
{%- endmacro %}


{% macro batches() -%}
  {#- The run's batches as a relation: _batch_id, _partition_start, _partition_end, event_timestamp (= the end). -#}
  {%- set opened = run_batches() -%}
  {%- do assert_deployed() -%}
  {{ batches_relation(opened) }}
{%- endmacro %}


{% macro batches_relation(opened) -%}
  (
    select
      _batch_id,
      _partition_start::timestamptz as _partition_start,
      _partition_end::timestamptz as _partition_end,
      _partition_end::timestamptz as event_timestamp
    from (
      values
      {% for batch in opened -%}
      ({{ dbt.string_literal(batch.batch_id) }}, '{{ batch.partition_start }}', '{{ batch.partition_end }}')
      {{- "," if not loop.last }}
      {% else -%}
      ('none', '1970-01-01 00:00:00+00', '1970-01-01 00:00:00+00')
      {% endfor -%}
    ) as opened (_batch_id, _partition_start, _partition_end)
  )
{%- endmacro %}


{% macro run_bounds() -%}
  {#- First start and last end of the run's batches, as literals: DuckLake prunes files by literals. -#}
  {%- set opened = run_batches() -%}
  {%- set starts = opened | map(attribute='partition_start') | sort -%}
  {%- set ends = opened | map(attribute='partition_end') | sort -%}
  {{ return({
      'first_start': "timestamptz '" ~ (starts | first or '1970-01-01 00:00:00+00') ~ "'",
      'last_start': "timestamptz '" ~ (starts | last or '1970-01-01 00:00:00+00') ~ "'",
      'first_end': "timestamptz '" ~ (ends | first or '1970-01-01 00:00:00+00') ~ "'",
      'last_end': "timestamptz '" ~ (ends | last or '1970-01-01 00:00:00+00') ~ "'",
  }) }}
{%- endmacro %}


{% macro this_batch(relation) -%}
  {#-
    The rows of a feature view that this run wrote; singular tests read it instead of the whole table:

        select * from {{ this_batch(ref('carrier_delays')) }} as written where flights_7d < flights_1d
  -#}
  {%- set bounds = run_bounds() -%}
  (
    select *
    from {{ relation }}
    where _partition_start between {{ bounds.first_start }} and {{ bounds.last_start }}
      {#- one literal: a list of 6,000 literals takes dbt and DuckDB longer to read than the rows take to test #}
      and _batch_id in (
        select unnest(string_split({{ dbt.string_literal(run_batches() | map(attribute='batch_id') | join(',')) }}, ','))
      )
  )
{%- endmacro %}
