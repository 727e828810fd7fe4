"""What breaks a table or a reader that exists, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from manifests import DELAYS, SERVICE, Manifest, column, config, feature_view, manifest, view_model

from feature_platform.declaration import Change, ChangeKind, compare, parse_manifest


def changes(edit: Callable[[Manifest], Any]) -> tuple[Change, ...]:
    after = manifest()
    edit(after)
    before = manifest()
    before["exposures"] = after["exposures"]
    return compare(parse_manifest(before), parse_manifest(after))


def _grain(content: Manifest) -> None:
    config(content).update(batch_size="hour")
    feature_view(content).update(freshness={"error_after": "4 hours"})


def _without_flights(content: Manifest) -> None:
    del content["nodes"][DELAYS]["columns"]["flights_7d"]


def _typed(content: Manifest) -> None:
    content["nodes"][DELAYS]["columns"]["flights_7d"] = column("flights_7d", "integer")


def _entities(content: Manifest) -> None:
    content["nodes"][DELAYS]["columns"]["origin"] = column("origin", "varchar")
    feature_view(content)["entities"] = ["carrier", "origin"]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (_grain, "partitions of one day became partitions of one hour"),
        (_without_flights, "feature flights_7d is gone"),
        (_typed, "feature flights_7d changed from BIGINT to INTEGER"),
        (_entities, "entities (carrier VARCHAR) became (carrier VARCHAR, origin VARCHAR)"),
    ],
)
def test_a_change_of_shape_is_breaking(edit: Callable[[Manifest], None], what: str) -> None:
    assert Change(name="carrier_delays@1", kind=ChangeKind.BREAKING, what=what) in changes(edit)


def test_other_sql_is_a_change_of_values() -> None:
    (change,) = changes(lambda content: content["nodes"][DELAYS].update(raw_code="select 2"))
    assert change.kind is ChangeKind.VALUES


def test_a_new_feature_is_compatible_though_its_code_is_new() -> None:
    found = changes(lambda content: content["nodes"][DELAYS]["columns"].update(x=column("x", "double")))
    assert {change.kind for change in found} == {ChangeKind.COMPATIBLE, ChangeKind.VALUES}


def test_a_setting_is_compatible() -> None:
    (change,) = changes(lambda content: feature_view(content).update(ttl="9 days"))
    assert (change.kind, change.what) == (ChangeKind.COMPATIBLE, "ttl changed")


def test_views_and_services_come_and_go() -> None:
    more = parse_manifest(manifest(view_model("planes", entities={"tail": "varchar"}, features={"seats": "integer"})))
    fewer_content = manifest()
    del fewer_content["exposures"][SERVICE]
    fewer = parse_manifest(fewer_content)
    assert [(c.name, c.kind) for c in compare(fewer, more)] == [
        ("planes@1", ChangeKind.ADDED),
        ("departure_delay", ChangeKind.ADDED),
    ]
    assert {c.kind for c in compare(more, fewer)} == {ChangeKind.REMOVED}


def test_nothing_changed() -> None:
    assert changes(lambda _: None) == ()
