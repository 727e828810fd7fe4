"""What a person or a machine can see of a fault: incidents, failed checks, processes that do not run.

Rule: a signal is a text whose beginning says where it comes from (`incident stale …`, `check …`, `stopped daemon`,
`run failed …`). Only what was not there before the injection is news.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime

import psycopg2

from drill.stack import Stack
from feature_platform.local import services, supervision

_INCIDENTS = """select 'incident ' || kind || ' ' || subject from incidents where opened_at >= %(at)s"""
_CHECKS = """select distinct 'check ' || b.view || ' ' || c.check_name
    from batch_checks c join batches b using (batch_id) where not c.passed and c.checked_at >= %(at)s"""
_OPEN = """select i.kind || ' ' || i.subject from incidents i left join incident_resolved r using (incident_id)
    where r.incident_id is null"""
_OPENED = "select count(*) from unfinished_batches"
_SCHEDULED = """select r.run_id from runs r join run_tags t using (run_id)
    where t.key = 'dagster/schedule_name' and t.value like 'hourly_%%' and r.create_timestamp >= %(at)s limit 1"""
_HOLES = """with known as (select view, min(partition_start) as first from batches where grain = 'hour' group by view)
    select 'unpublished ' || to_char(min(started) at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' and '
        || count(*) - 1 || ' more of ' || view
    from known, generate_series(first, %(at)s - interval '1 hour', '1 hour') started
    where not exists (select from published_batches p where p.view = known.view and p.partition_start = started)
    group by view"""
_GOING_ON = "select count(*) from runs where status in ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED')"


def signals(stack: Stack, *, since: datetime) -> list[str]:
    """Everything that can be seen now of what began after an instant."""
    stopped = stopped_processes(stack)
    if "postgres" in stopped:
        return [f"stopped {name}" for name in stopped]
    found = _ask(stack, "ledger", _INCIDENTS, since) + _ask(stack, "ledger", _CHECKS, since)
    return [f"stopped {name}" for name in stopped] + found


def stopped_processes(stack: Stack) -> list[str]:
    """What `feature-platform status` calls not running."""
    found = (*services.status(stack.home), *supervision.dagster_status(stack.home))
    return [one.name for one in found if not one.running]


def open_incidents(stack: Stack) -> list[str]:
    """Incidents that are not resolved."""
    return _ask(stack, "ledger", _OPEN, None)


def holes(stack: Stack, *, until: datetime) -> list[str]:
    """Hours of which nothing is published though they ended by an instant, after the first that was ever begun."""
    return _ask(stack, "ledger", _HOLES, until)


def runs_going_on(stack: Stack) -> int:
    """Runs that wait or run; none if nobody can be asked."""
    counted = _ask(stack, "dagster", _GOING_ON, None)
    return int(counted[0]) if counted else 0


def batches_being_computed(stack: Stack) -> int:
    """Batches that a run has opened and not finished."""
    return int((_ask(stack, "ledger", _OPENED, None) or ["0"])[0])


def has_scheduled_since(stack: Stack, at: datetime) -> bool:
    """Whether a schedule has started runs since an instant."""
    return bool(_ask(stack, "dagster", _SCHEDULED, at))


def _ask(stack: Stack, database: str, query: str, at: datetime | None) -> list[str]:
    address = stack.settings.ledger_url if database == "ledger" else stack.dagster_url
    try:
        with closing(psycopg2.connect(address)) as connection, connection.cursor() as cursor:
            cursor.execute(query, {"at": at})
            return [row[0] for row in cursor.fetchall()]
    except psycopg2.OperationalError:
        return []
