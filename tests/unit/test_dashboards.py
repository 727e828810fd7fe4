"""The dashboards are what their source says, and a model that Grafana can load."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

GRAFANA = Path(__file__).parents[2] / "infra" / "grafana"
DASHBOARDS: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(GRAFANA.glob("dashboards/*.json"))]
KNOWN_TO_GRAFANA = {"short", "s", "bytes", "percentunit"}
BUILT_IN = {"__range", "__rate_interval", "datasource"}

each = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one["uid"])


def test_the_files_are_what_their_source_says() -> None:
    subprocess.run([sys.executable, str(GRAFANA / "build.py"), "--check"], check=True)


def test_each_page_has_its_own_address_and_title() -> None:
    for field in ("uid", "title"):
        assert len({one[field] for one in DASHBOARDS}) == len(DASHBOARDS)
    assert all(re.fullmatch(r"[a-z-]{1,40}", one["uid"]) for one in DASHBOARDS)


@each
def test_panels_have_what_grafana_needs_and_lie_beside_each_other(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat", "table")
        assert panel["fieldConfig"]["defaults"]["unit"] in KNOWN_TO_GRAFANA
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["expr"] and target["instant"] is not target["range"] for target in panel["targets"])
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


@each
def test_every_variable_of_a_query_can_be_chosen(dashboard: dict[str, Any]) -> None:
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([panel.get("targets") for panel in dashboard["panels"]])))
    used |= set(re.findall(r"\$(\w+)", json.dumps([one["query"] for one in dashboard["templating"]["list"]])))
    assert used <= declared | BUILT_IN
    assert "datasource" in declared


def test_what_is_provisioned_is_where_it_is_said_to_be() -> None:
    (provider,) = yaml.safe_load(next(GRAFANA.glob("provisioning/dashboards/*.yml")).read_text())["providers"]
    (source,) = yaml.safe_load(next(GRAFANA.glob("provisioning/datasources/*.yml")).read_text())["datasources"]
    manual = (GRAFANA.parents[1] / "docs" / "reference" / "metrics.md").read_text()
    assert f"`{provider['options']['path']}`" in manual
    assert source["type"] == "prometheus"
