"""Materialize partitions of a feature view: open → dbt → measure → audit → publish (or hold), all or nothing.

Rule: a batch is visible only after its last check passed, and a run that stops anywhere leaves nothing visible. Its
batches stay opened or failed in the ledger, its rows unread in the lake; the next run opens new ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb

from feature_platform.declaration import FeatureRegistry
from feature_platform.domain.batch import Batch, CheckOutcome, Measured, PublishedBatch
from feature_platform.domain.feature_view import FeatureView
from feature_platform.domain.windows import Partition
from feature_platform.errors import (
    CheckFailedError,
    ComputationError,
    FeaturePlatformError,
    NotDeployedError,
    reason_of,
)
from feature_platform.lake.catalog import bytes_per_row, newest_snapshot
from feature_platform.lake.failures import lake_errors
from feature_platform.ledger import Ledger, deployment_lock
from feature_platform.materialization import dbt_run
from feature_platform.materialization.checks import blocking_failures, describe_failures, judge_data_tests
from feature_platform.materialization.measure import divide, measure, peak_memory, reset_peak_memory
from feature_platform.materialization.reach import lookbacks
from feature_platform.materialization.readiness import check_partitions, check_sources, source_watermarks
from feature_platform.materialization.rejection import explain
from feature_platform.materialization.result import (
    BatchResult,
    MaterializationResult,
    OnEvent,
    RunEvent,
    Step,
    ignore,
)
from feature_platform.quality import judge_profiles, load_earlier, profile_batches
from feature_platform.settings import Settings

LOCK_WAIT = timedelta(minutes=2)


@dataclass(slots=True, kw_only=True)
class _Run:
    """What the phases of one run share."""

    settings: Settings
    view: FeatureView
    run_id: str
    ledger: Ledger
    manifest: Any
    on_event: OnEvent
    batches: tuple[Batch, ...] = ()
    model_seconds: float = 0.0
    hold: bool = False
    lookbacks: dict[str, timedelta | None] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    cpu_began: float = 0.0
    """Processor seconds of this process before, all threads, DuckDB's too; it computes one view at a time."""

    @property
    def batch_ids(self) -> tuple[str, ...]:
        return tuple(batch.batch_id for batch in self.batches)

    @property
    def directory(self) -> Path:
        """Target and log of dbt for this run; stays if dbt fails."""
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in f"{self.run_id}-{self.view.table}")
        return self.settings.home / "dbt" / "runs" / name

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began

    def costs(self) -> dict[str, float]:
        """Processor seconds so far, by batch."""
        return divide(self.batch_ids, self.rows, time.process_time() - self.cpu_began)

    def announce(self, step: Step, dbt: Any = None) -> None:
        self.on_event(RunEvent(step=step, view=self.view.key, batches=self.batches, dbt=dbt))


