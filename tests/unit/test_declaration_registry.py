"""How names resolve: views with and without version, services, references to features."""

from __future__ import annotations

import pytest
from manifests import manifest, view_model

from feature_platform.declaration import FeatureRegistry, parse_manifest
from feature_platform.errors import RequestError, UnknownNameError


@pytest.fixture(scope="module")
def registry() -> FeatureRegistry:
    second = view_model(
        "carrier_delays", version=2, entities={"carrier": "varchar"}, features={"dep_delay_mean_7d": "float"}
    )
    content = manifest(second | {"latest_version": 1})
    return parse_manifest(content)


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        ("carrier_delays", "carrier_delays@1"),
        ("carrier_delays@2", "carrier_delays@2"),
        ("carrier_delays@v2", "carrier_delays@2"),
        ("airport_weather@1", "airport_weather@1"),
    ],
)
def test_a_view_by_reference(registry: FeatureRegistry, reference: str, key: str) -> None:
    assert registry.view(reference).key == key


def test_without_a_version_the_latest_is_meant_not_the_greatest(registry: FeatureRegistry) -> None:
    assert registry.latest["carrier_delays"] == 1
    assert [view.version for view in registry.versions("carrier_delays")] == [1, 2]


@pytest.mark.parametrize(
    ("reference", "way_out"),
    [
        ("carier_delays", "did you mean `carrier_delays`?"),
        ("carrier_delays@3", "carrier_delays@1, carrier_delays@2"),
        ("carrier_delays:flights_7d", "use `carrier_delays`"),
        ("carrier delays", "`view@2`"),
        ("", "`view@2`"),
        ("carrier_delays@", "`view@2`"),
    ],
)
def test_an_unknown_view_says_what_there_is(registry: FeatureRegistry, reference: str, way_out: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        registry.view(reference)
    assert way_out in str(raised.value)


def test_a_service_is_selected_by_its_name_or_itself(registry: FeatureRegistry) -> None:
    selected = registry.select("departure_delay")
    assert [selection.key for selection in selected] == ["airport_weather@1", "carrier_delays@1"]
    assert registry.select(registry.service("departure_delay")) == selected


def test_references_are_joined_per_view_in_the_order_asked(registry: FeatureRegistry) -> None:
    selected = registry.select(
        ["carrier_delays:dep_delay_mean_7d", "airport_weather", "carrier_delays:flights_7d", "carrier_delays"]
    )
    assert [(s.key, s.features) for s in selected] == [
        ("carrier_delays@1", ("dep_delay_mean_7d", "flights_7d")),
        ("airport_weather@1", ("temperature_f",)),
    ]


def test_two_versions_of_one_view_may_be_asked_for_together(registry: FeatureRegistry) -> None:
    selected = registry.select(["carrier_delays@1:flights_7d", "carrier_delays@v2:dep_delay_mean_7d"])
    assert [s.key for s in selected] == ["carrier_delays@1", "carrier_delays@2"]


def test_one_view_may_be_asked_for_by_its_bare_name(registry: FeatureRegistry) -> None:
    assert registry.select("airport_weather")[0].features == ("temperature_f",)


@pytest.mark.parametrize(
    ("asked", "way_out"),
    [
        ("departure_dela", "did you mean `departure_delay`?"),
        (["airport_weather:temperature"], "did you mean `temperature_f`?"),
        (["departure_delay"], "pass the service alone"),
        (["airport_weather", "nothing_like_it"], "airport_weather, carrier_delays"),
        ([17], "`view:feature`"),
    ],
)
def test_an_unknown_name_says_what_there_is(registry: FeatureRegistry, asked: str | list[str], way_out: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        registry.select(asked)
    assert way_out in str(raised.value)


def test_nothing_asked_for_is_refused(registry: FeatureRegistry) -> None:
    with pytest.raises(RequestError, match="no features"):
        registry.select([])


def test_an_unknown_service_says_what_there_is(registry: FeatureRegistry) -> None:
    with pytest.raises(UnknownNameError) as raised:
        registry.service("departure_delays")
    assert raised.value.allowed == "departure_delay"


def test_the_registry_cannot_be_changed(registry: FeatureRegistry) -> None:
    with pytest.raises(TypeError):
        registry.views["x"] = registry.views["carrier_delays@1"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        registry.views = {}  # type: ignore[misc]
