"""Dashboards of the platform: what it costs, what was logged, what is wrong, and whether it lives."""

from __future__ import annotations

from typing import Final

from panels import Dashboard, Variable
from queries import IN, IN_STORES, PREFIX, STORE, STORES, lines, newest, rate, stat, table

COST: Final = Dashboard(
    uid="fp-cost",
    title="Features: memory and cost",
    says="What each view takes: memory of the stores, bytes and rows of the lake, seconds of computing.",
    variables=IN_STORES,
    panels=(
        stat(
            "Memory of the stores, of what they may use",
            f"max({newest('store_memory_bytes', 'store', STORES)}"
            f" / ({newest('store_memory_limit_bytes', 'store', STORES)} > 0))",
            unit="percentunit",
            red_from=0.9,
        ),
        stat("Keys", f"sum({newest('store_keys', 'store', STORES)})", red_from=None),
        stat("Keys thrown away today", f'sum(increase({PREFIX}store_evicted_keys_total{{store=~"$store"}}[1d]))'),
        stat(
            "Rows computed today",
            f'sum(max without (instance, job) (increase({PREFIX}view_computed_rows_total{{view=~"$view"}}[1d])))',
            red_from=None,
        ),
        lines(
            "Valkey memory per view, estimated",
            (newest("store_view_memory_bytes", "view, store", IN), "{{view}} {{store}}"),
            unit="bytes",
            says="From 500 random keys.",
        ),
        lines(
            "Valkey memory",
            (newest("store_memory_bytes", "store", STORES), "{{store}}"),
            (f"{newest('store_memory_limit_bytes', 'store', STORES)} > 0", "{{store}} limit"),
            unit="bytes",
        ),
        lines(
            "Seconds of computing, per day",
            (
                f'max without (instance, job) (increase({PREFIX}view_compute_seconds_total{{view=~"$view"}}[1d]))',
                "{{view}}",
            ),
            unit="s",
        ),
        lines(
            "Processor seconds of runs, per day",
            (
                f'max without (instance, job) (increase({PREFIX}view_cpu_seconds_total{{view=~"$view"}}[1d]))',
                "{{view}}",
            ),
            unit="s",
            says="Computing and auditing batches, also those that failed; not starting the process, and no syncs.",
        ),
        lines(
            "Bytes sent to the stores, per day",
            (
                f"max without (instance, job) (increase({PREFIX}sync_sent_bytes_total{{{IN}}}[1d]))",
                "{{view}} {{store}}",
            ),
            unit="bytes",
        ),
        lines(
            "Bytes computed, per day",
            (
                f'max without (instance, job) (increase({PREFIX}view_computed_bytes_total{{view=~"$view"}}[1d]))',
                "{{view}}",
            ),
            unit="bytes",
        ),
        lines("Lake bytes that readers see", (newest("view_active_bytes", "view"), "{{view}}"), unit="bytes"),
        lines("Partitions that readers see", (newest("view_active_partitions", "view"), "{{view}}")),
        lines(
            "Commands per second, and connections",
            (
                f'rate({PREFIX}store_commands_total{{store=~"$store"}}[$__rate_interval])',
                "{{store}} commands",
            ),
            (newest("store_clients", "store", STORES), "{{store}} connections"),
        ),
    ),
)

