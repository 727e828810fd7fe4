"""Mode `served` against Valkey itself: what a client read, at any instant of a real history, is what the mode says.

Histories are drawn at random: batches are published in and out of order, rows vanish and move, syncs run, overlap with
reads, die between any two steps, and the store is emptied. Nothing about time is faked; every read notes its own.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from offline_platform import Platform, arrow, declare, registry_of

from feature_platform import lake
from feature_platform.cli.training_sets import training_set
from feature_platform.domain.feature_service import OutagePolicy
from feature_platform.domain.feature_view import OnlineTier
from feature_platform.domain.retention import Fate
from feature_platform.domain.types import ColumnType
from feature_platform.domain.windows import Grain, floor
from feature_platform.errors import RequestError, RowsRetiredError
from feature_platform.ledger import Ledger
from feature_platform.observability import look_at_store
from feature_platform.offline.point_in_time import Plan
from feature_platform.online import FeatureClient, functions
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress
from feature_platform.sync import runner, sync

HOUR = timedelta(hours=1)
VIEW = declare(
    "pulse", entities={"e": ColumnType.VARCHAR}, features={"x": ColumnType.DOUBLE}, grain=Grain.HOUR, ttl=50 * HOUR
)
OTHER = declare("other", entities={"e": ColumnType.VARCHAR}, features={"y": ColumnType.BIGINT}, grain=Grain.HOUR)
ENTITIES = ("a", "b", "never")


class CrashError(BaseException):
    """The process of a sync dies here."""


@dataclass
class Tale:
    """A platform that lives, and what was read of it."""

    platform: Platform
    client: FeatureClient
    chance: random.Random
    reads: list[tuple[str, datetime, float | None]] = field(default_factory=list)
    dies_at: str | None = None

    def read(self) -> None:
        for entity in ENTITIES:
            at = datetime.now(UTC)
            (answer,) = self.client.get_online_features("pulse", [{"e": entity}])
            self.reads.append((entity, at, answer.values["x"]))

    def publish(self) -> None:
        hour = floor(datetime.now(UTC), Grain.HOUR) - self.chance.randint(1, 3) * HOUR
        rows = [
            (entity, hour + timedelta(minutes=self.chance.randint(1, 60)), self.chance.choice([None, 1.0, 2.0, 3.0]))
            for entity in ENTITIES[:2]
            if self.chance.random() < 0.7
        ]
        self.platform.add(VIEW, hour, rows)

    def publish_out_of_order(self) -> None:
        hour = floor(datetime.now(UTC), Grain.HOUR) - 2 * HOUR
        first, second = (self.platform.open(VIEW, hour, [("a", hour + HOUR, float(n))]) for n in (7, 8))
        self.platform.publish(second)
        self.platform.publish(first)

    def sync(self) -> None:
        sync(self.platform.settings, self.platform.registry, VIEW, run_id="run")

    def crash(self) -> None:
        self.dies_at = self.chance.choice(["write", "advance", "end"])
        try:
            self.sync()
        except CrashError:
            pass
        finally:
            self.dies_at = None

    def look(self) -> None:
        with Ledger.connect(self.platform.settings.ledger_url) as ledger:
            look_at_store(ledger, self.platform.registry, store="default", valkey_url=self.platform.settings.valkey_url)

    def flush(self) -> None:
        with Connection(ValkeyAddress.parse(self.platform.settings.valkey_url), 5.0) as connection:
            connection.call("FLUSHALL")

    def step(self, name: str) -> None:
        """Between any two steps of a sync somebody reads, or it dies."""
        self.read()
        if self.dies_at == name:
            raise CrashError


@pytest.fixture
def platform(settings) -> Platform:
    platform = Platform(settings, registry_of(VIEW, OTHER))
    platform.deploy()
    return platform


@pytest.fixture
def tale(platform: Platform, monkeypatch: pytest.MonkeyPatch):
    with FeatureClient.connect(platform.settings.valkey_url) as client:
        tale = Tale(platform=platform, client=client, chance=random.Random(0))

        def watched(owner: Any, name: str, step: str) -> None:
            real: Callable[..., Any] = getattr(owner, name)

            def call(*args: Any, **options: Any) -> Any:
                tale.step(step)
                answer = real(*args, **options)
                tale.read()
                return answer

            monkeypatch.setattr(owner, name, call)

        watched(runner._Attempt, "_write", "write")
        watched(functions, "advance", "advance")
        watched(Ledger, "end_sync", "end")
        yield tale


def served(platform: Platform, reads: list[tuple[str, datetime, float | None]], **options: Any) -> pa.Table:
    labels = arrow(
        [{"e": entity, "event_timestamp": at} for entity, at, _ in reads], event_timestamp=pa.timestamp("us", "UTC")
    )
    with platform.store.get_historical_features(labels, "pulse", provenance=True, **options) as features:
        return features.to_arrow()


@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_client_read_is_what_served_says(tale: Tale, seed: int) -> None:
    tale.chance = random.Random(seed)
    tale.look()
    tale.publish()
    tale.sync()
    happenings = [tale.publish, tale.publish, tale.publish_out_of_order, tale.sync, tale.sync, tale.crash, tale.look]
    flushed = []
    for number in range(9):
        tale.read()
        if number == 6 and seed != 1:
            flushed.append(datetime.now(UTC))
            tale.flush()
            tale.read()
            tale.look()
        tale.chance.choice(happenings)()
    tale.sync()
    tale.read()
    tale.look()
    tale.look()
    counts: Counter[str] = Counter()
    told = {plan: served(tale.platform, tale.reads, mode="served", plan=plan) for plan in Plan}
    assert all(one.equals(told["hash"]) for one in told.values())
    for (entity, at, read), row in zip(tale.reads, told["hash"].to_pylist(), strict=True):
        counts[row["pulse__provenance"]] += 1
        match row["pulse__provenance"]:
            case "served_exact":
                assert row["x"] == read, (entity, at)
            case "served_ambiguous":
                assert read in possible(tale.platform, entity, at), (entity, at)
            case "unknown":
                assert flushed
                assert row["x"] is None
    assert counts["served_exact"] > 20
    assert bool(counts["unknown"]) is bool(flushed)


def test_what_the_store_held_of_a_retired_batch_is_unknown_and_older_states_are_refused(tale: Tale) -> None:
    platform = tale.platform
    hour = floor(datetime.now(UTC), Grain.HOUR) - HOUR
    tale.look()
    first = platform.add(VIEW, hour, [("a", hour + HOUR, 1.0)])
    tale.sync()
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        then = ledger.sequence()
    held = len(tale.reads)
    tale.read()
    platform.add(VIEW, hour, [("a", hour + HOUR, 2.0)])
    tale.sync()
    after = len(tale.reads)
    tale.read()
    tale.look()
    tale.look()
    reads = [tale.reads[held], tale.reads[after]]
    assert [value for _, _, value in reads] == [1.0, 2.0]
    before = served(platform, reads, mode="auto")
    assert before["x"].to_pylist() == [1.0, 2.0]
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        asked = ledger.sequence()
        ledger.retire(VIEW.key, {first: Fate.SUPERSEDED})
    for deleted in (False, True):
        if deleted:
            with lake.connect(platform.settings) as connection:
                connection.execute(f"delete from batches.pulse_v1 where _batch_id = '{first}'")
        now = served(platform, reads, mode="auto")
        assert now["x"].to_pylist() == [None, 2.0]
        assert now["pulse__provenance"].to_pylist() == ["unknown", "served_exact"]
        for at_sequence, mode in ((asked, "served"), (then, "modelled")):
            with pytest.raises(RowsRetiredError, match="1 of"):
                served(platform, reads, mode=mode, at_sequence=at_sequence)


def possible(platform: Platform, entity: str, at: datetime) -> set[float | None]:
    """The values of all states that a sync may have written by then, read from the lake by hand."""
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        syncs = [one for one in ledger.syncs(VIEW.key, "default") if one.began_at <= at]
        settled = max((one.to_position for one in syncs if one.ended_at and one.ended_at <= at), default=0)
        positions = {settled, *(one.to_position for one in syncs if one.to_position > settled)}
        actives = [[b.batch_id for b in ledger.active_batches(VIEW.key, at_position=n)] for n in positions]
    found: set[float | None] = set()
    with lake.connect(platform.settings, read_only=True) as connection:
        for ids in actives:
            row = connection.execute(
                "select x from batches.pulse_v1 where e = ? and _batch_id in (select unnest(?))"
                " order by event_timestamp desc limit 1",
                [entity, ids],
            ).fetchone()
            found.add(row[0] if row else None)
    return found


def test_each_store_is_asked_for_itself_and_auto_models_what_was_before(tale: Tale) -> None:
    platform = tale.platform
    before = datetime.now(UTC)
    tale.look()
    tale.publish()
    labels = [("a", before, None)]
    told = served(platform, labels, mode="auto").to_pylist()
    assert told[0]["pulse__provenance"] == "modelled"
    tale.sync()
    tale.read()
    tale.look()
    tale.look()
    labels += tale.reads[-3:]
    auto = served(platform, labels).to_pylist()
    assert [row["pulse__provenance"] for row in auto] == ["modelled", *["served_exact"] * 3]
    assert auto[1]["pulse__batch"] is not None or auto[1]["x"] is None
    as_served = served(platform, labels, mode="served").to_pylist()
    assert [row["pulse__provenance"] for row in as_served] == ["served_exact"] * 4
    assert as_served[0]["x"] is None, "it held nothing then"
    sync(replace(platform.settings, store="eu"), platform.registry, VIEW, run_id="run")
    eu = served(platform, labels[:2], mode="served", store="eu").to_pylist()
    assert [row["pulse__provenance"] for row in eu] == ["unknown", "unknown"], "nobody had looked at it yet"
    with pytest.raises(RequestError, match="no online store 'us'"):
        served(platform, labels, store="us")


def test_what_is_not_served_is_modelled_or_refused(tale: Tale) -> None:
    offline = replace(VIEW, online=OnlineTier.NONE)
    platform = replace(tale.platform, registry=registry_of(offline))
    tale.publish()
    labels = [("a", datetime.now(UTC), None)]
    assert served(platform, labels).to_pylist()[0]["pulse__provenance"] == "modelled"
    with pytest.raises(RequestError, match="not served online"):
        served(platform, labels, mode="served")


def test_what_the_store_was_not_seen_after_is_not_confirmed_yet(tale: Tale) -> None:
    tale.look()
    tale.publish()
    tale.sync()
    later = [("a", datetime.now(UTC), None)]
    labels = arrow([{"e": e, "event_timestamp": at} for e, at, _ in later], event_timestamp=pa.timestamp("us", "UTC"))
    with tale.platform.store.get_historical_features(labels, "pulse", mode="served") as features:
        counts = features.facts.provenance[VIEW.key]
        assert (counts.unknown, counts.unconfirmed) == (1, 1)
        assert "the store was not seen since" in str(counts)
        sequence = features.facts.ledger_sequence
    tale.look()
    tale.look()
    assert served(tale.platform, later, mode="served").to_pylist()[0]["pulse__provenance"] == "served_exact"
    then = served(tale.platform, later, mode="served", at_sequence=sequence).to_pylist()
    assert then[0]["pulse__provenance"] == "unknown", "the same sequence, the same answer"


def test_a_kept_set_of_what_was_served_is_explained_by_what_the_store_held(tale: Tale) -> None:
    tale.look()
    tale.publish_out_of_order()
    tale.sync()
    tale.read()
    tale.look()
    tale.look()
    entity, at, read = tale.reads[-3]
    labels = arrow([{"e": entity, "event_timestamp": at}], event_timestamp=pa.timestamp("us", "UTC"))
    store = tale.platform.store
    kept = store.create_training_set(labels, "pulse", name="seen", mode="served", provenance=True)
    assert kept.to_arrow().to_pylist()[0]["x"] == read == 8.0
    assert kept.manifest.arguments["store"] == "default"
    for _ in range(2):
        tale.publish()
        tale.sync()
    assert store.reproduce_training_set("seen").verdict == "identical"
    (view,) = store.explain_training_set("seen", row=0).views
    assert view.agrees
    assert view.chosen is not None
    assert view.chosen.values == {"x": 8.0}
    assert view.basis.startswith("served: what store default held then, the state after the view's first 2 publishes")


def labels_of_an_outage(tale: Tale) -> pa.Table:
    """Two labels of one entity: before an outage of the store, and in it."""
    tale.look()
    hour = floor(datetime.now(UTC), Grain.HOUR) - 2 * HOUR
    tale.platform.add(VIEW, hour, [("a", hour + HOUR, 5.0)])
    tale.sync()
    before = ("a", datetime.now(UTC), None)
    tale.look()
    tale.flush()
    tale.look()
    during = ("a", datetime.now(UTC), None)
    tale.sync()
    tale.look()
    return arrow(
        [{"e": e, "event_timestamp": at} for e, at, _ in (before, during)], event_timestamp=pa.timestamp("us", "UTC")
    )


def test_an_outage_is_replayed_as_the_service_declares(tale: Tale) -> None:
    labels = labels_of_an_outage(tale)
    registry = registry_of(VIEW)
    service = registry.services["departure_delay"]

    def values(outages: str | None, policy: str = "null", mode: str = "auto") -> list[float | None]:
        declared = replace(registry, services={service.name: replace(service, outage=OutagePolicy(policy))})
        store = replace(tale.platform, registry=declared).store
        with store.get_historical_features(labels, service.name, mode=mode, outages=outages) as features:
            table = features.to_arrow()
            assert features.facts.row_count == table.num_rows == 2 - features.facts.excluded
            return table["x"].to_pylist()

    assert values(None) == [5.0, None]
    assert values("as_recorded", "null") == [5.0, None]
    assert values("as_recorded", "stale") == [5.0, 5.0]
    assert values("as_recorded", "exclude") == values("as_recorded", "exclude", "modelled") == [5.0]
    assert values("never_happened") == [5.0, 5.0]
    plain = labels
    for name, value in (("_as_of", 7), ("_is_outage", False)):  # what the join calls columns of its own
        labels = labels.append_column(name, pa.array([value] * 2))
    assert values("as_recorded", "stale") == values("never_happened") == [5.0, 5.0]
    assert values("as_recorded", "exclude") == [5.0]
    labels = plain
    with pytest.raises(RequestError, match="_as_of"):
        tale.platform.store.get_historical_features(
            labels.rename_columns(["e", "_as_of"]), "pulse", timestamp_column="_as_of"
        )
    with pytest.raises(RequestError, match="outages included"):
        values("as_recorded", mode="served")
    with pytest.raises(RequestError, match="as_recorded, never_happened"):
        values("sometimes")
    kept = tale.platform.store.create_training_set(
        labels, "departure_delay", name="replayed", outages="as_recorded", provenance=True
    )
    assert kept.to_arrow()["pulse__provenance"].to_pylist() == ["served_exact", "outage"]
    (view, *_) = tale.platform.store.explain_training_set("replayed", row=1).views
    assert view.agrees
    assert view.basis == "in an outage of store default: nothing is given"


def test_labels_that_an_outage_excludes_are_told_and_have_no_place(tale: Tale, tmp_path, monkeypatch) -> None:
    registry = registry_of(VIEW)
    service = registry.services["departure_delay"]
    declared = replace(registry, services={service.name: replace(service, outage=OutagePolicy.EXCLUDE)})
    store = replace(tale.platform, registry=declared).store
    reversed_labels = labels_of_an_outage(tale).take([1, 0])  # the excluded one comes first
    for name, outages in (("whole", None), ("less", "as_recorded")):
        store.create_training_set(reversed_labels, service.name, name=name, outages=outages)
    monkeypatch.setattr("feature_platform.cli.training_sets.open_store", lambda: store)
    pq.write_table(reversed_labels, tmp_path / "labels.parquet")
    given = (service.name, "--labels", str(tmp_path / "labels.parquet"), "--outages", "as_recorded")
    for command in (
        ("create", *given, "--name", "less"),
        ("create", *given, "--out", str(tmp_path / "less.parquet")),
        ("show", "less"),
    ):
        assert re.search(r"left out:? +1 labels in an outage", CliRunner().invoke(training_set, command).output)
        assert json.loads(CliRunner().invoke(training_set, (*command, "--json")).output)["excluded"] == 1
    diff = store.diff_training_sets("whole", "less")
    assert (diff.matched_by, diff.matched, diff.only_in_a, diff.only_in_b) == (("e", "event_timestamp"), 1, 1, 0)
    assert [column.changed for column in diff.columns] == [0] * len(diff.columns)
