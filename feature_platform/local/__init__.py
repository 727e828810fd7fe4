"""The local stack: embedded Postgres and Valkey from wheels, and supervision of Dagster's processes.

Rule: one data directory ("home") is one stack. Whoever starts it second attaches; nothing is lost when anything is
killed; nothing outside the home, its socket directory under /tmp and, as root, /var/lib/feature_platform is touched.
"""

from __future__ import annotations

from feature_platform.local.services import ServiceStatus, delete, start, status, stop

__all__ = ["ServiceStatus", "delete", "start", "status", "stop"]
