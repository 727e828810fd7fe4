"""Whoever is paged finds a page that says what it means, whom it concerns, where to look, what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from feature_platform.cli.main import COMMANDS
from feature_platform.observability import KINDS
from feature_platform.observability.kinds import RUNBOOKS

ROOT = Path(__file__).parents[2]
ALERTS = {
    rule["alert"]: rule["annotations"]
    for group in yaml.safe_load((ROOT / "infra" / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
PAGES = sorted(path for path in (ROOT / RUNBOOKS).glob("*.md") if path.name != "README.md")
HEADINGS = ("Meaning", "Impact", "First look", "Fix", "Prevention")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_problem_has_a_page(kind: str) -> None:
    assert (ROOT / RUNBOOKS / KINDS[kind].page).is_file()


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_has_a_page_and_a_command(alert: str) -> None:
    assert (ROOT / ALERTS[alert]["runbook"]).is_file()
    assert ALERTS[alert]["command"].split()[0] in ("feature-platform", "amtool")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_has_the_same_parts_in_order(page: Path) -> None:
    found = re.findall(r"^\*\*([A-Z][a-z ]+)\.?\*\*", page.read_text(), flags=re.MULTILINE)
    assert [heading for heading in found if heading in HEADINGS] == [*HEADINGS]


@pytest.mark.parametrize("page", [*PAGES, ROOT / RUNBOOKS / "README.md"], ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / link).is_file(), link
    commands = {found for found in re.findall(r"feature-platform ([a-z-]+)", text) if not found.startswith("-")}
    assert commands <= set(COMMANDS)


def test_the_index_names_every_page() -> None:
    index = (ROOT / RUNBOOKS / "README.md").read_text()
    assert {page.name for page in PAGES} <= set(re.findall(r"\(([a-z-]+\.md)\)", index))
