"""The examples in docstrings say what the code says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "feature_platform"
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>>" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples(path: Path) -> None:
    module = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
    examples = doctest.testmod(importlib.import_module(module))
    assert examples.attempted > 0
    assert examples.failed == 0
