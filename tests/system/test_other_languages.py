"""The format read by another language, Node.js, against the golden vectors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "docs" / "reference" / "online-format.vectors.json"


@pytest.mark.system
def test_sixty_lines_of_javascript_read_every_vector() -> None:
    lines = (HERE / "decoder.mjs").read_text("utf-8").splitlines()
    assert len(lines) <= 60
    done = subprocess.run(
        ["node", str(HERE / "check_vectors.mjs"), str(VECTORS)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    vectors = json.loads(VECTORS.read_text("utf-8"))
    assert int(done.stdout) == len(vectors["values"]) + len(vectors["tombstones"])
