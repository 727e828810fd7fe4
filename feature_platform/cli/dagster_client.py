"""What commands ask of Dagster: start a run or a backfill, look how far it is, cancel it. GraphQL over HTTP.

Rule: the command only asks; the daemon starts runs and the UI shows them. Ending the command ends nothing else.
"""

from __future__ import annotations

import os
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_platform.errors import (
    ConfigurationError,
    FeaturePlatformError,
    RequestError,
    ServiceStartError,
    UnknownNameError,
)
from feature_platform.settings import PREFIX, home_dir

UI_VARIABLE = PREFIX + "DAGSTER_UI"
"""Address of a Dagster UI that `feature-platform up` did not start."""

RUN_OVER = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
BACKFILL_OVER = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})
_REASONS = 5
_AFTER_DEPLOY = (
    "after a deploy, `feature-platform up --restart` loads what is new; else see `feature-platform status` and the"
    " webserver's log"
)

_LOCATIONS = """{ workspaceOrError { __typename ... on Workspace { locationEntries { name locationOrLoadError {
  __typename ... on RepositoryLocation { repositories { name } } ... on PythonError { message } } } } } }"""
_LAUNCH_RUN = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { id } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } ... on Error { message } } }"""
_RUN = """query($id: ID!) { runOrError(runId: $id) { __typename ... on Run { id status startTime endTime
  stepStats { stepKey status } } } }"""
_LAUNCH_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
_BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename
  ... on PythonError { message }
  ... on PartitionBackfill { id status numCancelable error { message }
    runs(limit: 1000) { id status }
    assetBackfillData { assetBackfillStatuses { __typename
      ... on AssetPartitionsStatusCounts { assetKey { path } numPartitionsTargeted numPartitionsInProgress
        numPartitionsMaterialized numPartitionsFailed }
      ... on UnpartitionedAssetStatus { assetKey { path } inProgress materialized failed } } } } } }"""
_CANCEL = """mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) { __typename
  ... on CancelBackfillSuccess { backfillId } ... on Error { message } } }"""
_FAILURES = """query($id: ID!) { logsForRun(runId: $id, limit: 10000) { __typename ... on EventConnection { events {
  __typename
  ... on ExecutionStepFailureEvent { stepKey failureMetadata { description } error { message cause { message } } }
  ... on RunFailureEvent { message error { message } } } } } }"""

_WAITS = """query($id: ID!, $after: String) { logsForRun(runId: $id, afterCursor: $after, limit: 1000) { __typename
  ... on EventConnection { cursor events { __typename
  ... on ExecutionStepUpForRetryEvent { stepKey secondsToWait error { message cause { message } } } } } } }"""
