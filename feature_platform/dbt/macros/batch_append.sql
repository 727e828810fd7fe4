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
  {{ refuse_existing_batches(target) }};
  {{ refuse_null_keys(written, keys) }};
  {{ refuse_rows_outside(written) }};
  {{ refuse_duplicates(written, keys) }};
  insert into {{ target }} ({{ get_quoted_csv(columns) }}, _batch_id, _partition_start)
  select
    {% for column in columns -%}
    written.{{ adapter.quote(column) }},
    {% endfor -%}
    batches._batch_id,
    batches._partition_start
  from {{ written }} as written
  inner join {{ batches() }} as batches
    on {{ in_partition('written.event_timestamp', 'batches') }}
  {#- sorted, the row groups of one batch lie together and readers of one batch skip the others -#}
  {%- if run_batches() | length > 1 %}
  order by batches._partition_start
  {%- endif %}
{%- endmacro %}


{% macro in_partition(instant, batches) -%}
  {#-
    Whether the instant lies in the batch's partition (start, end]. The first line alone says so for partitions of the
    grain; it makes the join one of equal whole numbers, and needs no calendar, which costs a microsecond a row.
  -#}
  {%- set microseconds = {'hour': 3600000000, 'day': 86400000000}.get(feature_view_grain()) -%}
  {%- if microseconds -%}
  (epoch_us({{ instant }}) - 1) // {{ microseconds }} = epoch_us({{ batches }}._partition_start) // {{ microseconds }}
  {%- else -%}
  date_trunc('month', {{ instant }} - interval 1 microsecond) = {{ batches }}._partition_start
  {%- endif %}
    and {{ instant }} > {{ batches }}._partition_start
    and {{ instant }} <= {{ batches }}._partition_end
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


{% macro refuse_rows_outside(written) -%}
  {%- set bounds = run_bounds() -%}
  select error({{ rejection("") }} || count(*) || ' rows outside the run''s partitions, event_timestamp from '
    || min(event_timestamp) || ' to ' || max(event_timestamp)
    || '; allowed: (start, end] of {{ run_batches() | length }} partitions between '
    || {{ bounds.first_start }} || ' and ' || {{ bounds.last_end }})
  from {{ written }} as written
  anti join {{ batches() }} as batches
    on {{ in_partition('written.event_timestamp', 'batches') }}
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