def materialize(
    settings: Settings,
    registry: FeatureRegistry,
    view: str | FeatureView,
    partitions: Iterable[Partition],
    *,
    run_id: str,
    hold: bool = False,
    on_event: OnEvent = ignore,
    lock_wait: timedelta = LOCK_WAIT,
) -> MaterializationResult:
    """Compute, audit and publish partitions as one batch each.

    Args:
        settings: addresses and directories.
        registry: the deployed declarations.
        view: the feature view or a reference to it.
        partitions: what to compute; they have ended.
        run_id: who computes, for the ledger (Dagster's run id).
        hold: keep the audited batches for somebody to approve instead of publishing them.
        on_event: called after each step, and with each event of dbt. What it raises stops the run.
        lock_wait: how long to wait for a deploy to end.

    Raises:
        RequestError: a partition cannot be computed.
        NotDeployedError: the registry is not what is deployed.
        SourceNotReadyError: a source does not reach far enough yet.
        LockBusyError: a deploy did not end in time.
        ComputationError: the SQL failed.
        BatchRejectedError: the rows break the contract of batches.
        CheckFailedError: a blocking check failed; holds all outcomes.
        ClockSkewError: this machine's clock is wrong.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    declared = view if isinstance(view, FeatureView) else registry.view(view)
    with (
        Ledger.connect(settings.ledger_url) as ledger,
        deployment_lock(ledger.connection, exclusive=False, wait=lock_wait),
    ):
        ledger.check_clock()
        ordered = check_partitions(declared, tuple(partitions), now=ledger.now())
        _check_deployed(declared, ledger)
        check_sources(declared, ordered, ledger)
        run = _Run(
            settings=settings,
            view=declared,
            run_id=run_id,
            ledger=ledger,
            manifest=dbt_run.load_manifest(settings),
            hold=hold,
            on_event=on_event,
            cpu_began=cpu_began,
        )
        run.seconds["ready"] = time.perf_counter() - began
        run.announce(Step.READY)
        return _run(run, ordered)


def _run(run: _Run, partitions: Sequence[Partition]) -> MaterializationResult:
    with run.timed("open"):
        run.batches = run.ledger.open_batches(run.view, partitions, run_id=run.run_id)
    try:
        run.announce(Step.OPENED)
        snapshot = newest_snapshot(run.settings.lake_catalog)
        _write(run)
        # after dbt, because dbt has the lake open then: opening it costs a quarter of a second
        with dbt_run.open_lake(run.settings) as lake:
            measured = _measure(run, lake, partitions, snapshot)
            checks = _audit(run, lake, measured)
        # before publishing: a run that fails after that would not be what it says
        run.ledger.record_costs(run.costs())
        published: tuple[PublishedBatch, ...] = ()
        with run.timed("publish"):
            if run.hold:
                run.ledger.hold(run.batch_ids)
            else:
                published = run.ledger.publish(run.batch_ids)
    except BaseException as error:
        _give_up(run, error)
        raise
    run.announce(Step.HELD if run.hold else Step.PUBLISHED)
    return _result(run, published, measured, checks)


def _write(run: _Run) -> None:
    """Let dbt append the rows, in one transaction."""
    reset_peak_memory()
    with run.timed("compute"):
        outcome = _dbt(run, "run")
        if not outcome.success:
            raise explain(run.view, outcome, run.directory)
        ours = [result for result in outcome.results if result.unique_id == run.view.unique_id]
        if not ours:
            raise ComputationError(f"dbt ran nothing of {run.view.key}", hint="look for selectors in dbt's settings")
        run.model_seconds = sum(result.seconds for result in outcome.results)
        run.lookbacks = lookbacks(run.view, ours[0].compiled_sql, run.manifest)
    run.announce(Step.WRITTEN)


def _measure(
    run: _Run, lake: duckdb.DuckDBPyConnection, partitions: Sequence[Partition], snapshot: int
) -> tuple[Measured, ...]:
    """Record that the rows are there, and what they cost."""
    view = run.view
    with run.timed("measure"):
        measured = measure(
            lake,
            run.view,
            run.batches,
            # few rows lie in the catalog and in no file
            bytes_per_row=bytes_per_row(run.settings.lake_catalog, run.view.table, since=snapshot)
            or run.view.row_bytes,
            seconds=run.model_seconds,
            peak_memory_bytes=peak_memory(),
            watermarks=source_watermarks(lake, view, partitions, snapshot=snapshot),
            lookbacks=run.lookbacks,
        )
        run.ledger.record_computed(measured)
        run.rows = {one.batch_id: one.row_count for one in measured}
    run.announce(Step.COMPUTED)
    return measured


def _audit(run: _Run, lake: duckdb.DuckDBPyConnection, measured: Sequence[Measured]) -> tuple[CheckOutcome, ...]:
    """Let every check speak, record what it said, and stop the run if a blocking one failed."""
    with run.timed("profile"):
        checks = _profile(run, lake, measured)
    # an invocation that finds no tests still costs its overhead
    if tests := dbt_run.data_tests(run.manifest, run.view.unique_id):
        with run.timed("tests"):
            # said here, because the project's flags and the environment may say otherwise
            outcome = _dbt(run, "test", "--exclude-resource-type", "unit_test", "--indirect-selection", "eager")
            checks += judge_data_tests(lake, outcome, run.batches, declared=tests, samples=run.view.quality.samples)
            if not outcome.success and not blocking_failures(checks):
                raise explain(run.view, outcome, run.directory)
    if run.view.expectations:
        from feature_platform.quality import judge  # Great Expectations takes seconds to import

        with run.timed("expectations"):
            checks += judge(run.view, lake, run.batches)
    run.ledger.record_checks(checks)
    run.announce(Step.CHECKED)
    failures = blocking_failures(checks)
    run.ledger.record_audited(run.batch_ids, passed=not failures)
    run.announce(Step.AUDITED)
    if failures:
        names = {failure.check for failure in failures}
        raise CheckFailedError(
            f"{len(names)} blocking check{'s' * (len(names) > 1)} of {run.view.key} failed; nothing was published",
            outcomes=checks,
            found=describe_failures(failures, run.batches),
            hint="the last published values keep being served; correct the data or the model, then materialize again",
        )
    return checks


def _profile(run: _Run, lake: duckdb.DuckDBPyConnection, measured: Sequence[Measured]) -> tuple[CheckOutcome, ...]:
    """Keep what the values of each batch look like, and judge it beside those before."""
    began = time.perf_counter()
    rows = {one.batch_id: one.row_count for one in measured}
    with lake_errors(f"profiling {run.view.key}"):
        profiles = profile_batches(run.view, lake, run.batches, rows=rows)
    run.ledger.record_profiles(profiles, seconds=time.perf_counter() - began)
    earlier = load_earlier(run.ledger, run.view, run.batches, profiles)
    with_input = {one.batch_id for one in measured if one.has_input}
    return judge_profiles(run.view, run.batches, profiles, earlier, with_input=with_input)


def _dbt(run: _Run, *command: str) -> dbt_run.Invocation:
    return dbt_run.invoke(
        run.settings,
        [*command, "--select", dbt_run.select_node(run.manifest, run.view.unique_id)],
        manifest=run.manifest,
        run_directory=run.directory,
        variables=dbt_run.build_vars(run.batches),
        on_event=lambda event: run.announce(Step.DBT, event),
    )


def _give_up(run: _Run, error: BaseException) -> None:
    """Record that the run's batches will never be published. Best effort: what is not recorded counts as unfinished."""
    # a connection of its own: the run's may be what failed, or be in the middle of something
    with suppress(FeaturePlatformError), Ledger.connect(run.settings.ledger_url) as ledger:
        ledger.record_failed(run.batch_ids, reason_of(error))
        ledger.record_costs(run.costs())


def _check_deployed(view: FeatureView, ledger: Ledger) -> None:
    """A registry loaded before the last deploy would record the wrong code version."""
    deployments = ledger.deployments(limit=1)
    deployed = deployments[0].views.get(view.key) if deployments else None
    if deployed is None or deployed["code_version"] != view.code_version:
        raise NotDeployedError(
            f"{view.key} is not deployed as this process knows it",
            found=f"code version {deployed['code_version'][:12]} is deployed" if deployed else "nothing deployed",
            allowed=f"code version {view.code_version[:12]}",
            hint="run `feature-platform deploy`; a process that has loaded older declarations must be restarted",
        )


def _result(
    run: _Run,
    published: Sequence[PublishedBatch],
    measured: Sequence[Measured],
    checks: tuple[CheckOutcome, ...],
) -> MaterializationResult:
    by_id = {measure.batch_id: measure for measure in measured}
    return MaterializationResult(
        view=run.view,
        run_id=run.run_id,
        batches=tuple(
            BatchResult(batch=batch, measured=by_id[batch.batch_id])
            for batch in sorted(published, key=lambda batch: batch.partition)
        ),
        held=run.batches if run.hold else (),
        checks=checks,
        seconds=dict(run.seconds),
    )
