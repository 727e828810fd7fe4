{# Macros of dbt that the platform replaces. #}

{% macro get_where_subquery(relation) -%}
  {#- Generic tests of a feature view judge the run's batches, never rows of earlier runs; `where` still applies. -#}
  {%- set tested = graph.nodes.get(model.get('attached_node')) if execute else none -%}
  {%- if not is_feature_view(tested) -%}
    {{ return(default__get_where_subquery(relation)) }}
  {%- endif -%}
  {%- set where = config.get('where', '') -%}
  {%- set filtered -%}
    (select * from {{ this_batch(relation) }} as written {{ "where " ~ where if where }}) as dbt_subquery
  {%- endset -%}
  {{ return(filtered) }}
{%- endmacro %}


{% macro generate_schema_name(custom_schema_name, node) -%}
  {#- `schema: batches` means the schema batches, not <target>_batches: one lake has one of each. -#}
  {{- (custom_schema_name or target.schema) | trim -}}
{%- endmacro %}
