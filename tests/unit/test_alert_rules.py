"""What can be wrong is alerted on, and what is alerted on is known to fire."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from feature_platform.observability import KINDS
from feature_platform.observability.families import PREFIX

PROMETHEUS = Path(__file__).parents[2] / "infra" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
TESTS: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]


def kinds_alerted_on() -> set[str]:
    selected = re.findall(r'kind=~?"([a-z_|]+)"', "\n".join(rule["expr"] for rule in RULES))
    return {kind for one in selected for kind in one.split("|")} | {rule["labels"].get("kind", "") for rule in RULES}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_problem_is_alerted_on(kind: str) -> None:
    assert kind in kinds_alerted_on()


@pytest.mark.parametrize("alert", sorted({rule["alert"] for rule in RULES}))
def test_every_alert_is_seen_to_fire_in_the_rules_own_tests(alert: str) -> None:
    assert any(
        one["alertname"] == alert and one.get("exp_alerts") for test in TESTS for one in test.get("alert_rule_test", ())
    ), f"infra/prometheus/rules_test.yml never expects {alert}"


ENDS_WITH_THE_EXPORTER = {"FeatureSilenced", "FeatureStoreEvicts"}
"""A silence is over by its own clock; and of evictions only more of them are news."""


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule["alert"] not in ENDS_WITH_THE_EXPORTER], ids=lambda rule: rule["alert"]
)
def test_an_alert_outlives_the_exporter(rule: dict[str, Any]) -> None:
    only_while_it_answers = f'{PREFIX}part_up{{part="ledger"}} == 1'
    for found in re.finditer(rf"{PREFIX}\w+(?:{{[^}}]*}})?(\[6h\])?", rule["expr"].replace(only_while_it_answers, "")):
        assert found[1], f"{found[0]} does not look back"
