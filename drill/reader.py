"""A consumer: reads the same entities through the real client all the time, and records every answer it gets.

Rule: it knows nothing of faults and judges nothing. It is a process of its own and lives by the stack's clock.

    python -m drill.reader KEYS.json RECORD.jsonl
"""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from feature_platform.errors import FeaturePlatformError
from feature_platform.online import FeatureClient

_PAUSE_SECONDS = 1.0
_ended = False


def read(client: FeatureClient, view: str, keys: list[dict[str, str]]) -> dict[str, Any]:
    """One request and its answer, or the error it ended with."""
    asked: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "view": view}
    try:
        answer = client.get_online_features([view], keys, timeout_seconds=1.0)
    except FeaturePlatformError as error:
        return asked | {"error": type(error).__name__, "keys": len(keys)}
    rows = []
    for key, row in zip(keys, answer, strict=True):
        reading = row.views[f"{view}@1"]
        rows.append(
            {
                "key": list(key.values()),
                "status": str(reading.status.value),
                "event": reading.event_timestamp,
                "values": row.values,
            }
        )
    return asked | {"rows": rows}


def _plain(value: object) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _end(_: int, __: FrameType | None) -> None:
    global _ended  # noqa: PLW0603 - a signal handler has no other place to say it
    _ended = True


def main() -> None:
    """Read until asked to end."""
    signal.signal(signal.SIGTERM, _end)
    keys = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with FeatureClient.from_env() as client, Path(sys.argv[2]).open("a", encoding="utf-8") as record:
        while not _ended:
            for view, entities in keys.items():
                record.write(json.dumps(read(client, view, entities), default=_plain) + "\n")
            record.flush()
            time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main()
