"""The drill's project: two hourly views of the reference project with two owners, as they are declared there.

Rule: what is drilled is what ships. Models, checks, SLAs and owners are copied; only where the views begin and what the
service reads is the drill's own.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
VIEWS = ("airport_weather", "aircraft_state")
ROUTES = (
    "FLIGHT_OPERATIONS_ALERT_URL",
    "AIRPORT_OPERATIONS_ALERT_URL",
    "PLATFORM_ALERT_URL",
    "DELAY_PREDICTION_ALERT_URL",
)
_BEGIN = "\"{{ env_var('FEATURE_PLATFORM_FLIGHTS_BEGIN', '2013-01-01') }}\""
_LEFT_OUT = ("aircraft_profile", "carrier_delays", "route_delays")
_SERVICE = """version: 2

exposures:
  - name: departure_delay
    label: Will this flight leave late?
    type: ml
    description: The chance that a flight leaves late, asked all the time.
    owner: {name: Delay prediction, email: delay-prediction@example.com}
    depends_on: ["ref('airport_weather', v=1)", "ref('aircraft_state', v=1)"]
    config:
      meta:
        routes: ["${DELAY_PREDICTION_ALERT_URL}"]
        feature_service: {latency_budget: 20 ms, batch_size: 100, freshness: 3 hours}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A copy that faults may edit."""

    directory: Path

    @classmethod
    def create(cls, directory: Path, *, begin: date) -> Project:
        """Copy the reference project, reduced."""
        for name in ("dbt_project", "dagster_home"):
            shutil.copytree(
                REPOSITORY / name,
                directory / name,
                ignore=shutil.ignore_patterns("target", "logs", "labels", *(f"{view}*" for view in _LEFT_OUT)),
            )
        shutil.copy(REPOSITORY / "workspace.yaml", directory)
        project = cls(directory=directory)
        project.edit("dbt_project.yml", "../feature_platform", str(REPOSITORY / "feature_platform"))
        for view in VIEWS:
            project.edit(f"{view}.yml", _BEGIN, f'"{begin.isoformat()}"')
        project.file("exposures.yml").write_text(_SERVICE, encoding="utf-8")
        return project

    def file(self, name: str) -> Path:
        """A file of the dbt project, by its name."""
        return next((self.directory / "dbt_project").rglob(name))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        path = self.file(name)
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise ValueError(f"{path} does not contain {old!r}")
        path.write_text(text.replace(old, new), encoding="utf-8")
