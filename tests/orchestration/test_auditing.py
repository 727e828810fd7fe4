"""When a leakage audit is due. That the reference project passes it is in test_runs.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from ledger_batches import publish_batches

from feature_platform.declaration import FeatureRegistry, load_registry
from feature_platform.domain.windows import partition_starting
from feature_platform.ledger import Ledger
from feature_platform.materialization.dbt_parse import parse
from feature_platform.orchestration import auditing, build_definitions
from feature_platform.settings import Settings

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> FeatureRegistry:
    """The real project's; nothing is deployed."""
    home = tmp_path_factory.mktemp("home")
    parse(PROJECT / "dbt_project", home / "dbt")
    return load_registry(home / "dbt" / "manifest.json")


@pytest.fixture
def look(settings: Settings, registry, instance):
    """Evaluate the sensor as the daemon would, with the cursor it left."""
    job = auditing.build_audit_job(registry)
    cursor: list[str | None] = [None]

    def look(registry=registry):
        sensor = auditing.build_audit_sensor(settings, registry, job)
        context = dg.build_sensor_context(instance=instance, cursor=cursor[0])
        said = sensor(context)
        if isinstance(said, dg.SensorResult):
            cursor[0] = said.cursor
            return [key.to_user_string() for key in said.run_requests[0].asset_selection]
        return []

    return look


def test_an_audit_is_due_once_when_other_code_has_published(settings: Settings, registry, look):
    assert look() == []
    view = registry.view("carrier_delays")
    with Ledger.connect(settings.ledger_url) as ledger:
        publish_batches(ledger, view, [partition_starting(view.begin, view.grain)])
        assert look() == ["audit/carrier_delays"]
        assert look() == []
        other = replace(view, code_version="other")
        changed = replace(registry, views=dict(registry.views) | {view.key: other})
        assert look(changed) == []  # nothing was computed by it yet
        publish_batches(ledger, other, [partition_starting(view.begin + timedelta(days=1), view.grain)])
        assert look(changed) == ["audit/carrier_delays"]


def test_audits_stand_behind_everything_else(settings: Settings, registry):
    definitions = build_definitions(settings, registry, {"nodes": {}})
    job = definitions.get_repository_def().get_job(auditing.JOB)
    assert job.tags["dagster/priority"] == "-10"
    assert {key.path[0] for key in job.asset_layer.executable_asset_keys} == {"audit"}
