"""The exporter's metrics, on a real ledger and a real Valkey."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import valkey
from ledger_batches import measured, publish_batches
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tiny_platform import TinyPlatform

from feature_platform.domain.batch import CheckOutcome
from feature_platform.domain.feature_service import FeatureService, ViewSelection
from feature_platform.domain.feature_view import Owner
from feature_platform.ledger import Ledger
from feature_platform.observability.exporter import PlatformCollector
from feature_platform.observability.families import PREFIX
from feature_platform.observability.kinds import LEDGER_KINDS
from feature_platform.observability.metrics import ledger_metrics
from feature_platform.online.feature_log import STREAM
from feature_platform.sync import sync

LOG = logging.getLogger("test_exporter")
ROOT = Path(__file__).parents[2]
Samples = dict[tuple[str, ...], float]


def scrape(tiny: TinyPlatform) -> dict[str, Samples]:
    """Per metric, without the prefix: label values in the order of label names, and the value."""
    registry = CollectorRegistry()
    registry.register(PlatformCollector(tiny.settings, log=LOG))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    found: dict[str, Samples] = {}
    for family in families:
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name.removeprefix("feature_platform_"), {})[labels] = sample.value
    return found


def collect(tiny: TinyPlatform) -> list[Metric]:
    return [*PlatformCollector(tiny.settings, log=LOG).collect()]


def names(tiny: TinyPlatform) -> set[str]:
    """Every metric that the exporter can tell, with samples or without."""
    return {f"{one.name}_total" if one.type == "counter" else one.name for one in collect(tiny)}


def values_of(samples: Samples, view: str) -> Iterable[float]:
    return [value for labels, value in samples.items() if view in labels]


def costs(samples: dict[str, Samples], view: str) -> tuple[float, bool, bool]:
    """Entities synced, whether their bytes were counted, and the processor seconds of the run."""
    here = ("default", view)
    sent, cpu = samples["sync_sent_bytes_total"][here], samples["view_cpu_seconds_total"][(view,)]
    return samples["sync_entities_total"][here], sent > 2 * len(view), cpu > 0


def test_what_is_served_and_what_is_not(tiny: TinyPlatform, valkey_url: str) -> None:
    tiny.settings = replace(tiny.settings, valkey_url=valkey_url)
    tiny.add_events((1, 10.0, "2024-01-02 09:00"), (2, 1.0, "2024-01-02 10:00"))
    tiny.load_through("2024-01-10")
    before = scrape(tiny)
    view = tiny.registry.view("user_activity")
    assert list(before["view_ever_served"].values()) == [0, 0]
    assert next(iter(values_of(before["view_data_timestamp_seconds"], view.key))) >= view.begin.timestamp()
    assert set(before["view_problems"].values()) <= {0, 1}
    assert len(values_of(before["view_problems"], view.key)) == len(LEDGER_KINDS)

    tiny.materialize("user_activity", "2024-01-02")
    published = scrape(tiny)
    assert list(values_of(published["view_unserved_publishes"], view.key)) == [1]
    assert all(
        [*values_of(published[name], view.key)] == [*values_of(before[name], view.key)]
        for name in ("view_ever_served", "view_data_timestamp_seconds")
    ), "published is not served"
    event = datetime(2024, 1, 3, tzinfo=UTC).timestamp()
    assert list(values_of(published["view_published_timestamp_seconds"], view.key)) == [event]

    sync(tiny.settings, tiny.registry, view, run_id="run")
    with closing(valkey.Valkey.from_url(valkey_url)) as client:
        client.set("another@1:{1}", bytes(100))  # the values of 2024 are expired, and leave no key
    after = scrape(tiny)
    assert list(values_of(after["view_data_timestamp_seconds"], view.key)) == [event]
    assert list(values_of(after["view_unserved_publishes"], view.key)) == [0]
    clocks = {labels[0]: value for labels, value in after["view_clock_timestamp_seconds"].items() if view.key in labels}
    assert list(clocks) == ["event", "ingested", "computed", "published", "online"]
    assert clocks["event"] == event
    assert clocks["ingested"] == (datetime(2024, 1, 2, 10, tzinfo=UTC) + timedelta(minutes=5)).timestamp()
    assert clocks["computed"] <= clocks["published"] <= clocks["online"]
    assert list(values_of(after["view_active_rows"], view.key)) == [2]
    assert after["view_batches_total"][("published", view.key)] == 1
    assert after["view_checks_total"][("passed", view.key)] > 0
    assert costs(after, view.key) == (2, True, True)
    assert after["store_view_memory_bytes"][("default", "another@1")] > after["store_keys"][("default",)]
    # the feature log: nothing yet, then one request that waits, then what drains counted
    assert (after["log_waiting_entries"], after["log_oldest_waiting_timestamp_seconds"]) == (
        {("default",): 0},
        {("default",): 0},
    )
    assert set(after["log_missing_entries_total"].values()) == {0}
    with closing(valkey.Valkey.from_url(valkey_url)) as client:
        client.xadd(STREAM, {"e": b""}, id="1700000000500-0")
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        for _ in range(2):
            ledger.record_drain("default", entries=5, rows=9, unreadable=0, lost=2, dropped=1)
    logged = scrape(tiny)
    told = {sample.name: set(sample.labels) for one in collect(tiny) for sample in one.samples}
    assert {name: set(documented()[name].split(", ")) for name in told} == told
    assert logged["log_waiting_entries"] == {("default",): 1}
    assert logged["log_oldest_waiting_timestamp_seconds"] == {("default",): 1_700_000_000.5}
    assert logged["log_drained_rows_total"] == {("default",): 18}
    assert logged["log_missing_entries_total"] == {
        ("lost", "default"): 4,
        ("dropped", "default"): 2,
        ("unreadable", "default"): 0,
    }
    assert list(values_of(logged["view_active_bytes"], view.key)) == list(
        values_of(logged["view_computed_bytes_total"], view.key)
    )
    assert after["sync_ended_timestamp_seconds"][("default", view.key)] >= clocks["online"]
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        for seconds in (60, 0):  # a beat that arrives late sets nothing back
            ledger.beat({"watch": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)})
    assert scrape(tiny)["heartbeat_timestamp_seconds"] == {
        ("watch",): datetime(2026, 1, 1, 0, 1, tzinfo=UTC).timestamp()
    }
    assert after["view_sla_seconds"][("error", view.key)] == 50 * 3600


def test_problems_comparisons_verdicts_and_how_far_each_stage_is(tiny: TinyPlatform) -> None:
    tiny.settings = replace(tiny.settings, valkey_url="valkey://127.0.0.1:1")
    view, day = tiny.registry.view("user_activity"), lambda number: datetime(2024, 1, number, tzinfo=UTC).timestamp()
    tiny.load_through("2024-01-10")
    first, second, third = tiny.partitions("user_activity", "2024-01-02", "2024-01-03", "2024-01-04")
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        publish_batches(ledger, view, [first])
        sync_id = ledger.begin_sync(view.key, "default", 0, 1, server_run_id="server", run_id="run")
        ledger.end_sync(sync_id, entities=1, written=1, tombstones=0, refused=0, seconds=0.1)
        publish_batches(ledger, view, [second])
        (bad,) = ledger.open_batches(view, [third], run_id="bad")
        ledger.record_computed([measured(bad.batch_id, 20)])
        ledger.record_checks(
            CheckOutcome(batch_id=bad.batch_id, check=check, kind="data_test", passed=passed, blocking=True)
            for check, passed in (("a", True), ("b", False), ("c", False))
        )
        ledger.record_failed([bad.batch_id], "a check failed")
        ledger.record_parity(
            view=view.key, store="default", compared=10, differing=3, only_late=False, fraction=0.1, seed="a",
            outcomes={}, causes={"lost write": 3}, seconds=0.1,
        )  # fmt: skip
    found = scrape(tiny)
    told = {kind for (kind, _, _, key), count in found["view_problems"].items() if count and key == view.key}
    assert told >= {"stale", "failing", "parity"}
    assert told.isdisjoint({"held", "late", "unfinished", "lost"})
    here = ("default", view.key)
    assert (found["parity_compared"][here], found["parity_differing"][here]) == (10, 3)
    checks = found["view_checks_total"]
    assert (checks["passed", view.key], checks["failed", view.key]) == (3, 2)
    frontiers = found["view_frontier_timestamp_seconds"].items()
    assert {labels[:2]: at for labels, at in frontiers if view.key in labels} == {
        ("source", ""): day(10), ("computed", ""): day(5), ("published", ""): day(4), ("served", "default"): day(3)
    }  # fmt: skip


def test_services_that_read_a_view_are_told_with_their_own_owners(tiny: TinyPlatform) -> None:
    view = tiny.registry.view("user_activity")
    service = FeatureService(
        name="prediction", description="", owner=Owner(name="models", email="models@example.com"),
        selections=(ViewSelection(view=view.name, version=1, features=view.feature_names),), latency_budget=None,
        batch_size=None, freshness=None, unique_id="exposure.tiny.prediction", path="models/exposures.yml",
    )  # fmt: skip
    registry = replace(tiny.registry, services={service.name: service})
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        metrics = {m.name: m for m in ledger_metrics(ledger, registry, store="default", now=ledger.now())}
    samples = metrics["feature_platform_view_read_by"].samples
    assert [(one.labels, one.value) for one in samples] == [
        ({"view": view.key, "service": "prediction", "owner": "models"}, 1)
    ]


def test_parts_that_are_down_are_told_and_the_rest_too(tiny: TinyPlatform, valkey_server: str) -> None:
    tiny.settings = replace(tiny.settings, valkey_url="valkey://127.0.0.1:1")
    found = scrape(tiny)
    assert found["part_up"] == {("", "ledger"): 1, ("default", "store"): 0}
    assert "view_info" in found
    assert "store_keys" not in found

    tiny.settings = replace(tiny.settings, valkey_url=valkey_server, ledger_url="postgresql://nobody@127.0.0.1:1/none")
    found = scrape(tiny)
    assert found["part_up"] == {("", "ledger"): 0, ("default", "store"): 1}
    assert "view_info" not in found
    assert "store_keys" in found


def test_an_address_that_is_wrong_is_a_store_that_is_down(tiny: TinyPlatform) -> None:
    tiny.settings = replace(tiny.settings, valkey_url="nonsense://nowhere")
    assert scrape(tiny)["part_up"] == {("", "ledger"): 1, ("default", "store"): 0}


def test_what_the_watch_has_open_is_told_by_the_owners_name_and_then_as_over(tiny: TinyPlatform) -> None:
    tiny.settings = replace(tiny.settings, valkey_url="valkey://127.0.0.1:1")
    owner = tiny.registry.view("user_activity").owner
    told = {"severity": "error", "message": "m"}
    with Ledger.connect(tiny.settings.ledger_url) as ledger:
        opened = [
            ledger.open_incident(kind=kind, subject=subject, owner=by, **{**told, **also})
            for kind, subject, by, also in (
                ("source", "user_activity@1 in source s", owner.email, {"severity": "warn"}),
                ("need", "user_activity@1 in store eu for scores", "unknown@example.com", {}),
                ("automation", "schedule restore", "platform", {}),
            )
        ]
        # labels of names: kind, owner, store, subject, view
        assert scrape(tiny)["incident_level"] == {
            ("source", owner.name, "", "user_activity@1 in source s", "user_activity@1"): 1,
            ("need", "unknown@example.com", "eu", "user_activity@1 in store eu for scores", "user_activity@1"): 2,
            ("automation", "platform", "", "schedule restore", ""): 2,
        }
        assert opened[0] is not None
        ledger.change_incident(opened[0], severity="error", message="m")
        for one in opened[1:]:
            assert one is not None
            ledger.resolve_incident(one)
        again = ledger.open_incident(kind="automation", subject="schedule restore", owner="platform", **told)
        assert again is not None
        assert [level for _, level in sorted(scrape(tiny)["incident_level"].items())] == [2, 0, 2]


def test_rules_and_reference_name_what_is_exported_and_nothing_else(tiny: TinyPlatform, valkey_url: str) -> None:
    tiny.settings = replace(tiny.settings, valkey_url=valkey_url)
    exported = names(tiny)
    rules = (ROOT / "infra" / "prometheus" / "rules.yml").read_text()
    assert set(re.findall(rf"{PREFIX}\w+", rules)) <= exported
    for dashboard in (ROOT / "infra" / "grafana" / "dashboards").glob("*.json"):
        assert set(re.findall(rf"{PREFIX}\w+", dashboard.read_text())) <= exported, dashboard.name
    assert sorted(documented()) == sorted(exported)


def documented() -> dict[str, str]:
    """Every metric of the reference, and its labels."""
    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \|", (ROOT / "docs" / "reference" / "metrics.md").read_text(), flags=re.MULTILINE
    )
    return {PREFIX + name: labels for names_, labels in rows for name in re.findall(r"`(\w+)`", names_)}
