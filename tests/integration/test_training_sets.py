"""Kept training sets on a real ledger and a real lake: made whole or not at all, and the same bytes ever after."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from offline_platform import CARRIER, ROUTE, Platform, arrow, registry_of

from feature_platform.errors import DamagedFileError, LockBusyError, NameTakenError, RequestError, UnknownNameError
from feature_platform.ledger import Ledger
from feature_platform.offline.sets.manifest import Manifest

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def at(days: float, hours: float = 0) -> datetime:
    return DAY + timedelta(days=days, hours=hours)


LABELS = [
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(2, 3), "late": True},
    {"carrier": "UA", "origin": "EWR", "gate": 2, "event_timestamp": at(2, 4), "late": False},
    {"carrier": None, "origin": "JFK", "gate": 1, "event_timestamp": at(5), "late": None},
    {"carrier": "AA", "origin": "JFK", "gate": 1, "event_timestamp": at(2, 3), "late": True},
]


@pytest.fixture
def platform(settings) -> Platform:
    """Two days of carriers, one hour of routes."""
    built = Platform(settings, registry_of(CARRIER, ROUTE))
    built.deploy()
    built.publish(
        *built.open_all(
            [
                (CARRIER, at(0), [["AA", at(1), 1.0, 10], ["UA", at(1), 2.0, 20]]),
                (CARRIER, at(1), [["AA", at(2), 1.5, 11], ["UA", at(2), None, 21]]),
                (ROUTE, at(1), [["JFK", 1, at(1, 1), 0.5]]),
            ]
        )
    )
    return built


@pytest.fixture
def labels() -> pa.Table:
    return arrow(LABELS)


def test_a_set_is_kept_with_its_labels_and_a_manifest(platform: Platform, labels) -> None:
    said: list[str] = []
    made = platform.store.create_training_set(
        labels, "departure_delay", created_by="ann", progress=said.append, full_feature_names=True
    )
    kept = platform.store.training_set("departure_delay")
    assert made.key == kept.key == "departure_delay@1"
    assert said == ["copying the labels", "joining the features", "writing the set", "hashing"]
    with platform.store.get_historical_features(labels, "departure_delay", full_feature_names=True) as features:
        want = features.to_arrow()
    assert kept.to_arrow().equals(want)
    assert pa.Table.from_batches(kept.to_batches(2)).equals(want)
    assert [*kept.to_pandas().columns] == want.column_names
    directory = Path(kept.directory)
    assert sorted(path.name for path in directory.iterdir()) == ["data.parquet", "labels.parquet", "manifest.json"]
    assert pq.read_table(directory / "labels.parquet").equals(labels.cast(want.select(labels.column_names).schema))

    manifest = kept.manifest
    # the file explains itself without the ledger
    assert Manifest.from_json(json.loads((directory / "manifest.json").read_text())) == manifest
    assert (manifest.created_by, manifest.mode, manifest.row_count) == ("ann", "modelled", 4)
    assert manifest.service == platform.registry.services["departure_delay"]
    assert manifest.views == platform.registry.views
    assert manifest.arguments["full_feature_names"] is True
    assert [(one.view, one.feature) for one in manifest.features] == [
        ("carrier_delays@1", "delay"), ("carrier_delays@1", "flights"), ("route_delays@1", "delay"),
    ]  # fmt: skip
    assert {key: used.count for key, used in manifest.batches.items()} == {"carrier_delays@1": 2, "route_delays@1": 1}
    assert manifest.batches["carrier_delays@1"].code_versions == {"1": 2}
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert manifest.at_sequence <= ledger.sequence()
        assert len(ledger.batches_sets_need("carrier_delays@1")) == 2


def test_versions_of_a_name(platform: Platform, labels) -> None:
    store = platform.store
    for version in (1, 2):
        assert store.create_training_set(labels, ["carrier_delays:delay"], name="mine").key == f"mine@{version}"
    assert store.create_training_set(labels, ["carrier_delays:delay"]).key == "carrier_delays@1"
    assert store.create_training_set(labels, "departure_delay", name="mine@3").key == "mine@3"
    assert store.training_set("mine").key == "mine@3"
    first, second = store.training_set("mine@1").manifest, store.training_set("mine@v2").manifest
    assert first.data == second.data
    assert first.references == ["carrier_delays@1:delay"]
    with pytest.raises(NameTakenError, match=r"mine@2 already[\s\S]*mine@4"):
        store.create_training_set(labels, "departure_delay", name="mine@2")
    with pytest.raises(RequestError, match="next version of mine is 4"):
        store.create_training_set(labels, "departure_delay", name="mine@9")
    with pytest.raises(RequestError, match="no name of a training set"):
        store.create_training_set(labels, "departure_delay", name="../mine")
    with pytest.raises(RequestError, match="no such argument"):
        store.create_training_set(labels, "departure_delay", name="mine", speed="fast")
    with pytest.raises(UnknownNameError, match="yours"):
        store.training_set("yours")


def test_of_two_that_make_one_name_one_wins(platform: Platform, labels) -> None:
    with Ledger.connect(platform.settings.ledger_url) as other, other.creating_training_set("departure_delay"):
        with pytest.raises(LockBusyError, match="being created by another process"):
            platform.store.create_training_set(labels, "departure_delay")
        platform.store.create_training_set(labels, "departure_delay", name="another")
    assert platform.store.create_training_set(labels, "departure_delay").key == "departure_delay@1"


def test_what_cannot_be_made_leaves_nothing(platform: Platform, labels) -> None:
    root = Path(platform.settings.training_sets_root)
    naive = labels.set_column(3, "event_timestamp", labels["event_timestamp"].cast(pa.timestamp("us")))
    for wrong in (naive, labels.drop_columns(["carrier"]), "/nowhere.parquet"):
        with pytest.raises(RequestError):
            platform.store.create_training_set(wrong, "departure_delay")

    def interrupt(line: str) -> None:
        if line == "hashing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        platform.store.create_training_set(labels, "departure_delay", progress=interrupt)
    assert [path for path in root.rglob("*") if path.is_file()] == []
    with Ledger.connect(platform.settings.ledger_url) as ledger:
        assert ledger.training_sets() == ()


def test_an_altered_or_missing_file_is_not_read(platform: Platform, labels) -> None:
    kept = platform.store.create_training_set(labels, "departure_delay")
    path = Path(kept.path)
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(DamagedFileError, match="not the file that was kept"):
        kept.to_arrow()
    path.unlink()
    with pytest.raises(DamagedFileError, match="missing"):
        kept.to_pandas()
