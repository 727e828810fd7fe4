"""What an operator does in Dagster's UI, by the same GraphQL."""

from __future__ import annotations

from typing import Any

from feature_platform.local import webserver

_SCHEDULES = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
  ... on RepositoryLocation { repositories { name schedules { name id scheduleState { id status } } } } } } } } }"""
_STOP = """mutation($id: String!) { stopRunningSchedule(id: $id) { __typename
  ... on ScheduleStateResult { scheduleState { status } } ... on PythonError { message } } }"""
_START = """mutation($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector) { __typename
  ... on ScheduleStateResult { scheduleState { status } } ... on PythonError { message } } }"""


def stop_schedule(url: str, name: str) -> None:
    """Switch a schedule off."""
    _, schedule = _find(url, name)
    _must_be("STOPPED", webserver.query(url, _STOP, {"id": schedule["scheduleState"]["id"]})["stopRunningSchedule"])


def start_schedule(url: str, name: str) -> None:
    """Switch it on again."""
    selector, _ = _find(url, name)
    _must_be("RUNNING", webserver.query(url, _START, {"selector": selector})["startSchedule"])


def _find(url: str, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    for entry in webserver.query(url, _SCHEDULES)["workspaceOrError"]["locationEntries"]:
        for repository in entry["locationOrLoadError"]["repositories"]:
            for schedule in repository["schedules"]:
                if schedule["name"] == name:
                    selector = {"repositoryLocationName": entry["name"], "repositoryName": repository["name"]}
                    return selector | {"scheduleName": name}, schedule
    raise LookupError(f"Dagster has no schedule {name}")


def _must_be(status: str, answer: dict[str, Any]) -> None:
    if answer.get("scheduleState", {}).get("status") != status:
        raise LookupError(f"the schedule is not {status}: {answer}")
