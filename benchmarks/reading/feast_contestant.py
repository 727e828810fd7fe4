"""Feast, in an environment of its own: writes the same rows into the same server, then reads as it is told.

Rule: one line in, one line out: `{"views": 3, "draws": [[1, 2, …], …]}` is answered by the seconds of each read and the
values of the last one.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, Int64, String

KEY = "entity"
TYPES = {"f": Float64, "i": Int64, "s": String}


def main() -> None:
    """Serve the benchmark until it closes the pipe."""
    directory, address = Path(sys.argv[1]), sys.argv[2]
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(directory / "registry.db"),
            online_store={"type": "redis", "connection_string": address},
            offline_store={"type": "dask"},
            entity_key_serialization_version=3,
        )
    )
    references = _fill(store, directory)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        chosen = [name for view in list(references)[: asked["views"]] for name in references[view]]
        seconds = []
        answer: dict[str, list[Any]] = {}
        for draw in asked["draws"]:
            rows = [{KEY: entity} for entity in draw]
            began = time.perf_counter()
            answer = store.get_online_features(features=chosen, entity_rows=rows).to_dict()
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": seconds, "answer": answer}), flush=True)


def _fill(store: FeatureStore, directory: Path) -> dict[str, list[str]]:
    entity = Entity(name=KEY, join_keys=[KEY], value_type=ValueType.INT64)
    references, views, frames = {}, [], {}
    for path in sorted(directory.glob("*.parquet")):
        frame = frames[path.stem] = pd.read_parquet(path)
        names = [name for name in frame.columns if name not in (KEY, "event_timestamp")]
        views.append(
            FeatureView(
                name=path.stem,
                entities=[entity],
                ttl=timedelta(days=30),
                schema=[Field(name=name, dtype=TYPES[name.split("_")[1][0]]) for name in names],
                source=FileSource(path=str(path), timestamp_field="event_timestamp"),
            )
        )
        references[path.stem] = [f"{path.stem}:{name}" for name in names]
    store.apply([entity, *views])
    for name, frame in frames.items():
        store.write_to_online_store(name, frame)
    return references


if __name__ == "__main__":
    main()
