"""The dashboards, and the files that Grafana loads: `python infra/grafana/build.py` writes them, `--check` compares.

Rule: what several exporters tell alike is counted once (`max by`), a view is named by its key, and instants become
ages only here. tests/unit/test_dashboards.py holds the files to their sources and the queries to promtool.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from panels import Dashboard, Panel, Query, Variable

TARGET: Final = Path(__file__).parent / "dashboards"
_P: Final = "feature_platform_"

OWNER: Final = Variable(name="owner", query=f"label_values({_P}view_info, owner)")
VIEW: Final = Variable(name="view", query=f'label_values({_P}view_info{{owner=~"$owner"}}, view)')
STORE: Final = Variable(name="store", query=f'label_values({_P}part_up{{part="store"}}, name)')
OF_VIEWS: Final = (OWNER, VIEW)
IN_STORES: Final = (OWNER, VIEW, STORE)

_OF: Final = 'view=~"$view"'
_STORES: Final = 'store=~"$store"'
_IN: Final = f"{_OF},{_STORES}"
_PUBLISHED: Final = f'{_OF},clock="published"'
_COMPUTED: Final = f'{_OF},clock="computed"'
_PART_STORE: Final = 'part="store",name=~"$store"'

# the store of a view that is not served is empty
_AGE: Final = f'(time() - max by (view, store) ({_P}view_data_timestamp_seconds{{{_OF},store=~"$store|"}}))'


def _sla(severity: str) -> str:
    return f'on (view) group_left () max by (view) ({_P}view_sla_seconds{{severity="{severity}"}})'


def _newest(metric: str, by: str, where: str = _OF) -> str:
    return f"max by ({by}) ({_P}{metric}{{{where}}})"


def _wrong(kind: str, by: str = "view", where: str = _OF) -> str:
    return f'count(max by ({by}) ({_P}view_problems{{kind="{kind}",{where}}}) > 0) or vector(0)'


def _rate(metric: str, by: str, where: str = _IN, *, over: str = "1h") -> str:
    """Runs are minutes apart, so that a rate over less than an hour is mostly zero."""
    return f"sum by ({by}) (max without (instance, job) (rate({_P}{metric}{{{where}}}[{over}])))"


def _heading(title: str) -> Panel:
    return Panel(title=title, kind="row")


def _stat(title: str, expr: str, *, unit: str = "short", red_from: float | None = 1, says: str = "") -> Panel:
    queries = (Query(expr=expr, legend=title),)
    return Panel(title=title, kind="stat", queries=queries, unit=unit, red_from=red_from, says=says, width=6)


def _lines(title: str, *queries: tuple[str, str], unit: str = "short", says: str = "") -> Panel:
    made = tuple(Query(expr=expr, legend=legend) for expr, legend in queries)
    return Panel(title=title, kind="timeseries", queries=made, unit=unit, says=says)


def _table(title: str, expr: str, *, unit: str = "short", says: str = "", red_from: float | None = None) -> Panel:
    queries = (Query(expr=expr),)
    return Panel(title=title, kind="table", queries=queries, unit=unit, says=says, red_from=red_from, width=24)


FRESHNESS: Final = Dashboard(
    uid="fp-freshness",
    title="Features: freshness and SLA",
    says="How old what is served is, against what each view promises and each service needs.",
    variables=IN_STORES,
    panels=(
        _stat("Views beyond their SLA", f"count({_AGE} > {_sla('error')}) or vector(0)"),
        _stat("Views that get old", f"count({_AGE} > {_sla('warn')}) or vector(0)"),
        _stat(
            "Needs of services not met",
            f'count(max by (subject) ({_P}incident_level{{kind="need",view=~"$view"}}) > 0) or vector(0)',
        ),
        _stat(
            "Within the SLA, of the time shown",
            f"avg(avg_over_time(({_AGE} < bool {_sla('error')})[$__range:5m]))",
            unit="percentunit",
            red_from=None,
            says="Share of all looks, five minutes apart, at which a view in a store was as fresh as it promises.",
        ),
        _lines(
            "Age of the newest served event",
            (_AGE, "{{view}} {{store}}"),
            unit="s",
            says="Of a view that is not served: the newest published event.",
        ),
        _lines(
            "Share of the SLA used up",
            (f"{_AGE} / {_sla('error')}", "{{view}} {{store}}"),
            unit="percentunit",
            says="Beyond 100 % the view is stale.",
        ),
        _heading("Where the delay arises"),
        _lines(
            "Age of the newest data of each stage",
            (
                f"time() - {_newest('view_frontier_timestamp_seconds', 'view, stage, store')}",
                "{{view}} {{stage}} {{store}}",
            ),
            unit="s",
            says="Source, computed, published, served; the gap between two is the lag of the later one.",
        ),
        _lines(
            "Last batch: from computed to published, from published to online",
            (
                f"{_newest('view_clock_timestamp_seconds', 'view', _PUBLISHED)}"
                f" - {_newest('view_clock_timestamp_seconds', 'view', _COMPUTED)}",
                "{{view}} published",
            ),
            (
                _newest("view_clock_timestamp_seconds", "view, store", f'{_IN},clock="online"')
                + " - on (view) group_left () "
                + _newest("view_clock_timestamp_seconds", "view", _PUBLISHED),
                "{{view}} online {{store}}",
            ),
            unit="s",
        ),
        _lines(
            "Age of what the sources have brought",
            (f"time() - {_newest('source_loaded_through_timestamp_seconds', 'source', '')}", "{{source}}"),
            unit="s",
        ),
        _lines(
            "Arrival lag of the rows of the last look",
            (_newest("source_arrival_lag_seconds", "source, quantile", ""), "{{source}} {{quantile}}"),
            unit="s",
            says="From event time to arrival; 1 is the longest.",
        ),
        _table(
            "Promises: what age is allowed",
            _newest("view_sla_seconds", "view, severity"),
            unit="s",
        ),
    ),
)

QUALITY: Final = Dashboard(
    uid="fp-quality",
    title="Features: quality",
    says="What checks said, what was refused, and what came too late.",
    variables=OF_VIEWS,
    panels=(
        _stat(
            "Views that fail",
            _wrong("failing"),
        ),
        _stat(
            "Views with a batch held",
            _wrong("held"),
        ),
        _stat(
            "Views with late rows to decide on",
            _wrong("late"),
        ),
        _stat(
            "Silent sources",
            f'count(max by (subject) ({_P}incident_level{{kind="source",view=~"$view"}}) > 0) or vector(0)',
        ),
        _lines(
            "Checks that failed, per day",
            (
                "sum by (view) (max without (instance, job)"
                f' (increase({_P}view_checks_total{{verdict="failed",view=~"$view"}}[1d])))',
                "{{view}}",
            ),
        ),
        _lines(
            "Checks that passed, per day",
            (
                "sum by (view) (max without (instance, job)"
                f' (increase({_P}view_checks_total{{verdict="passed",view=~"$view"}}[1d])))',
                "{{view}}",
            ),
        ),
        _lines(
            "Batches, per day",
            (
                "sum by (view, state) (max without (instance, job)"
                f' (increase({_P}view_batches_total{{view=~"$view"}}[1d])))',
                "{{view}} {{state}}",
            ),
        ),
        _lines("Rows that readers see", (_newest("view_active_rows", "view"), "{{view}}")),
        _lines(
            "Partitions that rows came too late for",
            (_newest("view_late_partitions", "view, state"), "{{view}} {{state}}"),
        ),
        _lines("Rows that came too late, ever", (_newest("view_late_rows_total", "view"), "{{view}}")),
        _table("What is wrong", f"{_newest('view_problems', 'view, owner, kind')} > 0"),
    ),
)

SYNC: Final = Dashboard(
    uid="fp-sync",
    title="Features: sync",
    says="What is brought to the online stores, how fast, and what they have not got yet.",
    variables=IN_STORES,
    panels=(
        _stat(
            "Publishes that a store has not got",
            f"sum({_newest('view_unserved_publishes', 'view, store', _IN)})",
            red_from=None,
        ),
        _stat(
            "Views that a store lags behind for, for hours",
            _wrong("unserved", "view, store", _IN),
        ),
        _stat(
            "Views that a store has lost",
            _wrong("lost", "view, store", _IN),
        ),
        _stat(
            "Stores that do not answer",
            f"count({_newest('part_up', 'name', _PART_STORE)} == 0) or vector(0)",
        ),
        _lines(
            "Entities per second while a sync runs",
            (
                f"{_rate('sync_entities_total', 'view, store')} / {_rate('sync_seconds_total', 'view, store')}",
                "{{view}} {{store}}",
            ),
            says="Over the syncs of the last hour; empty when there was none.",
        ),
        _lines(
            "Seconds per sync",
            (
                f"{_rate('sync_seconds_total', 'view, store')} / {_rate('sync_runs_total', 'view, store')}",
                "{{view}} {{store}}",
            ),
            unit="s",
        ),
        _lines("Values written, per second", (_rate("sync_written_total", "view, store"), "{{view}} {{store}}")),
        _lines(
            "Tombstones, and writes that a later position refused, per second",
            (_rate("sync_tombstones_total", "view, store"), "{{view}} {{store}} no row"),
            (_rate("sync_refused_total", "view, store"), "{{view}} {{store}} refused"),
        ),
        _lines(
            "Publishes that a store has not got",
            (_newest("view_unserved_publishes", "view, store", _IN), "{{view}} {{store}}"),
        ),
        _lines("Syncs, per second", (_rate("sync_runs_total", "view, store"), "{{view}} {{store}}")),
    ),
)

PARITY: Final = Dashboard(
    uid="fp-parity",
    title="Features: parity",
    says="Whether the stores hold what the ledger derives, by the comparisons that were made.",
    variables=IN_STORES,
    panels=(
        _stat(
            "Views that differ",
            _wrong("parity", "view, store", _IN),
        ),
        _stat(
            "Oldest comparison",
            f"max(time() - {_newest('parity_checked_timestamp_seconds', 'view, store', _IN)})",
            unit="s",
            red_from=None,
        ),
        _stat(
            "Entities that differed in the last comparisons",
            f"sum({_newest('parity_differing', 'view, store', _IN)})",
        ),
        _stat(
            "Entities of the last comparisons",
            f"sum({_newest('parity_compared', 'view, store', _IN)})",
            red_from=None,
        ),
        _lines(
            "Entities that differed in the last comparison",
            (_newest("parity_differing", "view, store", _IN), "{{view}} {{store}}"),
            says="Those that a sync settles by itself are among them; the alert leaves them out.",
        ),
        _lines(
            "Time since the last comparison",
            (
                f"time() - {_newest('parity_checked_timestamp_seconds', 'view, store', _IN)}",
                "{{view}} {{store}}",
            ),
            unit="s",
        ),
    ),
)

COST: Final = Dashboard(
    uid="fp-cost",
    title="Features: memory and cost",
    says="What each view takes: memory of the stores, bytes and rows of the lake, seconds of computing.",
    variables=IN_STORES,
    panels=(
        _stat(
            "Memory of the stores, of what they may use",
            f"max({_newest('store_memory_bytes', 'store', _STORES)}"
            f" / ({_newest('store_memory_limit_bytes', 'store', _STORES)} > 0))",
            unit="percentunit",
            red_from=0.9,
        ),
        _stat("Keys", f"sum({_newest('store_keys', 'store', _STORES)})", red_from=None),
        _stat("Keys thrown away today", f'sum(increase({_P}store_evicted_keys_total{{store=~"$store"}}[1d]))'),
        _stat(
            "Rows computed today",
            f'sum(max without (instance, job) (increase({_P}view_computed_rows_total{{view=~"$view"}}[1d])))',
            red_from=None,
        ),
        _lines(
            "Valkey memory per view, estimated",
            (_newest("store_view_memory_bytes", "view, store", _IN), "{{view}} {{store}}"),
            unit="bytes",
            says="From 500 random keys.",
        ),
        _lines(
            "Valkey memory",
            (_newest("store_memory_bytes", "store", _STORES), "{{store}}"),
            (f"{_newest('store_memory_limit_bytes', 'store', _STORES)} > 0", "{{store}} limit"),
            unit="bytes",
        ),
        _lines(
            "Seconds of computing, per day",
            (
                f'max without (instance, job) (increase({_P}view_compute_seconds_total{{view=~"$view"}}[1d]))',
                "{{view}}",
            ),
            unit="s",
        ),
        _lines(
            "Bytes computed, per day",
            (f'max without (instance, job) (increase({_P}view_computed_bytes_total{{view=~"$view"}}[1d]))', "{{view}}"),
            unit="bytes",
        ),
        _lines("Partitions that readers see", (_newest("view_active_partitions", "view"), "{{view}}")),
        _lines(
            "Commands and connections",
            (f'rate({_P}store_commands_total{{store=~"$store"}}[$__rate_interval])', "{{store}} commands per second"),
            (_newest("store_clients", "store", _STORES), "{{store}} connections"),
        ),
    ),
)

INCIDENTS: Final = Dashboard(
    uid="fp-incidents",
    title="Features: incidents",
    says="What is wrong, whose it is, and about what nobody is told.",
    variables=(Variable(name="owner", query=f"label_values({_P}incident_level, owner)"),),
    panels=(
        _stat("Errors", f'count(max by (kind, subject) ({_P}incident_level{{owner=~"$owner"}}) >= 2) or vector(0)'),
        _stat(
            "Warnings",
            f'count(max by (kind, subject) ({_P}incident_level{{owner=~"$owner"}}) == 1) or vector(0)',
            red_from=None,
        ),
        _stat(
            "Silences",
            f"count(max by (silence) ({_P}silence_end_timestamp_seconds) > time()) or vector(0)",
            red_from=None,
        ),
        _stat(
            "Since the watch last looked",
            'time() - max by (part) (feature_platform_heartbeat_timestamp_seconds{part="watch"})',
            unit="s",
            red_from=300,
            says="Incidents are opened and closed by it alone.",
        ),
        _table(
            "Open incidents",
            f'max by (kind, subject, view, store, owner) ({_P}incident_level{{owner=~"$owner"}}) > 0',
            says="2 is an error, 1 a warning. `feature-platform status` says what to do.",
            red_from=2,
        ),
        _lines(
            "Incidents by owner",
            (
                f'count by (owner) (max by (kind, subject, owner) ({_P}incident_level{{owner=~"$owner"}}) > 0)',
                "{{owner}}",
            ),
        ),
        _lines(
            "Incidents by kind",
            (f'count by (kind) (max by (kind, subject) ({_P}incident_level{{owner=~"$owner"}}) > 0)', "{{kind}}"),
        ),
        _table(
            "Nobody is told about",
            f"max by (silence, view, kind) ({_P}silence_end_timestamp_seconds) - time() > 0",
            unit="s",
            says="For how long still.",
        ),
    ),
)

HEALTH: Final = Dashboard(
    uid="fp-health",
    title="Features: platform health",
    says="Whether the parts that all of this rests on are alive.",
    panels=(
        _stat("Exporters that do not answer", '(count(up{job="feature_platform"} == 0) or vector(0))'),
        _stat("Ledger down", '1 - max by (part) (feature_platform_part_up{part="ledger"})'),
        _stat("Stores down", 'count(max by (name) (feature_platform_part_up{part="store"}) == 0) or vector(0)'),
        _stat(
            "Schedules and sensors off",
            f'count(max by (subject) ({_P}incident_level{{kind="automation"}}) > 0) or vector(0)',
        ),
        _lines(
            "Since each part was last heard of",
            (f"time() - {_newest('heartbeat_timestamp_seconds', 'part', '')}", "{{part}}"),
            unit="s",
            says="The watch, and the daemons of Dagster; beyond five minutes somebody is told.",
        ),
        _lines(
            "Seconds that a scrape takes",
            ('scrape_duration_seconds{job="feature_platform"}', "{{instance}}"),
            unit="s",
            says="Reading ledger and store; beyond Prometheus' `scrape_timeout` it counts as down.",
        ),
        _lines("Parts that answer", (_newest("part_up", "part, name", ""), "{{part}} {{name}}")),
        _lines(
            "Age of what the sources have brought",
            (f"time() - {_newest('source_loaded_through_timestamp_seconds', 'source', '')}", "{{source}}"),
            (
                f"time() - {_newest('source_looked_through_timestamp_seconds', 'source', '')}",
                "{{source}} looked through",
            ),
            unit="s",
        ),
        _table("Views", _newest("view_info", "view, owner, grain, online", "")),
    ),
)

DASHBOARDS: Final = (FRESHNESS, QUALITY, SYNC, PARITY, COST, INCIDENTS, HEALTH)


def main(*, only_check: bool) -> None:
    """Write the files, or say which of them are not what this file says."""
    wanted = {
        TARGET / f"{one.uid.removeprefix('fp-')}.json": json.dumps(one.to_json(), indent=2, ensure_ascii=False) + "\n"
        for one in DASHBOARDS
    }
    found = {path: path.read_text() for path in TARGET.glob("*.json")}
    if only_check:
        differing = sorted(path.name for path in {*wanted, *found} if wanted.get(path) != found.get(path))
        if differing:
            sys.exit(f"not what build.py says: {', '.join(differing)}; run `python infra/grafana/build.py`")
        return
    for path in found.keys() - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main(only_check="--check" in sys.argv[1:])
