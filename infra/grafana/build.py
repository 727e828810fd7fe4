"""The files that Grafana loads: `python infra/grafana/build.py` writes them, `--check` compares.

Rule: the files are derived; tests/unit/test_dashboards.py holds them to their sources, and
tests/e2e/test_dashboard_queries.py every query to promtool.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from of_platform import COST, HEALTH, INCIDENTS, LOG
from of_views import FRESHNESS, PARITY, QUALITY, SYNC

TARGET: Final = Path(__file__).parent / "dashboards"
DASHBOARDS: Final = (FRESHNESS, QUALITY, SYNC, PARITY, COST, LOG, INCIDENTS, HEALTH)


def main(*, only_check: bool) -> None:
    """Write the files, or say which of them are not what this file says."""
    wanted = {
        TARGET / f"{one.uid.removeprefix('fp-')}.json": json.dumps(one.to_json(), indent=2, ensure_ascii=False) + "\n"
        for one in DASHBOARDS
    }
    found = {path: path.read_text() for path in TARGET.glob("*.json")}
    if only_check:
        differing = sorted(path.name for path in {*wanted, *found} if wanted.get(path) != found.get(path))
        if differing:
            sys.exit(f"not what build.py says: {', '.join(differing)}; run `python infra/grafana/build.py`")
        return
    for path in found.keys() - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main(only_check="--check" in sys.argv[1:])
