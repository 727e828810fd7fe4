"""Dashboards of views: how fresh and how good they are, and whether stores hold them."""

from __future__ import annotations

from typing import Final

from panels import Dashboard
from queries import (
    AGE,
    COMPUTED,
    IN,
    IN_STORES,
    OF_VIEWS,
    PART_STORE,
    PREFIX,
    PUBLISHED,
    heading,
    lines,
    newest,
    rate,
    sla,
    stat,
    table,
    wrong,
)

FRESHNESS: Final = Dashboard(
    uid="fp-freshness",
    title="Features: freshness and SLA",
    says="How old what is served is, against what each view promises and each service needs.",
    variables=IN_STORES,
    panels=(
        stat("Views beyond their SLA", f"count({AGE} > {sla('error')}) or vector(0)"),
        stat("Views that get old", f"count({AGE} > {sla('warn')}) or vector(0)"),
        stat(
            "Needs of services not met",
            f'count(max by (subject) ({PREFIX}incident_level{{kind="need",view=~"$view"}}) > 0) or vector(0)',
        ),
        stat(
            "Within the SLA, of the time shown",
            f"avg(avg_over_time(({AGE} < bool {sla('error')})[$__range:5m]))",
            unit="percentunit",
            red_from=None,
            says="Share of all looks, five minutes apart, at which a view in a store was as fresh as it promises.",
        ),
        lines(
            "Age of the newest served event",
            (AGE, "{{view}} {{store}}"),
            unit="s",
            says="Of a view that is not served: the newest published event.",
        ),
        lines(
            "Share of the SLA used up",
            (f"{AGE} / {sla('error')}", "{{view}} {{store}}"),
            unit="percentunit",
            says="Beyond 100 % the view is stale.",
        ),
        heading("Where the delay arises"),
        lines(
            "Age of the newest data of each stage",
            (
                f"time() - {newest('view_frontier_timestamp_seconds', 'view, stage, store')}",
                "{{view}} {{stage}} {{store}}",
            ),
            unit="s",
            says="Source, computed, published, served; the gap between two is the lag of the later one.",
        ),
        lines(
            "Last batch: from computed to published, from published to online",
            (
                f"{newest('view_clock_timestamp_seconds', 'view', PUBLISHED)}"
                f" - {newest('view_clock_timestamp_seconds', 'view', COMPUTED)}",
                "{{view}} published",
            ),
            (
                newest("view_clock_timestamp_seconds", "view, store", f'{IN},clock="online"')
                + " - on (view) group_left () "
                + newest("view_clock_timestamp_seconds", "view", PUBLISHED),
                "{{view}} online {{store}}",
            ),
            unit="s",
        ),
        lines(
            "Age of what the sources have brought",
            (f"time() - {newest('source_loaded_through_timestamp_seconds', 'source', '')}", "{{source}}"),
            unit="s",
        ),
        lines(
            "Arrival lag of the rows of the last look",
            (newest("source_arrival_lag_seconds", "source, quantile", ""), "{{source}} {{quantile}}"),
            unit="s",
            says="From event time to arrival; 1 is the longest.",
        ),
        table(
            "Promises: what age is allowed",
            newest("view_sla_seconds", "view, severity"),
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
        stat(
            "Views that fail",
            wrong("failing"),
        ),
        stat(
            "Views with a batch held",
            wrong("held"),
        ),
        stat(
            "Views with late rows to decide on",
            wrong("late"),
        ),
        stat(
            "Silent sources",
            f'count(max by (subject) ({PREFIX}incident_level{{kind="source",view=~"$view"}}) > 0) or vector(0)',
        ),
        lines(
            "Checks that failed, per day",
            (
                "sum by (view) (max without (instance, job)"
                f' (increase({PREFIX}view_checks_total{{verdict="failed",view=~"$view"}}[1d])))',
                "{{view}}",
            ),
        ),
        lines(
            "Checks that passed, per day",
            (
                "sum by (view) (max without (instance, job)"
                f' (increase({PREFIX}view_checks_total{{verdict="passed",view=~"$view"}}[1d])))',
                "{{view}}",
            ),
        ),
        lines(
            "Batches, per day",
            (
                "sum by (view, state) (max without (instance, job)"
                f' (increase({PREFIX}view_batches_total{{view=~"$view"}}[1d])))',
                "{{view}} {{state}}",
            ),
        ),
        lines("Rows that readers see", (newest("view_active_rows", "view"), "{{view}}")),
        lines(
            "Partitions that rows came too late for",
            (newest("view_late_partitions", "view, state"), "{{view}} {{state}}"),
        ),
        lines("Rows that came too late, ever", (newest("view_late_rows_total", "view"), "{{view}}")),
        table("What is wrong", f"{newest('view_problems', 'view, owner, kind')} > 0"),
    ),
)

SYNC: Final = Dashboard(
    uid="fp-sync",
    title="Features: sync",
    says="What is brought to the online stores, how fast, and what they have not got yet.",
    variables=IN_STORES,
    panels=(
        stat(
            "Publishes that a store has not got",
            f"sum({newest('view_unserved_publishes', 'view, store', IN)})",
            red_from=None,
        ),
        stat(
            "Views that a store lags behind for, for hours",
            wrong("unserved", "view, store", IN),
        ),
        stat(
            "Views that a store has lost",
            wrong("lost", "view, store", IN),
        ),
        stat(
            "Stores that do not answer",
            f"count({newest('part_up', 'name', PART_STORE)} == 0) or vector(0)",
        ),
        lines(
            "Entities per second while a sync runs",
            (
                f"{rate('sync_entities_total', 'view, store')} / {rate('sync_seconds_total', 'view, store')}",
                "{{view}} {{store}}",
            ),
            says="Over the syncs of the last hour; empty when there was none.",
        ),
        lines(
            "Seconds per sync",
            (
                f"{rate('sync_seconds_total', 'view, store')} / {rate('sync_runs_total', 'view, store')}",
                "{{view}} {{store}}",
            ),
            unit="s",
        ),
        lines("Values written, per second", (rate("sync_written_total", "view, store"), "{{view}} {{store}}")),
        lines(
            "Tombstones, and writes that a later position refused, per second",
            (rate("sync_tombstones_total", "view, store"), "{{view}} {{store}} no row"),
            (rate("sync_refused_total", "view, store"), "{{view}} {{store}} refused"),
        ),
        lines(
            "Publishes that a store has not got",
            (newest("view_unserved_publishes", "view, store", IN), "{{view}} {{store}}"),
        ),
        lines("Syncs, per second", (rate("sync_runs_total", "view, store"), "{{view}} {{store}}")),
    ),
)

PARITY: Final = Dashboard(
    uid="fp-parity",
    title="Features: parity",
    says="Whether the stores hold what the ledger derives, by the comparisons that were made.",
    variables=IN_STORES,
    panels=(
        stat(
            "Views that differ",
            wrong("parity", "view, store", IN),
        ),
        stat(
            "Oldest comparison",
            f"max(time() - {newest('parity_checked_timestamp_seconds', 'view, store', IN)})",
            unit="s",
            red_from=None,
        ),
        stat(
            "Entities that differed in the last comparisons",
            f"sum({newest('parity_differing', 'view, store', IN)})",
        ),
        stat(
            "Entities of the last comparisons",
            f"sum({newest('parity_compared', 'view, store', IN)})",
            red_from=None,
        ),
        lines(
            "Entities that differed in the last comparison",
            (newest("parity_differing", "view, store", IN), "{{view}} {{store}}"),
            says="Those that a sync settles by itself are among them; the alert leaves them out.",
        ),
        lines(
            "Time since the last comparison",
            (
                f"time() - {newest('parity_checked_timestamp_seconds', 'view, store', IN)}",
                "{{view}} {{store}}",
            ),
            unit="s",
        ),
    ),
)
