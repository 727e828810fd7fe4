"""The code version changes with whatever can change a row, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from manifests import DELAYS, FLIGHTS, STAGING, WEATHER, Manifest, column, config, feature_view, manifest, view_model

from feature_platform.declaration import parse_manifest

Edit = Callable[[Manifest], Any]


def version(content: Manifest) -> str:
    content["exposures"] = {}
    return parse_manifest(content).views["carrier_delays@1"].code_version


def node(content: Manifest, unique_id: str = DELAYS) -> dict[str, Any]:
    found: dict[str, Any] = content["nodes"][unique_id]
    return found


RELEVANT: dict[str, Edit] = {
    "its SQL": lambda c: node(c).update(raw_code="select 2"),
    "SQL upstream": lambda c: node(c, STAGING).update(raw_code="select 2"),
    "a hook": lambda c: config(c).update({"pre-hook": [{"sql": "set x = 1"}]}),
    "the grain": lambda c: config(c).update(batch_size="hour"),
    "a type": lambda c: node(c)["columns"].update(flights_7d=column("flights_7d", "integer")),
    "one column more": lambda c: node(c)["columns"].update(x=column("x", "integer")),
    "a macro": lambda c: c["macros"]["macro.flights.rolling"].update(macro_sql="other"),
    "a macro a macro uses": lambda c: c["macros"]["macro.flights.window"].update(macro_sql="other"),
    "the strategy": lambda c: c["macros"]["macro.flights.get_incremental_batch_append_sql"].update(macro_sql="other"),
    "another source table": lambda c: c["sources"][FLIGHTS].update(identifier="flights_2"),
    "meta that macros read": lambda c: config(c)["meta"].update(window="7 days"),
}

IRRELEVANT: dict[str, Edit] = {
    "a description": lambda c: node(c).update(description="better words"),
    "a column's description": lambda c: node(c)["columns"]["carrier"].update(description="better words"),
    "the owner": lambda c: c["groups"]["group.flights.operations"]["owner"].update(email="others@example.com"),
    "an SLA": lambda c: feature_view(c).update(freshness={"error_after": "4 days"}),
    "the ttl": lambda c: feature_view(c).update(ttl="9 days"),
    "expectations": lambda c: feature_view(c).update(expectations=[]),
    "tags": lambda c: config(c).update(tags=["a"]),
    "the begin": lambda c: config(c).update(begin="2026-01-01"),
    "an unused macro": lambda c: c["macros"]["macro.flights.unused"].update(macro_sql="other"),
    "a macro of dbt": lambda c: c["macros"]["macro.dbt.ref"].update(macro_sql="other"),
    "another view": lambda c: node(c, WEATHER).update(raw_code="select 2"),
    "when it was parsed": lambda c: node(c).update(created_at=2.0),
    "a key that a release of dbt adds": lambda c: config(c).update(new_in_dbt=None),
    "the database": lambda c: (node(c).update(database="other"), config(c).update(database="other")),
    "when the manifest was written": lambda c: c["metadata"].update(generated_at="2027-01-01T00:00:00Z"),
}


@pytest.mark.parametrize("edit", RELEVANT)
def test_it_changes_with(edit: str) -> None:
    content = manifest()
    RELEVANT[edit](content)
    if edit == "the grain":
        feature_view(content)["freshness"] = {"error_after": "4 hours"}
    assert version(content) != version(manifest())


@pytest.mark.parametrize("edit", IRRELEVANT)
def test_it_stays_with(edit: str) -> None:
    content = manifest()
    IRRELEVANT[edit](content)
    assert version(content) == version(manifest())


def test_the_order_of_entities_counts() -> None:
    def of(*entities: str) -> str:
        model = view_model("routes", entities={"origin": "varchar", "dest": "varchar"}, features={"x": "double"})
        model["config"]["meta"]["feature_view"]["entities"] = [*entities]
        return parse_manifest(manifest(model)).views["routes@1"].code_version

    assert of("origin", "dest") != of("dest", "origin")


def test_the_order_of_the_manifest_does_not() -> None:
    content = manifest()
    content["nodes"] = dict(reversed(content["nodes"].items()))
    content["macros"] = dict(reversed(content["macros"].items()))
    assert version(content) == version(manifest())


def test_seeds_count_by_their_contents() -> None:
    def of(checksum: str) -> str:
        content = manifest()
        seed = {"unique_id": "seed.flights.zones", "name": "zones", "resource_type": "seed", "columns": {}}
        content["nodes"]["seed.flights.zones"] = seed | {"checksum": {"name": "sha256", "checksum": checksum}}
        node(content, STAGING)["depends_on"]["nodes"].append("seed.flights.zones")
        return version(content)

    assert of("a") != of("b")
