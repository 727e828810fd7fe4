"""The dashboard model of Grafana, as far as these dashboards need it: panels in rows of 24 columns.

Rule: what a panel shows is a value here; ids, places and the JSON around it are derived, so that no two panels collide
and a change of a query is a change of one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

COLUMNS: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHTS: Final = {"row": 1, "stat": 4, "timeseries": 8, "table": 9}
_SCHEMA_VERSION: Final = 39
"""Grafana 10.4; later ones migrate it when they load it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One expression, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture."""

    title: str
    kind: str
    """`timeseries`, `stat`, `table`, or `row`, a heading."""
    queries: tuple[Query, ...] = ()
    unit: str = "short"
    says: str = ""
    """What it means, for who looks at it for the first time."""
    width: int = 12
    red_from: float | None = None
    """A stat or a cell is red from this value on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice above the dashboard; any number, at first all."""

    name: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    says: str
    panels: tuple[Panel, ...]
    variables: tuple[Variable, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The model that Grafana loads."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.says,
            "tags": ["feature-platform"],
            "schemaVersion": _SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "timezone": "utc",
            "refresh": "1m",
            "time": {"from": "now-24h", "to": "now"},
            "links": [
                {
                    "title": "Feature platform",
                    "type": "dashboards",
                    "tags": ["feature-platform"],
                    "asDropdown": True,
                    "includeVars": True,
                    "keepTime": True,
                }
            ],
            "templating": {"list": [_datasource(), *map(_variable, self.variables)]},
            "annotations": {"list": []},
            "panels": [*_placed(self.panels)],
        }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    x = y = height = 0
    for number, panel in enumerate(panels, start=1):
        width = COLUMNS if panel.kind == "row" else panel.width
        if x + width > COLUMNS or panel.kind == "row":
            x, y, height = 0, y + height, 0
        yield {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": _HEIGHTS[panel.kind]}, **_model(panel)}
        x, height = x + width, max(height, _HEIGHTS[panel.kind])


def _model(panel: Panel) -> dict[str, Any]:
    if panel.kind == "row":
        return {"type": "row", "title": panel.title, "collapsed": False, "panels": []}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": DATASOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": [_target(panel, letter, query) for letter, query in zip("ABCDEFGH", panel.queries, strict=False)],
        **_OPTIONS[panel.kind],
    }


def _target(panel: Panel, letter: str, query: Query) -> dict[str, Any]:
    is_now = panel.kind != "timeseries"
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": is_now,
        "range": not is_now,
        "format": "table" if panel.kind == "table" else "time_series",
    }


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    },
    "stat": {
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "auto",
        }
    },
    "table": {
        "options": {"showHeader": True, "cellHeight": "sm"},
        "transformations": [{"id": "organize", "options": {"excludeByName": {"Time": True}}}],
    },
}


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "label": variable.name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": variable.query, "refId": f"variable-{variable.name}"},
        "definition": variable.query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
