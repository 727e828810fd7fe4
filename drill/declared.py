"""What is declared of views and sources, read as plain YAML: the judge's own reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

_UNITS = {"minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Owners and SLAs."""

    owners: Mapping[str, str]
    """View to its dbt group, which is the name of its receiver."""
    freshness: Mapping[str, timedelta]
    """View to the age up to which it may be called fresh."""
    arrival: Mapping[str, timedelta]
    """Source table to the age its newest row may reach."""

    @classmethod
    def read(cls, models: Path) -> Declared:
        """Read all YAML files below a directory."""
        owners: dict[str, str] = {}
        freshness: dict[str, timedelta] = {}
        arrival: dict[str, timedelta] = {}
        for path in sorted(models.rglob("*.yml")):
            document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
            for model in document.get("models", ()):
                config = model.get("config", {})
                if view := config.get("meta", {}).get("feature_view"):
                    owners[model["name"]] = config["group"]
                    freshness[model["name"]] = min(map(duration, view["freshness"].values()))
            for table in (table for source in document.get("sources", ()) for table in source["tables"]):
                if warn := table.get("config", {}).get("freshness", {}).get("warn_after"):
                    arrival[table["name"]] = timedelta(seconds=warn["count"] * _UNITS[warn["period"]])
        return cls(owners=owners, freshness=freshness, arrival=arrival)


def duration(text: str) -> timedelta:
    """A duration as declarations write it.

    >>> duration("90 minutes"), duration("1 day")
    (datetime.timedelta(seconds=5400), datetime.timedelta(days=1))
    """
    count, unit = text.split()
    return timedelta(seconds=int(count) * _UNITS[unit.removesuffix("s")])
