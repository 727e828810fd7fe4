{% test in_range(model, column_name, min_value=none, max_value=none) -%}
  {#- Rows whose value lies outside [min_value, max_value]. NULL passes: not_null is another test. NaN never does. -#}
  {%- if min_value is none and max_value is none -%}
    {{ exceptions.raise_compiler_error(
        "feature_platform: in_range on " ~ column_name ~ " bounds nothing\n  allowed: min_value, max_value or both"
    ) }}
  {%- endif -%}
  select *
  from {{ model }}
  where false
    {%- if min_value is not none %}
    or {{ column_name }} < {{ min_value }}
    {%- endif %}
    {%- if max_value is not none %}
    or {{ column_name }} > {{ max_value }}
    {%- else %}
    {#- NaN is greater than any maximum, and than any minimum -#}
    or isnan(try_cast({{ column_name }} as double))
    {%- endif %}
{%- endtest %}
