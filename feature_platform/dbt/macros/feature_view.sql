{# What a feature view's declaration says, and the checks that a run can make before any SQL of it runs. #}

{% macro feature_view_entities() -%}
  {%- set declared = model.config.get('meta', {}).get('feature_view', {}) -%}
  {%- if not declared.get('entities') -%}
    {{ exceptions.raise_compiler_error(
        "feature_platform: " ~ model.name ~ ": batch_append needs the entity columns\n"
        ~ "  next:    declare config.meta.feature_view.entities"
    ) }}
  {%- endif -%}
  {{ return(declared.entities) }}
{%- endmacro %}


{% macro feature_view_grain() -%}
  {%- set grain = model.config.get('batch_size') | string -%}
  {%- if grain not in ['hour', 'day', 'month'] -%}
    {{ exceptions.raise_compiler_error(
        "feature_platform: " ~ model.name ~ ": batch_append needs the grain of its partitions\n  found:   batch_size "
        ~ grain ~ "\n  allowed: hour, day, month"
    ) }}
  {%- endif -%}
  {{ return(grain) }}
{%- endmacro %}


{% macro is_feature_view(node) -%}
  {{ return(node is mapping and node.get('config', {}).get('incremental_strategy') == 'batch_append') }}
{%- endmacro %}


{% macro assert_deployed() -%}
  {#-
    Only `feature-platform deploy` creates and alters tables: doing either during a run aborts the open appends of other
    runs. dbt would create a missing table, add missing columns and, on --full-refresh, rebuild; so a run that would do
    any of it stops here, before its transaction.
  -#}
  {%- if execute and model.resource_type == 'model' and is_feature_view(model) and flags.WHICH in ['run', 'build'] -%}
    {%- set next = "\n  next:    run `feature-platform deploy`" -%}
    {%- if flags.FULL_REFRESH and model.config.get('full_refresh') is not false -%}
      {{ exceptions.raise_compiler_error(
          "feature_platform: " ~ model.name ~ ": a full refresh would destroy history\n"
          ~ "  allowed: full_refresh: false in the model's config; to recompute, open new batches"
      ) }}
    {%- endif -%}
    {%- set table = load_relation(this) -%}
    {%- if table is none or not table.is_table -%}
      {{ exceptions.raise_compiler_error(
          "feature_platform: not deployed: the lake has no table " ~ this ~ next
      ) }}
    {%- endif -%}
    {%- set present = adapter.get_columns_in_relation(table) | map(attribute='name') | list -%}
    {%- set missing = [] -%}
    {%- for column in (model.columns.keys() | list) + ['_batch_id', '_partition_start'] if column not in present -%}
      {%- do missing.append(column) -%}
    {%- endfor -%}
    {%- if missing -%}
      {{ exceptions.raise_compiler_error(
          "feature_platform: not deployed: " ~ this ~ " lacks " ~ (missing | join(', ')) ~ next
      ) }}
    {%- endif -%}
  {%- endif -%}
{%- endmacro %}


{% macro assert_batches_distinct() -%}
  {%- set opened = run_batches() -%}
  {%- for what in ['batch_id', 'partition_start'] -%}
    {%- set distinct = opened | map(attribute=what) | unique | list -%}
    {%- if distinct | length != opened | length -%}
      {{ exceptions.raise_compiler_error(
          "feature_platform: batch rejected: " ~ model.name ~ ": one run holds a " ~ what ~ " twice\n"
          ~ "  found:   " ~ (opened | length) ~ " batches, " ~ (distinct | length) ~ " of them distinct"
      ) }}
    {%- endif -%}
  {%- endfor -%}
{%- endmacro %}
