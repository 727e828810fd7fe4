{#
  The incremental strategy `batch_append`: rows are only ever added, and only as rows of the run's batches.

  dbt has put what the model returned into a temporary table and opened a transaction. The guards and the insert below
  run in that transaction; a guard that speaks raises, so nothing of the run is committed.
#}

{% macro get_incremental_batch_append_sql(arg_dict) -%}
  {%- set target = arg_dict['target_relation'] -%}
  {%- set written = arg_dict['temp_relation'] -%}
  {%- set columns = arg_dict['dest_columns'] | map(attribute='name') | list -%}
  {%- set keys = feature_view_entities() -%}
  {%- do assert_batches_distinct() -%}
  {{ remember_batches() }};
  {{ refuse_existing_batches(target) }};
  {{ refuse_null_keys(written, keys) }};
  {{ refuse_rows_outside(written) }};
  {{ refuse_duplicates(written, keys) }};
  {{- refuse_null_elements(written) }}
  insert into {{ target }} ({{ get_quoted_csv(columns) }}, _batch_id, _partition_start)
  select
    {{ get_quoted_csv(columns) }},
    _batch._batch_id,
    _batch._partition_start
  from (select *, {{ batch_of('event_timestamp') }} as _batch from {{ written }}) as written
  {#- sorted, the row groups of one batch lie together and readers of one batch skip the others -#}
  {%- if run_batches() | length > 1 %}
  order by _batch._partition_start
  {%- endif %}
{%- endmacro %}


{% macro remember_batches() -%}
  {#-
    The run's batches as a list with one place per partition from the first to the last, NULL where the run has none.

    Rows find their batch by its place. A join would do, were it not that DuckDB takes a temporary table of the same
    transaction to be empty, builds the join's hash table on it, and keeps that in memory: 12 million narrow rows did not
    fit into 300 MB.
  -#}
  set variable feature_platform_first = (
    select min({{ partition_number('_partition_start') }}) from {{ batches() }} as batches
  );
  set variable feature_platform_batches = (
    select list(batches order by number)
    from (
      select unnest(generate_series(
        getvariable('feature_platform_first'), max({{ partition_number('_partition_start') }})
      )) as number
      from {{ batches() }} as batches
    ) as numbers
    left join {{ batches() }} as batches on {{ partition_number('batches._partition_start') }} = number
  )
{%- endmacro %}


{% macro partition_number(instant, is_end=false) -%}
  {#- Partitions of the grain, counted. Of an event, (start, end] holds it: `is_end`. No calendar unless by month. -#}
  {%- set microseconds = {'hour': 3600000000, 'day': 86400000000}.get(feature_view_grain()) -%}
  {%- if microseconds -%}
  (epoch_us({{ instant }}){{ " - 1" if is_end }}) // {{ microseconds }}
  {%- else -%}
  date_diff('month', timestamptz '1970-01-01 00:00:00+00', {{ instant }}{{ " - interval 1 microsecond" if is_end }})
  {%- endif -%}
{%- endmacro %}


{% macro batch_of(instant) -%}
  {#- The batch whose place the instant has; places count from 1, and those below would count from the end -#}
  getvariable('feature_platform_batches')[
    greatest({{ partition_number(instant, is_end=true) }} - getvariable('feature_platform_first') + 1, 0)
  ]
{%- endmacro %}


{% macro refuse_existing_batches(target) -%}
  select error({{ rejection("the table already has rows of " ) }} || any_value(_batch_id)
    || ' (' || count(distinct _batch_id) || ' of {{ run_batches() | length }} batches): a batch is written once')
  from {{ this_batch(target) }} as existing
  having count(*) > 0
{%- endmacro %}


{% macro refuse_null_keys(written, keys) -%}
  {%- set columns = keys + ['event_timestamp'] -%}
  select error({{ rejection("rows with a null key: ") }}
    {%- for column in columns %}
    || {{ dbt.string_literal(column ~ " ") }} || count(*) filter (where {{ adapter.quote(column) }} is null)
    {{- " || ', '" if not loop.last }}
    {%- endfor %})
  from {{ written }}
  having count(*) filter (where {% for column in columns -%}
    {{ adapter.quote(column) }} is null{{ " or " if not loop.last }}
    {%- endfor %}) > 0
{%- endmacro %}


{% macro refuse_null_elements(written) -%}
  {#- No client could tell a NULL element from a number: lists are NULL as a whole, or hold numbers. -#}
  {%- for column in model.columns.values() if '[' in (column.data_type or '') %}
  select error({{ rejection("") }} || count(*) || {{ dbt.string_literal(" rows whose " ~ column.name ~ " has NULL elements") }})
  from {{ written }}
  where list_count({{ adapter.quote(column.name) }}::double[]) < len({{ adapter.quote(column.name) }}::double[])
  having count(*) > 0;
  {%- endfor %}
{%- endmacro %}


{% macro refuse_rows_outside(written) -%}
  {%- set bounds = run_bounds() -%}
  select error({{ rejection("") }} || count(*) || ' rows outside the run''s partitions, event_timestamp from '
    || min(event_timestamp) || ' to ' || max(event_timestamp)
    || '; allowed: (start, end] of {{ run_batches() | length }} partitions between '
    || {{ bounds.first_start }} || ' and ' || {{ bounds.last_end }})
  from (select event_timestamp, {{ batch_of('event_timestamp') }} as _batch from {{ written }}) as written
  {#- the second half holds for every partition of the grain, and so must not be taken for granted #}
  where _batch._batch_id is null
    or not (event_timestamp > _batch._partition_start and event_timestamp <= _batch._partition_end)
  having count(*) > 0
{%- endmacro %}


{% macro refuse_duplicates(written, keys) -%}
  select error({{ rejection("") }} || count(*) || ' keys with more than one row, e.g. '
    || any_value({{ "{" }}
      {%- for column in keys + ['event_timestamp'] -%}
      {{ dbt.string_literal(column) }}: {{ adapter.quote(column) }}{{ ", " if not loop.last }}
      {%- endfor -%}
    {{ "}" }})
    || '; allowed: one row per ({{ (keys + ['event_timestamp']) | join(', ') }})')
  from (
    select {% for column in keys + ['event_timestamp'] -%}{{ adapter.quote(column) }}{{ ", " if not loop.last }}{%- endfor %}
    from {{ written }}
    group by all
    having count(*) > 1
  ) as repeated
  having count(*) > 0
{%- endmacro %}


{% macro rejection(found) -%}
  {{- dbt.string_literal("feature_platform: batch rejected: " ~ this.identifier ~ ": " ~ found) -}}
{%- endmacro %}