_BACKFILLS = """query($status: BulkActionStatus!) { partitionBackfillsOrError(status: $status, limit: 25) { __typename
  ... on PythonError { message } ... on PartitionBackfills { results { id title tags { key value } } } } }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetProgress:
    """How far a backfill is with one asset; an unpartitioned asset counts as one partition."""

    asset: str
    targeted: int
    done: int
    failed: int
    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillProgress:
    """How far a backfill is."""

    status: str
    assets: tuple[AssetProgress, ...]
    runs: Mapping[str, str]
    """Run id to status."""
    error: str

    @property
    def is_over(self) -> bool:
        """Nothing more will happen."""
        return self.status in BACKFILL_OVER

    @property
    def succeeded(self) -> bool:
        """Everything asked for is done."""
        return self.status in ("COMPLETED", "COMPLETED_SUCCESS") and not any(one.failed for one in self.assets)


class DagsterClient:
    """One Dagster UI with one code location."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @classmethod
    def running(cls) -> DagsterClient:
        """The UI of the local stack, or the one the environment names.

        Raises:
            ServiceStartError: none runs.
        """
        from feature_platform.local import supervision, webserver  # psutil

        url = os.environ.get(UI_VARIABLE) or next(
            (status.address for status in supervision.dagster_status(home_dir()) if status.address), ""
        )
        if not url or not webserver.answers(url.rstrip("/")):
            raise ServiceStartError(
                "Dagster does not run",
                found=f"nothing answers at {url}" if url else "the local stack is down",
                hint=f"start it with `feature-platform up`, or set {UI_VARIABLE} to the address of its UI",
            )
        return cls(url)

    # -- runs ---------------------------------------------------------------------------------------------------

    def launch_run(self, assets: Sequence[Sequence[str]], *, tags: Mapping[str, str]) -> str:
        """Start a run over some assets; its id."""
        location, repository = self._repository()
        answer = self._ask(
            _LAUNCH_RUN,
            params={
                "selector": {
                    "repositoryLocationName": location,
                    "repositoryName": repository,
                    "pipelineName": "__ASSET_JOB",
                    "assetSelection": [{"path": list(path)} for path in assets],
                },
                "runConfigData": {},
                "mode": "default",
                "executionMetadata": {"tags": _pairs(tags)},
            },
        )["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise RequestError("Dagster did not start the run", found=_message(answer), hint=_AFTER_DEPLOY)
        return str(answer["run"]["id"])

    def run_status(self, run_id: str) -> tuple[str, dict[str, str]]:
        """The run's status, and that of each step that began."""
        answer = self._ask(_RUN, id=run_id)["runOrError"]
        if answer["__typename"] != "Run":
            raise UnknownNameError(f"Dagster knows no run {run_id}", hint=f"{self.url}/runs lists them")
        return answer["status"], {step["stepKey"]: step["status"] or "" for step in answer["stepStats"]}

    def run_failures(self, run_id: str) -> tuple[str, ...]:
        """Why a run failed: one reason per failed step, or that of the run."""
        events = self._ask(_FAILURES, id=run_id)["logsForRun"].get("events", ())
        steps = [
            f"{event['stepKey'].replace('__', '/')}: {_reason(event)}"
            for event in events
            if event["__typename"] == "ExecutionStepFailureEvent"
        ]
        whole = [_reason(event) for event in events if event["__typename"] == "RunFailureEvent"]
        return tuple(steps or whole)

    def run_waits(self, run_id: str, *, after: str | None = None) -> tuple[tuple[str, ...], str | None]:
        """Which steps wait to be tried again and why, as sentences; and the cursor from which to ask next time."""
        answer = self._ask(_WAITS, id=run_id, after=after)["logsForRun"]
        waits = tuple(
            f"{event['stepKey'].replace('__', '/')} is tried again in {event['secondsToWait'] or 0:.0f} s: "
            + _reason(event).replace("\n", "\n  ")
            for event in answer.get("events", ())
            if event["__typename"] == "ExecutionStepUpForRetryEvent"
        )
        return waits, answer.get("cursor", after)

    def run_url(self, run_id: str) -> str:
        """Where the UI shows a run."""
        return f"{self.url}/runs/{run_id}"

    # -- backfills ----------------------------------------------------------------------------------------------

    def launch_backfill(
        self, ranges: Mapping[tuple[str, ...], Sequence[tuple[str, str]]], *, title: str, tags: Mapping[str, str]
    ) -> str:
        """Start a backfill; its id.

        Args:
            ranges: per asset the ranges of partition keys (ends included); none for an unpartitioned asset.
            title: what the UI calls it.
            tags: tags of its runs.
        """
        selectors = [
            {"assetKey": {"path": list(path)}}
            | ({"partitions": {"ranges": [{"start": a, "end": b} for a, b in wanted]}} if wanted else {})
            for path, wanted in ranges.items()
        ]
        answer = self._ask(
            _LAUNCH_BACKFILL, params={"partitionsByAssets": selectors, "title": title, "tags": _pairs(tags)}
        )["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise RequestError("Dagster did not start the backfill", found=_message(answer), hint=_AFTER_DEPLOY)
        return str(answer["backfillId"])

    def running_backfill(self, title: str, *, tags: Mapping[str, str]) -> str | None:
        """The oldest backfill of this title and tags that is going on; None if there is none."""
        wanted = set(tags.items())
        answer = self._ask(_BACKFILLS, status="REQUESTED")["partitionBackfillsOrError"]
        found = [
            one["id"]
            for one in answer.get("results", ())
            if one["title"] == title and wanted <= {(tag["key"], tag["value"]) for tag in one["tags"]}
        ]
        return str(found[-1]) if found else None  # newest first

    def backfill(self, backfill_id: str) -> BackfillProgress:
        """How far a backfill is."""
        answer = self._ask(_BACKFILL, id=backfill_id)["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise UnknownNameError(
                f"Dagster knows no backfill {backfill_id}",
                found=_message(answer),
                hint=f"{self.url}/runs lists them",
            )
        data = answer["assetBackfillData"] or {"assetBackfillStatuses": ()}
        return BackfillProgress(
            status=answer["status"],
            assets=tuple(map(_asset_progress, data["assetBackfillStatuses"])),
            runs={run["id"]: run["status"] for run in answer["runs"]},
            error=(answer["error"] or {}).get("message", ""),
        )

    def backfill_failures(self, progress: BackfillProgress) -> Iterator[str]:
        """Why runs of a backfill failed; the first few."""
        if progress.error:
            yield progress.error
        # the backfill may be over before its last run is marked: its steps have failed already
        failed = [run_id for run_id, status in progress.runs.items() if status not in ("SUCCESS", "CANCELED")]
        for run_id in failed[:_REASONS]:
            yield from self.run_failures(run_id)
        if len(failed) > _REASONS:
            yield f"and {len(failed) - _REASONS} more runs"

    def cancel_backfill(self, backfill_id: str) -> None:
        """Start no more runs of a backfill, and end those that run."""
        answer = self._ask(_CANCEL, id=backfill_id)["cancelPartitionBackfill"]
        if answer["__typename"] != "CancelBackfillSuccess":
            raise RequestError(
                f"backfill {backfill_id} was not cancelled",
                found=_message(answer),
                hint=f"look at {self.backfill_url(backfill_id)}",
            )

    def backfill_url(self, backfill_id: str) -> str:
        """Where the UI shows a backfill."""
        return f"{self.url}/runs/b/{backfill_id}"

    # -- HTTP ---------------------------------------------------------------------------------------------------

    def _repository(self) -> tuple[str, str]:
        """Names of the code location and its repository.

        Raises:
            ConfigurationError: no location loads.
        """
        entries = self._ask(_LOCATIONS)["workspaceOrError"].get("locationEntries", ())
        for entry in entries:
            loaded = entry["locationOrLoadError"] or {}
            if loaded.get("__typename") == "RepositoryLocation":
                return entry["name"], loaded["repositories"][0]["name"]
        raise ConfigurationError(
            "Dagster has not loaded the definitions",
            found="; ".join(str((entry["locationOrLoadError"] or {}).get("message", "")) for entry in entries),
            hint="correct the declarations, run `feature-platform deploy`, then `feature-platform up --restart`",
        )

    def _ask(self, text: str, **variables: Any) -> dict[str, Any]:
        from feature_platform.local import webserver

        try:
            return webserver.query(self.url, text, variables)
        except urllib.error.HTTPError as error:
            raise ServiceStartError(
                "Dagster's UI answered with an error",
                found=f"{self.url}: {error}",
                hint=_AFTER_DEPLOY,
            ) from error
        except OSError as error:
            raise ServiceStartError(
                "Dagster's UI does not answer", found=f"{self.url}: {error}", hint="look at `feature-platform status`"
            ) from error
        except ValueError as error:
            raise FeaturePlatformError("Dagster refused a question", found=str(error)) from error


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _message(answer: Mapping[str, Any]) -> str:
    errors = "; ".join(error["message"] for error in answer.get("errors", ()))
    return str(answer.get("message") or errors or answer["__typename"])


def _reason(event: Mapping[str, Any]) -> str:
    described = (event.get("failureMetadata") or {}).get("description")
    error = event.get("error") or {}
    cause = (error.get("cause") or {}).get("message")
    return str(described or cause or error.get("message") or event.get("message") or "no reason given").strip()


def _asset_progress(status: Mapping[str, Any]) -> AssetProgress:
    name = "/".join(status["assetKey"]["path"])
    if status["__typename"] == "UnpartitionedAssetStatus":
        return AssetProgress(
            asset=name,
            targeted=1,
            done=int(status["materialized"]),
            failed=int(status["failed"]),
            running=int(status["inProgress"]),
        )
    return AssetProgress(
        asset=name,
        targeted=status["numPartitionsTargeted"],
        done=status["numPartitionsMaterialized"],
        failed=status["numPartitionsFailed"],
        running=status["numPartitionsInProgress"],
    )