INCIDENTS: Final = Dashboard(
    uid="fp-incidents",
    title="Features: incidents",
    says="What is wrong, whose it is, and about what nobody is told.",
    variables=(Variable(name="owner", query=f"label_values({PREFIX}incident_level, owner)"),),
    panels=(
        stat("Errors", f'count(max by (kind, subject) ({PREFIX}incident_level{{owner=~"$owner"}}) >= 2) or vector(0)'),
        stat(
            "Warnings",
            f'count(max by (kind, subject) ({PREFIX}incident_level{{owner=~"$owner"}}) == 1) or vector(0)',
            red_from=None,
        ),
        stat(
            "Silences",
            f"count(max by (silence) ({PREFIX}silence_end_timestamp_seconds) > time()) or vector(0)",
            red_from=None,
        ),
        stat(
            "Since the watch last looked",
            'time() - max by (part) (feature_platform_heartbeat_timestamp_seconds{part="watch"})',
            unit="s",
            red_from=300,
            says="Incidents are opened and closed by it alone.",
        ),
        table(
            "Open incidents",
            f'max by (kind, subject, view, store, owner) ({PREFIX}incident_level{{owner=~"$owner"}}) > 0',
            says="2 is an error, 1 a warning. `feature-platform status` says what to do.",
            red_from=2,
        ),
        lines(
            "Incidents by owner",
            (
                f'count by (owner) (max by (kind, subject, owner) ({PREFIX}incident_level{{owner=~"$owner"}}) > 0)',
                "{{owner}}",
            ),
        ),
        lines(
            "Incidents by kind",
            (f'count by (kind) (max by (kind, subject) ({PREFIX}incident_level{{owner=~"$owner"}}) > 0)', "{{kind}}"),
        ),
        table(
            "Nobody is told about",
            f"max by (silence, view, kind) ({PREFIX}silence_end_timestamp_seconds) - time() > 0",
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
        stat("Exporters that do not answer", '(count(up{job="feature_platform"} == 0) or vector(0))'),
        stat("Ledger down", '1 - max by (part) (feature_platform_part_up{part="ledger"})'),
        stat("Stores down", 'count(max by (name) (feature_platform_part_up{part="store"}) == 0) or vector(0)'),
        stat(
            "Schedules and sensors off",
            f'count(max by (subject) ({PREFIX}incident_level{{kind="automation"}}) > 0) or vector(0)',
        ),
        stat(
            "Stores that the last canary did not come through to",
            f"count(max by (store) ({PREFIX}canary_ok) == 0) or vector(0)",
        ),
        lines(
            "Since a canary came through",
            (f"time() - {newest('canary_data_timestamp_seconds', 'store', '')}", "{{store}}"),
            unit="s",
            says="A value is written, synced, read and compared every five minutes; beyond fifteen somebody is told.",
        ),
        lines(
            "From written to read, of the newest canary",
            (newest("canary_seconds", "store", ""), "{{store}}"),
            unit="s",
        ),
        lines(
            "Since each part was last heard of",
            (f"time() - {newest('heartbeat_timestamp_seconds', 'part', '')}", "{{part}}"),
            unit="s",
            says="The watch, and the daemons of Dagster; beyond five minutes somebody is told.",
        ),
        lines(
            "Seconds that a scrape takes",
            ('scrape_duration_seconds{job="feature_platform"}', "{{instance}}"),
            unit="s",
            says="Reading ledger and store; beyond Prometheus' `scrape_timeout` it counts as down.",
        ),
        lines("Parts that answer", (newest("part_up", "part, name", ""), "{{part}} {{name}}")),
        lines(
            "Age of what the sources have brought",
            (f"time() - {newest('source_loaded_through_timestamp_seconds', 'source', '')}", "{{source}}"),
            (
                f"time() - {newest('source_looked_through_timestamp_seconds', 'source', '')}",
                "{{source}} looked through",
            ),
            unit="s",
        ),
        table("Views", newest("view_info", "view, owner, grain, online", "")),
    ),
)

LOG: Final = Dashboard(
    uid="fp-log",
    title="Features: feature log",
    says="What models were given: how much of it waits, is in the lake, or will never be there.",
    variables=(STORE,),
    panels=(
        stat("Requests that wait", f"sum({newest('log_waiting_entries', 'store', STORES)})", red_from=None),
        stat(
            "The oldest waits since",
            f"max(time() - ({newest('log_oldest_waiting_timestamp_seconds', 'store', STORES)} > 0)) or vector(0)",
            unit="s",
            red_from=3600,
        ),
        stat(
            "Missing today",
            f"sum(max without (instance, job) (increase({PREFIX}log_missing_entries_total{{{STORES}}}[1d])))",
        ),
        stat(
            "Brought to the lake today",
            f"sum(max without (instance, job) (increase({PREFIX}log_drained_entries_total{{{STORES}}}[1d])))",
            red_from=None,
        ),
        lines("Requests that wait", (newest("log_waiting_entries", "store", STORES), "{{store}}")),
        lines(
            "Since the last drain that took anything over",
            (f"time() - {newest('log_drained_timestamp_seconds', 'store', STORES)}", "{{store}}"),
            unit="s",
        ),
        lines(
            "Requests and rows brought to the lake, per second",
            (rate("log_drained_entries_total", "store", STORES), "{{store}} requests"),
            (rate("log_drained_rows_total", "store", STORES), "{{store}} rows"),
        ),
        lines(
            "Requests that are missing, per second",
            (rate("log_missing_entries_total", "store, reason", STORES), "{{store}} {{reason}}"),
            says="Lost to the stream's cap, dropped by clients, unreadable.",
        ),
    ),
)
