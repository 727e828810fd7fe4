"""Retries by the type of the error."""

from __future__ import annotations

import dagster as dg
import pytest

from feature_platform.errors import CheckFailedError, RequestError, SourceNotReadyError
from feature_platform.orchestration import failing


def attempts_of(error: Exception, *, succeed_at: int, monkeypatch) -> tuple[bool, int]:
    monkeypatch.setattr(failing, "SECONDS_TO_WAIT", 0)
    attempts = []

    @dg.op
    def work() -> None:
        attempts.append(1)
        with failing.dagster_failures():
            if len(attempts) < succeed_at:
                raise error

    @dg.job(executor_def=dg.in_process_executor)
    def job() -> None:
        work()

    result = job.execute_in_process(raise_on_error=False)
    return result.success, len(attempts)


def test_what_may_succeed_later_is_tried_again(monkeypatch):
    assert attempts_of(SourceNotReadyError("not yet"), succeed_at=3, monkeypatch=monkeypatch) == (True, 3)


def test_but_not_for_ever(monkeypatch):
    outcome = attempts_of(SourceNotReadyError("not yet"), succeed_at=100, monkeypatch=monkeypatch)
    assert outcome == (False, 1 + failing.MAX_RETRIES)


@pytest.mark.parametrize("error", [RequestError("no such"), CheckFailedError("bad", outcomes=())])
def test_what_cannot_succeed_fails_at_once(error, monkeypatch):
    assert attempts_of(error, succeed_at=2, monkeypatch=monkeypatch) == (False, 1)
