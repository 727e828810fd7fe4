"""`feature-platform validate` on the reference project and on broken copies of it; dbt is real, nothing else runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from feature_platform.cli.declaration import validate
from feature_platform.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
VIEWS = "models/feature_views"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the reference project; its dbt project reads the platform's macros beside it."""
    ignored = shutil.ignore_patterns("target", "logs", ".*")
    shutil.copytree(ROOT / "dbt_project", tmp_path / "dbt_project", ignore=ignored)
    shutil.copytree(ROOT / "feature_platform" / "dbt", tmp_path / "feature_platform" / "dbt")
    monkeypatch.setenv("FEATURE_PLATFORM_PROJECT", str(tmp_path))
    monkeypatch.delenv("FEATURE_PLATFORM_FLIGHTS_BEGIN", raising=False)
    return tmp_path


def edit(project: Path, file: str, replacements: Mapping[str, str]) -> None:
    path = project / "dbt_project" / file
    text = path.read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text, f"{file} no longer has {old!r}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(validate, arguments, catch_exceptions=False)


def test_the_reference_project_is_right(project: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    for expected in (
        "carrier_delays@1",
        "route_delays@1",
        "airport_weather@1",
        "origin, dest",
        "aircraft_profile@1",
        "departure_delay",
    ):
        assert expected in result.output
    assert "5 feature views and 1 feature service" in result.output
    assert "dbt warns" not in result.output
    written = {path.name for path in (project / "dbt_project").iterdir()}
    assert not written & {"target", "logs"}


def test_all_errors_of_a_broken_project_are_shown_by_file(project: Path) -> None:
    edit(
        project,
        f"{VIEWS}/carrier_delays.yml",
        {
            "entities: [carrier]": "entites: [carrier]",
            "ttl: 3 days": "ttl: long",
            "batch_size: day": "batch_size: week",
            "warn_after: 26 hours": "warn_after: 60 hours",
            "column: dep_delay_mean_7d": "column: dep_delay_mean_7",
            "description: How late each carrier has been leaving New York, over the last day, week and four weeks.": "",
        },
    )
    edit(
        project,
        f"{VIEWS}/route_delays.yml",
        {"group: flight_operations": "incremental_strategy: microbatch", "data_type: bigint": "data_type: hugeint"},
    )
    (project / "dbt_project" / VIEWS / "undeclared.sql").write_text("select 1 as x", encoding="utf-8")
    edit(project, "models/groups.yml", {"email: airport-operations@example.com": "slack: airport"})
    edit(project, "models/exposures.yml", {"latency_budget: 20 ms": "latency_budget: quick"})
    result = run("--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["valid"] is False
    found = {(finding["file"].rpartition("/")[2], finding["problem"]) for finding in content["findings"]}
    for file, problem in (
        ("carrier_delays.yml", "`meta.feature_view` has an unknown key"),
        ("carrier_delays.yml", "`meta.feature_view.entities` is no list of names"),
        ("carrier_delays.yml", "`meta.feature_view.ttl` is no duration"),
        ("carrier_delays.yml", "`config.batch_size` is no length of a partition"),
        ("carrier_delays.yml", "`meta.feature_view.freshness.warn_after` is not shorter than error_after (2 d 2 h)"),
        ("carrier_delays.yml", "has no description"),
        ("route_delays.yml", "uses dbt's microbatch strategy"),
        ("route_delays.yml", "has no owner"),
        ("route_delays.yml", "column flights_7d has a type the platform does not serve"),
        ("undeclared.sql", "lies among the feature views and has no `meta.feature_view`"),
        ("groups.yml", "has no owner with one e-mail address"),
        ("exposures.yml", "`meta.feature_service.latency_budget` is no latency"),
    ):
        assert (file, problem) in found
    assert any("dep_delay_mean_7'" in finding["found"] for finding in content["findings"])

    human = run()
    assert human.exit_code == 1
    assert f"{len(content['findings'])} errors in {len({f['file'] for f in content['findings']})} files" in human.output
    assert "did you mean `entities`?" in human.output
    assert human.output.count(f"{VIEWS}/carrier_delays.yml\n") == 1


def test_arguments_of_expectations_are_those_of_great_expectations(project: Path) -> None:
    edit(project, f"{VIEWS}/carrier_delays.yml", {"min_value: -30, max_value: 240": "lowest: -30, max_value: 240"})
    edit(project, f"{VIEWS}/route_delays.yml", {"min_value: 50, max_value: 300": "min_value: 50, most: 300"})
    result = run("--json")
    assert result.exit_code == 1
    found = {finding["node"]: finding for finding in json.loads(result.stdout)["findings"]}
    for view, problem, argument in (
        ("carrier_delays@1", "ExpectColumnMeanToBeBetween does not take these arguments", "lowest"),
        ("route_delays@1", "ExpectTableRowCountToBeBetween does not take these arguments", "most"),
    ):
        assert (found[view]["problem"], argument in found[view]["found"]) == (problem, True)


def test_another_view_is_not_read_even_through_staging(project: Path) -> None:
    (project / "dbt_project/models/staging/stg_reuse.sql").write_text(
        "select * from {{ ref('carrier_delays') }}", encoding="utf-8"
    )
    edit(project, f"{VIEWS}/route_delays.sql", {"ref('stg_flights')": "ref('stg_reuse')"})
    result = run()
    assert result.exit_code == 1
    assert "route_delays → stg_reuse → carrier_delays" in result.output


def test_a_fault_dbt_stops_at_is_shown_without_a_traceback(project: Path) -> None:
    edit(project, f"{VIEWS}/route_delays.sql", {"ref('stg_flights')": "ref('stg_fligths')"})
    result = run()
    assert result.exit_code == 1
    assert "dbt cannot parse the project" in result.output
    assert "stg_fligths" in result.output
    assert f"{VIEWS}/route_delays.sql" in result.output
    assert "Traceback" not in result.output


def test_broken_yaml_is_shown_with_its_place(project: Path) -> None:
    edit(project, f"{VIEWS}/route_delays.yml", {"entities: [": "entities: [["})
    result = run()
    assert result.exit_code == 1
    assert "dbt cannot parse the project" in result.output
    assert f"{VIEWS}/route_delays.yml" in result.output
    assert "Traceback" not in result.output


def test_a_declaration_without_a_model_is_pointed_out(project: Path) -> None:
    """dbt only warns, though the view it belongs to is then undeclared."""
    edit(project, f"{VIEWS}/route_delays.yml", {"  - name: route_delays\n": "  - name: route_delay\n"})
    edit(project, "models/exposures.yml", {"      - ref('route_delays', v=1)\n": ""})
    result = run("--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert "route_delay" in json.dumps([content["warnings"], content["findings"]])


def test_the_example_of_the_reference_page_is_right(project: Path) -> None:
    page = (ROOT / "docs" / "reference" / "declaration.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert example is not None
    shutil.rmtree(project / "dbt_project" / "models")
    shutil.rmtree(project / "dbt_project" / "tests")
    views = project / "dbt_project" / VIEWS
    views.mkdir(parents=True)
    (views / "carrier_delays.yml").write_text(example[1], encoding="utf-8")
    (views / "carrier_delays.sql").write_text("select * from {{ source('nycflights13', 'flights') }}", encoding="utf-8")
    result = run()
    assert result.exit_code == 0, result.output


def test_a_manifest_is_checked_without_dbt(project: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(
        json.dumps({"metadata": {"dbt_schema_version": "https://x/manifest/v9.json"}}), encoding="utf-8"
    )
    with pytest.raises(ConfigurationError, match="schema version"):
        run("--manifest", str(manifest))


def test_a_directory_without_a_project_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURE_PLATFORM_PROJECT", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no dbt project"):
        run()
