"""What is asked of Dagster's webserver over HTTP: whether it answers, and whether the definitions loaded."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

_TIMEOUT_SECONDS = 10.0
_UNREACHABLE = "DagsterUserCodeUnreachableError"
_LOOK_AGAIN = "mutation { reloadWorkspace { __typename } }"
_LOCATIONS = """{ workspaceOrError { __typename
  ... on Workspace { locationEntries { name locationOrLoadError { __typename ... on PythonError { message } } } }
  ... on PythonError { message } } }"""


def answers(url: str) -> bool:
    """Whether a Dagster webserver serves here."""
    try:
        return "dagster_webserver_version" in _get(f"{url}/server_info")
    except (OSError, ValueError):
        return False


def load_problem(url: str) -> str:
    """Why the definitions did not load; empty if they did."""
    try:
        found = query(url, _LOCATIONS)["workspaceOrError"]
    except (OSError, ValueError, KeyError) as error:
        return f"the UI did not answer: {error}"
    if found["__typename"] != "Workspace":
        return str(found.get("message", found))
    problems = [
        f"{entry['name']}: {(entry['locationOrLoadError'] or {}).get('message', 'not loaded').strip()}"
        for entry in found["locationEntries"]
        if (entry["locationOrLoadError"] or {}).get("__typename") != "RepositoryLocation"
    ]
    return "\n           ".join(problems)


def is_cut_off(url: str) -> bool:
    """Whether the webserver does not reach the code server; if so it is asked to look again."""
    if _UNREACHABLE not in load_problem(url):
        return False
    with suppress(OSError, ValueError):
        query(url, _LOOK_AGAIN)
    return True


def query(url: str, text: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    """The data of a GraphQL query.

    Raises:
        OSError: nobody answers.
        ValueError: the query was refused.
    """
    body = json.dumps({"query": text, "variables": variables or {}}).encode()
    answer = _get(f"{url}/graphql", body)
    if answer.get("errors"):
        raise ValueError(str(answer["errors"])[:500])
    data: dict[str, Any] = answer["data"]
    return data


def _get(url: str, body: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - our own
    # a proxy has no business between us and localhost
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        # a query that failed inside Dagster comes with status 500, and with the reason where an answer has it
        try:
            answer = json.load(error)
        except ValueError:
            raise error from None
    return answer
