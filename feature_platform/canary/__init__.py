"""The canary: a value that goes the whole way of a batch, from the lake to the client, and is compared.

Rule: nothing of the way is imitated. The lake is written, the ledger publishes, a sync brings, the client that users
have reads; only the SQL of a model is left out, because dbt takes seconds of processor time for one row.
"""

from feature_platform.canary.running import run_canary

__all__ = ["run_canary"]
