"""The example on four months of real flights: what it claims about naive joins must hold, not only run."""

from __future__ import annotations

import importlib.util
import json
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from feature_platform.domain.windows import partitions_between
from feature_platform.lake import connect
from feature_platform.ledger import Ledger
from feature_platform.materialization import deploy, materialize
from feature_platform.reference import load_source, prepare
from feature_platform.reference.clock import FACT
from feature_platform.settings import Settings

THROUGH = datetime(2013, 5, 1, 2, tzinfo=UTC)
EXAMPLE = Path(__file__).parents[2] / "examples" / "honest_scores.py"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("honest_scores", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_naive_join_looks_better_and_is_worse(example: ModuleType, settings_in_environ: Settings) -> None:
    settings = settings_in_environ
    with Ledger.connect(settings.ledger_url) as ledger, closing(connect(settings)) as lake:
        ledger.record_fact(FACT, "0")
        prepare(lake, ledger)
        for source in ("flights", "planes", "assignments"):
            load_source(lake, ledger, source, home=settings.home, through=THROUGH)
    registry = deploy(settings).registry
    unfinished = CliRunner().invoke(example.main)
    assert unfinished.exit_code == 1
    assert "make demo" in unfinished.stderr
    for name in example.VIEWS:
        view = registry.view(name)
        materialize(settings, registry, view, partitions_between(view.begin, THROUGH, view.grain), run_id="example")
    outcome = CliRunner().invoke(example.main, ["--json"])
    assert outcome.exit_code == 0, outcome.output
    scores = json.loads(outcome.stdout)
    naive, honest = scores["same_day"], scores["point_in_time"]
    assert naive["offline"] > honest["offline"] + 0.02
    assert naive["live"] < honest["live"] - 0.01
    assert naive["offline"] - naive["live"] > abs(honest["offline"] - honest["live"])
