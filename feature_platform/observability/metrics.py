"""What the ledger and the online store say, as Prometheus metrics.

Rule: instants, not ages, so that the clock that judges them is the reader's and goes on when this process does not.
Every view of the registry has its series from the first scrape on, with zeros, because a series that is absent raises
no alert. Names and labels are a promise: docs/reference/metrics.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from prometheus_client import Metric

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.batch import PublishedBatch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.late_data import Lags, LateState, judge_late
from feature_platform.ledger import Ledger
from feature_platform.observability.canaries import canary_metrics
from feature_platform.observability.families import counter, gauge
from feature_platform.observability.freshness import newest_event
from feature_platform.observability.frontiers import frontiers_of
from feature_platform.observability.incident_metrics import incident_metric
from feature_platform.observability.kinds import LEDGER_KINDS, Problem
from feature_platform.observability.log_metrics import log_metrics, waiting_metrics
from feature_platform.observability.problems import find_problems, served_facts
from feature_platform.observability.store_meters import StoreMeters


def ledger_metrics(ledger: Ledger, registry: FeatureRegistry, *, store: str, now: datetime) -> Iterator[Metric]:
    """Everything the ledger knows, at one instant."""
    views = tuple(registry.views.values())
    yield gauge(
        "view_info",
        "What a feature view is; always 1",
        ("view", "owner", "grain", "online"),
        [((view.key, view.owner.name, view.grain.value, view.online.value), 1) for view in views],
    )
    yield gauge(
        "view_read_by",
        "A feature service that reads the view, and its owner; always 1",
        ("view", "service", "owner"),
        [
            ((view.key, service.name, service.owner.name), 1)
            for view in views
            for service in registry.services_reading(view.key)
        ],
    )
    yield gauge("view_sla_seconds", "Age of the newest event that is allowed", ("view", "severity"), _slas(views))
    active = {view.key: ledger.active_batches(view.key) for view in views}
    yield from _freshness(ledger, views, active, store=store)
    yield _frontiers(ledger, views, store=store)
    yield gauge(
        "view_clock_timestamp_seconds",
        "Clocks of the newest active batch: event, ingested, computed, published, online",
        ("view", "store", "clock"),
        [sample for view in views for sample in _clocks(ledger, view, active[view.key], store=store)],
    )
    yield from _holdings(ledger, active)
    yield from _totals(ledger)
    yield from log_metrics(ledger.drain_totals(), store=store)
    yield from _late(ledger, registry)
    yield from _problems(views, find_problems(ledger, registry, stores=(store,), now=now), store=store)
    yield incident_metric(ledger, registry)
    yield from _parity(ledger, views, store=store)
    yield from canary_metrics(ledger, registry, store=store)
    yield gauge(
        "silence_end_timestamp_seconds",
        "When a silence ends that somebody made; what it is about is in its labels, empty for everything",
        ("silence", "view", "kind"),
        [((one.silence_id[:8], one.view or "", one.kind or ""), one.ends_at.timestamp()) for one in ledger.silences()],
    )
    yield gauge(
        "heartbeat_timestamp_seconds",
        "When a part that cannot be asked from outside last said that it lives: the watch, each daemon of Dagster",
        ("part",),
        [((part,), at.timestamp()) for part, at in ledger.heartbeats().items()],
    )
    yield gauge(
        "source_loaded_through_timestamp_seconds",
        "Up to which arrival instant nothing of a source is missing in the lake",
        ("source",),
        [
            ((source.name,), through.timestamp())
            for source in registry.sources.values()
            if (through := ledger.loaded_through(source.name))
        ],
    )


def store_metrics(meters: StoreMeters, *, store: str) -> Iterator[Metric]:
    """What one online store says of itself."""
    for name, help_, value in (
        ("memory_bytes", "Memory that Valkey uses", meters.memory_bytes),
        ("memory_limit_bytes", "Memory that Valkey may use; 0 means all there is", meters.memory_limit_bytes),
        ("clients", "Connections", meters.clients),
        ("keys", "Keys, of entities and of the platform's own", meters.keys),
    ):
        yield gauge(f"store_{name}", help_, ("store",), [((store,), value)])
    for name, help_, value in (
        ("evicted_keys", "Keys that Valkey gave up for want of memory: values that are lost", meters.evicted_keys),
        ("commands", "Commands that Valkey served since it started", meters.commands),
    ):
        yield counter(f"store_{name}", help_, ("store",), [((store,), value)])
    yield gauge(
        "store_view_memory_bytes",
        "Memory of a view's keys, estimated from a random sample of keys",
        ("store", "view"),
        [((store, view), size) for view, size in sorted(meters.memory_of_views.items())],
    )
    yield from waiting_metrics(meters, store=store)


def up_metric(parts: Mapping[tuple[str, str], bool]) -> Metric:
    """Whether each part answered, by its kind (`ledger`, `store`) and name."""
    return gauge(
        "part_up",
        "1 if a part the exporter reads answered, else 0",
        ("part", "name"),
        [(labels, int(is_up)) for labels, is_up in parts.items()],
    )


def _freshness(
    ledger: Ledger, views: Sequence[FeatureView], active: Mapping[str, Sequence[PublishedBatch]], *, store: str
) -> Iterator[Metric]:
    served = [(view, served_facts(ledger, view, store)) for view in views]
    labels = ("view", "owner", "store")

    def named(view: FeatureView, where: str | None) -> tuple[str, ...]:
        return (view.key, view.owner.name, where or "")

    yield gauge(
        "view_data_timestamp_seconds",
        "Newest event that is served (or published, if the view is not served); without one, since when one is due",
        labels,
        [(named(v, facts.store), (facts.newest_event or facts.expected_since).timestamp()) for v, facts in served],
    )
    yield gauge(
        "view_ever_served",
        "1 if the view has ever served an event, else 0",
        labels,
        [(named(view, facts.store), int(facts.newest_event is not None)) for view, facts in served],
    )
    yield gauge(
        "view_published_timestamp_seconds",
        "Newest event that training sees",
        ("view", "owner"),
        [
            ((view.key, view.owner.name), newest.timestamp())
            for view in views
            if (newest := newest_event(active[view.key]))
        ],
    )
    yield gauge(
        "view_unserved_publishes",
        "Publishes that the online store has not got yet",
        labels,
        [
            (named(view, store), ledger.head(view.key) - ledger.synced_position(view.key, store))
            for view in views
            if view.is_served
        ],
    )


def _frontiers(ledger: Ledger, views: Sequence[FeatureView], *, store: str) -> Metric:
    return gauge(
        "view_frontier_timestamp_seconds",
        "Newest instant of data that a stage holds: source, computed, published, served",
        ("view", "store", "stage"),
        [
            ((view.key, store if stage == "served" else "", stage), at.timestamp())
            for view in views
            for stage, at in frontiers_of(ledger, view, store).instants().items()
        ],
    )


def _clocks(
    ledger: Ledger, view: FeatureView, active: Sequence[PublishedBatch], *, store: str
) -> Iterator[tuple[tuple[str, ...], float]]:
    filled = [batch for batch in active if batch.row_count]
    if not filled:
        return
    newest = max(filled, key=lambda batch: batch.partition.end)
    clocks = {
        "event": newest.partition.end,
        "ingested": newest.source_watermark,
        "computed": newest.computed_at,
        "published": newest.published_at,
        "online": ledger.online_at(view.key, store).get(newest.batch_id),
    }
    for clock, at in clocks.items():
        if at is not None:
            yield (view.key, store if clock == "online" else "", clock), at.timestamp()


def _holdings(ledger: Ledger, active: Mapping[str, Sequence[PublishedBatch]]) -> Iterator[Metric]:
    for name, help_, size in (
        ("partitions", "Partitions with a published batch", len),
        ("rows", "Rows of the batches that readers see", lambda batches: sum(one.row_count for one in batches)),
    ):
        samples = [((view,), size(batches)) for view, batches in active.items()]
        yield gauge(f"view_active_{name}", help_, ("view",), samples)
    sizes = ledger.bytes_of(one.batch_id for batches in active.values() for one in batches)
    samples = [((view,), sizes.get(view, 0)) for view in active]
    yield gauge("view_active_bytes", "Bytes in the lake of the batches that readers see", ("view",), samples)


def _totals(ledger: Ledger) -> Iterator[Metric]:
    views, syncs = ledger.view_totals(), ledger.sync_totals()
    yield counter(
        "view_batches",
        "Batches, by what happened to them",
        ("view", "state"),
        [
            ((one.view, state), getattr(one, state))
            for one in views
            for state in ("opened", "computed", "failed", "published")
        ],
    )
    yield counter(
        "view_checks",
        "Verdicts of checks on batches",
        ("view", "verdict"),
        [
            ((one.view, verdict), count)
            for one in views
            for verdict, count in (("passed", one.checks_passed), ("failed", one.checks_failed))
        ],
    )
    for name, help_, field in (
        ("view_computed_rows", "Rows computed", "rows"),
        ("view_computed_bytes", "Bytes computed", "bytes"),
        ("view_compute_seconds", "Seconds that dbt took to compute batches", "compute_seconds"),
        (
            "view_cpu_seconds",
            "Processor seconds of runs that computed and audited batches, or failed to",
            "cpu_seconds",
        ),
    ):
        yield counter(name, help_, ("view",), [((one.view,), getattr(one, field)) for one in views])
    for name, help_, field in (
        ("sync_runs", "Syncs that ended", "syncs"),
        ("sync_entities", "Entities that syncs asserted", "entities"),
        ("sync_written", "Values that syncs changed", "written"),
        ("sync_tombstones", "Entities that syncs asserted to have no row", "tombstones"),
        ("sync_refused", "Values that the store held from a later position already", "refused"),
        ("sync_seconds", "Seconds that syncs took", "seconds"),
        ("sync_sent_bytes", "Bytes that syncs sent to the store, commands and rows", "bytes_sent"),
    ):
        yield counter(name, help_, ("view", "store"), [((one.view, one.store), getattr(one, field)) for one in syncs])
    yield gauge(
        "sync_ended_timestamp_seconds",
        "When the last sync ended",
        ("view", "store"),
        [((one.view, one.store), one.last_ended_at.timestamp()) for one in syncs],
    )


def _late(ledger: Ledger, registry: FeatureRegistry) -> Iterator[Metric]:
    views = tuple(registry.views.values())
    states = {
        view.key: Counter(judge_late(late, view.late_data) for late in ledger.late_partitions(view.key))
        for view in views
    }
    yield gauge(
        "view_late_partitions",
        "Partitions that rows came too late for, by what is to happen with them",
        ("view", "state"),
        [((view, state.value), counts[state]) for view, counts in states.items() for state in LateState],
    )
    yield counter(
        "view_late_rows",
        "Source rows that came too late for at least one computed partition",
        ("view",),
        [((view.key,), ledger.late_totals(view.key)[0]) for view in views],
    )
    yield gauge(
        "view_late_lag_seconds",
        "From event time to arrival, of the rows that the last look which found some found too late for the view",
        ("view", "quantile"),
        [
            ((view.key, quantile), lag.total_seconds())
            for view in views
            if (lags := ledger.late_lags(view.key))
            for quantile, lag in _quantiles(lags)
        ],
    )
    looks = {one.name: look for one in registry.sources.values() for look in ledger.scans(one.name, limit=1)}
    yield gauge(
        "source_looked_through_timestamp_seconds",
        "Up to which arrival instant late rows were looked for",
        ("source",),
        [((source,), look.arrived_through.timestamp()) for source, look in looks.items()],
    )
    yield gauge(
        "source_arrival_lag_seconds",
        "From event time to arrival, of the rows of the last look; the quantile 1 is the longest",
        ("source", "quantile"),
        [
            ((source, quantile), lag.total_seconds())
            for source, look in looks.items()
            if (lags := look.lags)
            for quantile, lag in _quantiles(lags)
        ],
    )


def _quantiles(lags: Lags) -> tuple[tuple[str, timedelta], ...]:
    return (("0.5", lags.p50), ("0.9", lags.p90), ("0.99", lags.p99), ("1", lags.longest))


def _parity(ledger: Ledger, views: Sequence[FeatureView], *, store: str) -> Iterator[Metric]:
    last = {view.key: one for view in views if (one := ledger.last_parity(view.key, store))}
    for name, help_, values in (
        (
            "checked_timestamp_seconds",
            "When a store was last compared with the ledger",
            {view: one.checked_at.timestamp() for view, one in last.items()},
        ),
        (
            "compared",
            "Rows that the last comparison looked at, of batches and pushed ones",
            {view: one.compared for view, one in last.items()},
        ),
        (
            "differing",
            "Rows of the last comparison that differed, also those that a sync settles",
            {view: one.differing for view, one in last.items()},
        ),
    ):
        yield gauge(
            f"parity_{name}", help_, ("view", "store"), [((view, store), value) for view, value in values.items()]
        )


def _problems(views: Sequence[FeatureView], found: Sequence[Problem], *, store: str) -> Iterator[Metric]:
    counts = {(view.key, kind): 0 for view in views for kind in LEDGER_KINDS}
    for problem in found:
        counts[problem.view, problem.kind] += 1
    owners = {view.key: view.owner.name for view in views}
    yield gauge(
        "view_problems",
        "What is wrong now with a view, as `feature-platform status` lists it, by kind",
        ("view", "owner", "store", "kind"),
        [((view, owners[view], store, kind), count) for (view, kind), count in counts.items()],
    )


def _slas(views: Iterable[FeatureView]) -> list[tuple[tuple[str, ...], float]]:
    return [
        ((view.key, severity), bound.total_seconds())
        for view in views
        for severity, bound in (("warn", view.freshness.warn_after), ("error", view.freshness.error_after))
        if bound is not None
    ]
