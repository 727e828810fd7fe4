"""`meta.feature_view.quality`: defaults, what overrides what, and every fault at once."""

from __future__ import annotations

import pytest
from manifests import DELAYS, feature_view, manifest, view_model

from feature_platform.declaration.parser import parse_manifest
from feature_platform.domain.quality_rules import ReferenceKind
from feature_platform.errors import InvalidDeclarationsError


def suite(quality: object = None):
    content = manifest()
    if quality is not None:
        feature_view(content)["quality"] = quality
    return parse_manifest(content).view("carrier_delays").quality


def problems(quality: object) -> list[str]:
    with pytest.raises(InvalidDeclarationsError) as caught:
        suite(quality)
    return [finding.problem.removeprefix("`meta.feature_view.quality").strip() for finding in caught.value.findings]


def test_nothing_declared_is_a_suite_with_defaults():
    found = suite()
    assert (found.volume.reference.kind, found.volume.tolerance, found.volume.severity) == ("same_weekday", 0.5, "warn")
    mean = found.features["dep_delay_mean_7d"]
    assert (mean.drift.reference.kind, mean.drift.tolerance) == ("recent", 0.25)
    assert (mean.nulls.reference.kind, mean.nulls.tolerance) == ("recent", 0.1)
    assert not mean.top_values
    assert not found.allow_empty
    assert suite({"allow_empty": True}).allow_empty
    assert not found.samples
    assert suite({"samples": True}).samples
    assert len(found.rules) == 5


def test_a_feature_goes_before_the_view_and_that_before_the_defaults():
    found = suite(
        {
            "volume": "off",
            "drift": {"tolerance": 0.5, "severity": "error"},
            "nulls": False,
            "features": {
                "flights_7d": {"drift": {"reference": {"training_set": "departures@2"}}, "nulls": {"tolerance": 0.2}},
                "dep_delay_mean_7d": {"drift": False},
            },
        }
    )
    assert found.volume is None
    flights, mean = found.features["flights_7d"], found.features["dep_delay_mean_7d"]
    assert (flights.drift.tolerance, flights.drift.severity) == (0.5, "error")
    assert (flights.drift.reference.kind, flights.drift.reference.training_set) == (
        ReferenceKind.TRAINING_SET,
        "departures@2",
    )
    assert flights.nulls.tolerance == 0.2
    assert (mean.drift, mean.nulls) == (None, None)


def test_months_have_no_weekday():
    content = manifest()
    content["nodes"][DELAYS]["config"]["batch_size"] = "month"
    del feature_view(content)["freshness"]
    feature_view(content)["freshness"] = {"error_after": "60 days"}
    found = parse_manifest(content).view("carrier_delays").quality
    assert (found.volume.reference.kind, found.volume.reference.at_least) == ("recent", 4)


def test_every_fault_is_found_at_once():
    assert problems(
        {
            "allow_empty": "sometimes",
            "volumes": {},
            "volume": 7,
            "nulls": {"tolerance": 2},
            "drift": {"reference": "yesterday", "severity": "fatal", "window": 3},
            "features": {
                "flights": {},
                "flights_7d": {"drift": {"reference": "training_set"}, "top_values": "yes"},
                "dep_delay_mean_7d": {"top_values": True},
            },
        }
    ) == [
        "` has an unknown key",
        ".volume` is no rule",
        ".nulls.tolerance` is no tolerance",
        ".drift` has an unknown key",
        ".drift.reference` names nothing to compare with",
        ".drift.severity` has no such value",
        ".features` has an unknown key",
        ".allow_empty` is neither true nor false",
        ".features.flights_7d.drift.reference` names nothing to compare with",
        ".features.flights_7d.top_values` is neither true nor false",
        ".features.dep_delay_mean_7d.top_values` cannot be kept of double",
    ]


def test_instants_have_no_drift_unless_somebody_asks_for_it():
    model = view_model("visits", entities={"user": "bigint"}, features={"seen": "timestamptz", "n": "bigint"})
    found = parse_manifest(manifest(model)).view("visits").quality
    assert found.features["seen"].drift is None
    assert found.features["seen"].nulls is not None
    model["config"]["meta"]["feature_view"]["quality"] = {"features": {"seen": {"drift": {"tolerance": 1}}}}
    with pytest.raises(InvalidDeclarationsError, match="cannot be judged of timestamp with time zone"):
        parse_manifest(manifest(model))


def test_a_dbt_test_may_not_be_called_like_a_check_of_the_suite():
    content = manifest()
    content["nodes"]["test.flights.batch_volume"] = {
        "unique_id": "test.flights.batch_volume",
        "name": "batch_volume",
        "resource_type": "test",
        "attached_node": DELAYS,
        "test_metadata": {"name": "in_range"},
        "original_file_path": "models/feature_views/carrier_delays.yml",
        "depends_on": {"nodes": [DELAYS], "macros": []},
    }
    with pytest.raises(InvalidDeclarationsError, match="has the name of a check that every view has"):
        parse_manifest(content)
