"""Materialization: open → dbt → audit → publish, and deploy. Knows dbt, does not know Dagster."""
