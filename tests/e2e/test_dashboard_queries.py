"""Every query of the dashboards, evaluated by Prometheus' own engine over the series of two exporters.

Syntax alone would not show a join that finds two series where it needs one, which is what a second store makes of it.
"""

from __future__ import annotations

import json
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VALUES = {
    "view": ["a@1", "b@1"],
    "severity": ["warn", "error"],
    "verdict": ["passed", "failed"],
    "clock": ["computed", "published", "online"],
    "kind": ["failing", "held", "late", "need", "source", "unserved", "lost", "parity", "automation"],
    "part": ["watch", "store", "ledger"],
}
"""Labels with more than one value in a query; any other has one."""

pytestmark = pytest.mark.system


def queries() -> list[str]:
    """All expressions, with everything chosen."""
    found = [
        target["expr"]
        for path in sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "1h")):
        found = [expr.replace(variable, value) for expr in found]
    return [re.sub(r"\$(view|store|owner)", ".*", expr) for expr in found]


def series() -> list[dict[str, str]]:
    """Every metric of the reference, from an exporter for each of two stores."""
    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \|", (ROOT / "docs" / "reference" / "metrics.md").read_text(), flags=re.MULTILINE
    )
    made = []
    for names, labels in rows:
        for name, store in product(re.findall(r"`(\w+)`", names), ("eu", "us")):
            chosen = [
                [(label, value) for value in ([store] if label == "store" else VALUES.get(label, ["x"]))]
                for label in labels.split(", ")
            ]
            for pairs in product(*chosen):
                text = ",".join(f'{label}="{value}"' for label, value in (*pairs, ("instance", store)))
                values = "1000000x60" if name == "silence_end_timestamp_seconds" else "1+1x60"
                made.append({"series": f"feature_platform_{name}{{{text}}}", "values": values})
    scraped = [f'{name}{{job="feature_platform",instance="eu"}}' for name in ("up", "scrape_duration_seconds")]
    return [*made, *({"series": one, "values": "1x60"} for one in scraped)]


def test_every_query_is_answered(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    answered = [
        # an engine that fails on a query says so; here each must also have something to say
        {"expr": f"count(query:{number}) > bool 0", "eval_time": "30m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for number in range(len(rules))
    ]
    test = {"interval": "1m", "input_series": series(), "promql_expr_test": answered}
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "10m", "tests": [test]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    failed = [queries()[int(number)] for number in sorted(set(re.findall(r"query:(\d+)", done.stdout + done.stderr)))]
    assert done.returncode == 0, "\n".join([*failed, done.stderr[:4000]])
