"""The audit of a view: rebuild it over whole sources and over cut ones, and see which features change.

Rule: every rebuild of an audit reads one snapshot of the lake, computes in one thread in the order of the rows, and is
compared with another rebuild, never with what is stored. So a difference is made by the rows that were cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb

from feature_platform.audit.comparing import Noise, compare, count_repeated, measure_noise
from feature_platform.audit.compiled import CompiledView, compile_view
from feature_platform.audit.references import find_escapes, unstable_functions
from feature_platform.audit.report import Comparison, Doubts, LeakageReport, Trial, Unknown, conclude
from feature_platform.audit.sampling import Run, choose_instants, runs_at, sample_runs
from feature_platform.audit.substitution import CATALOG, STORED, Cut, Substitution, relation
from feature_platform.domain.feature_view import EVENT_TIMESTAMP, FeatureView, Source
from feature_platform.errors import ComputationError, without_passwords
from feature_platform.lake import connect
from feature_platform.lake.catalog import newest_snapshot
from feature_platform.lake.sql import quote_identifier, quote_instant
from feature_platform.materialization import dbt_run
from feature_platform.settings import Settings

PARTITIONS = 4
"""How many partitions are audited if nobody says."""
_STAMPS = 100
"""Distinct stamps of a partition among which instants are chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an audit is."""

    view: str
    done: int
    total: int
    """Partitions."""
    doing: str


OnProgress = Callable[[Progress], None]


def audit_view(
    settings: Settings,
    view: FeatureView,
    *,
    instants: Sequence[datetime] = (),
    partitions: int = PARTITIONS,
    seed: int = 0,
    on_progress: OnProgress = lambda _: None,
) -> LeakageReport:
    """Audit a deployed view on a sample of its partitions.

    Args:
        settings: addresses and directories. Nothing is written to the lake or the ledger.
        view: as declared.
        instants: where to cut; empty: at the stamps of rows of sampled partitions, and at their ends.
        partitions: how many to sample, over the whole history of the sources.
        seed: of the sample.
        on_progress: called before each rebuild.

    Raises:
        NotDeployedError: nothing is deployed.
        RequestError: an instant lies before the view begins.
        ComputationError: the view's SQL failed.
    """
    began = time.perf_counter()
    manifest = dbt_run.load_manifest(settings)
    snapshot = newest_snapshot(settings.lake_catalog)
    with closing(open_substituted(settings, snapshot)) as connection:
        unstable = unstable_functions(connection)
        audit = Audit(connection=connection, view=view, seed=seed, on_progress=on_progress, unstable=unstable)
        if instants:
            runs = runs_at(view, instants)
        else:
            known = _known_range(connection, view.sources)
            runs = sample_runs(view, known, count=partitions, seed=seed) if known else ()
        audit.total = len(runs)
        for run in runs:
            audit.say(f"compiling {run.partitions[0].key}")
            directory = settings.home / "dbt" / "audits" / f"{view.table}-{snapshot}-{audit.done}"
            with _sql_errors(view):
                audit.add(run, compile_view(settings, manifest, view, run.partitions, directory=directory))
    return audit.report(snapshot=snapshot, seconds=time.perf_counter() - began)


def open_substituted(settings: Settings, snapshot: int) -> duckdb.DuckDBPyConnection:
    """DuckDB with the real lake as `stored`, as of a snapshot, and an empty `lake` in memory."""
    connection = connect(settings, read_only=True, threads=1, catalog=STORED, snapshot=snapshot)
    connection.execute(f"attach ':memory:' as {quote_identifier(CATALOG)}")
    connection.execute(f"use {quote_identifier(CATALOG)}")
    return connection


@contextmanager
def _sql_errors(view: FeatureView) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        memory = isinstance(error, duckdb.OutOfMemoryException)
        raise ComputationError(
            f"the audit of {view.key} stopped",
            found=without_passwords(str(error)),
            hint="give it more with FEATURE_PLATFORM_DUCKDB_MEMORY" if memory else f"try the SQL of {view.sql_path}",
        ) from error


def _known_range(connection: duckdb.DuckDBPyConnection, sources: Sequence[Source]) -> tuple[datetime, datetime] | None:
    """The first and the last event time of all sources; None if there is none."""
    dated = [source for source in sources if source.event_time]
    bounds = []
    for source in dated:
        column = quote_identifier(str(source.event_time))
        found = connection.execute(
            f"select min({column})::timestamptz, max({column})::timestamptz"
            f" from {relation(STORED, source.schema, source.table)}"
        ).fetchone()
        if found and found[0] is not None:
            bounds.append((found[0].astimezone(UTC), found[1].astimezone(UTC)))
    return (min(first for first, _ in bounds), max(last for _, last in bounds)) if bounds else None


@dataclass(slots=True, kw_only=True)
class Audit:
    """The audit of one view in progress: trials are added run by run."""

    connection: duckdb.DuckDBPyConnection
    view: FeatureView
    seed: int
    on_progress: OnProgress
    unstable: frozenset[str]
    done: int = 0
    total: int = 0
    trials: list[Trial] = field(default_factory=list)
    event_doubts: dict[Unknown, None] = field(default_factory=dict)
    arrival_doubts: dict[Unknown, None] = field(default_factory=dict)
    noisy: dict[str, int] = field(default_factory=dict)
    dated: tuple[Source, ...] = ()

    def say(self, doing: str) -> None:
        """Tell what happens next."""
        self.on_progress(Progress(view=self.view.key, done=self.done, total=self.total, doing=doing))

    def doubt(self, *unknowns: Unknown) -> None:
        """Note what keeps both questions from being answered."""
        self.event_doubts |= dict.fromkeys(unknowns)
        self.arrival_doubts |= dict.fromkeys(unknowns)

    def add(self, run: Run, compiled: CompiledView) -> None:
        """Rebuild the partitions of a run, whole and cut."""
        self.doubt(*compiled.unknown)
        known, unstable = compiled.relations, self.unstable
        for name, sql in ((self.view.name, compiled.sql), *((model.name, model.sql) for model in compiled.upstream)):
            self.doubt(*find_escapes(self.connection, name, sql, known=known, unstable=unstable))
        try:
            self._try(run, compiled)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            self.doubt(
                Unknown(
                    reason=f"{self.view.name}: cannot be rebuilt apart from the lake: {str(error).splitlines()[0]}",
                    remedy="read everything with `{{ source(…) }}` and `{{ ref(…) }}`, and declare it",
                )
            )
        self.done += 1

    def _try(self, run: Run, compiled: CompiledView) -> None:
        substitution = Substitution(self.connection, compiled)
        self.dated = tuple(source for source in compiled.sources if source.event_time)
        self._doubt_sources(substitution, compiled.sources)
        self.say(f"{run.partitions[0].key}: two full rebuilds")
        substitution.rebuild("full", through=run.through)
        if repeated := count_repeated(self.connection, self.view, "full"):
            self.doubt(
                Unknown(
                    reason=f"{repeated} key(s) have more than one row per event_timestamp, so rows cannot be compared",
                    remedy="group by the entities and event_timestamp; a run refuses such rows, too",
                )
            )
            return
        substitution.cut({}, shuffled=True)
        substitution.rebuild("again", through=run.through)
        noise = measure_noise(self.connection, self.view, "full", "again", through=run.through)
        for name, rows in noise.differing.items():
            self.noisy[name] = self.noisy.get(name, 0) + rows
        self.connection.execute('drop table "again"')
        for instant in choose_instants(run, self._stamps(), seed=self.seed):
            self.say(f"{run.partitions[0].key}: cut at {instant.isoformat()}")
            self.trials.append(self._trial(substitution, compiled.sources, instant, noise))

    def _stamps(self) -> list[datetime]:
        """The first stamp of the rebuilt rows, and some others."""
        stamp = quote_identifier(EVENT_TIMESTAMP)
        rows = self.connection.execute(
            f'select min({stamp}) from "full" having count(*) > 0 union all'
            f' (select {stamp} from (select distinct {stamp} from "full") order by hash({stamp}) limit {_STAMPS})'
        ).fetchall()
        return [stamped.astimezone(UTC) for (stamped,) in rows]

    def _trial(self, substitution: Substitution, sources: Sequence[Source], instant: datetime, noise: Noise) -> Trial:
        """Cut all sources at one instant, by event time and then by arrival."""
        known = {source.name: Cut(before=instant) for source in self.dated}
        cut = [
            source.name
            for source in self.dated
            if substitution.exists(source, f"{quote_identifier(str(source.event_time))} >= {quote_instant(instant)}")
        ]
        event_time = self._difference(
            substitution, {}, {name: known[name] for name in cut}, instant=instant, noise=noise
        )
        deadline = instant + self.view.availability_delay
        late = [
            source.name
            for source in sources
            if source.loaded_at_field and substitution.exists(source, _late(source, instant, deadline))
        ]
        arrived = {name: Cut(before=known.get(name, Cut()).before, arrived_by=deadline) for name in late}
        arrival = self._difference(substitution, known, arrived, instant=instant, noise=noise)
        return Trial(instant=instant, cut=tuple(cut), late=tuple(late), event_time=event_time, arrival=arrival)

    def _difference(
        self,
        substitution: Substitution,
        base: Mapping[str, Cut],
        cuts: Mapping[str, Cut],
        *,
        instant: datetime,
        noise: Noise,
    ) -> Comparison:
        """What `cuts` on top of `base` change, and which of them do it alone."""
        later = "full"
        if cuts and base:
            substitution.cut(base)
            substitution.rebuild(later := "base", through=instant)
        whole = self._against(substitution, later, {**base, **cuts}, instant=instant, noise=noise) if cuts else None
        if whole is None:
            return Comparison(rows=self._count(instant), differing={})
        if not whole.differing or len(cuts) == 1:
            return _blame(whole, dict.fromkeys(whole.differing, tuple(cuts)))
        alone: dict[str, tuple[str, ...]] = {}
        for name, cut in cuts.items():
            one = self._against(substitution, later, {**base, name: cut}, instant=instant, noise=noise, examples=False)
            for feature in one.differing:
                alone[feature] = (*alone.get(feature, ()), name)
        return _blame(whole, alone)

    def _against(
        self,
        substitution: Substitution,
        later: str,
        cuts: Mapping[str, Cut],
        *,
        instant: datetime,
        noise: Noise,
        examples: bool = True,
    ) -> Comparison:
        substitution.cut(cuts)
        substitution.rebuild("cut", through=instant)
        return compare(
            self.connection, self.view, later, "cut", instant=instant, floors=noise.floors, examples=examples
        )

    def _count(self, instant: datetime) -> int:
        found = self.connection.execute(
            f'select count(*) from "full" where {quote_identifier(EVENT_TIMESTAMP)} <= {quote_instant(instant)}'
        ).fetchone()
        return int(found[0]) if found else 0

    def _doubt_sources(self, substitution: Substitution, sources: Sequence[Source]) -> None:
        """What the sources' declarations, and rows without instants, leave open."""
        if self.trials:
            return  # said already: every run reads the same snapshot
        for source in sources:
            doubts = _clock_doubts(substitution, source, "event_time", source.event_time or "")
            self.event_doubts |= dict.fromkeys(doubts)
            doubts = _clock_doubts(substitution, source, "loaded_at_field", source.loaded_at_field)
            self.arrival_doubts |= dict.fromkeys(doubts)

    def report(self, *, snapshot: int, seconds: float) -> LeakageReport:
        """What all trials amount to."""
        doubts = Doubts(event_time=tuple(self.event_doubts), arrival=tuple(self.arrival_doubts), noisy=self.noisy)
        touched = {name for trial in self.trials for name in trial.cut}
        return LeakageReport(
            view=self.view.key,
            code_version=self.view.code_version,
            snapshot=snapshot,
            seed=self.seed,
            instants=tuple(sorted({trial.instant for trial in self.trials})),
            features=conclude(self.view, self.trials, doubts),
            untouched=tuple(source.name for source in self.dated if source.name not in touched),
            seconds=seconds,
        )


def _blame(comparison: Comparison, sources: Mapping[str, tuple[str, ...]]) -> Comparison:
    return Comparison(
        rows=comparison.rows, differing=comparison.differing, examples=comparison.examples, sources=sources
    )


def _late(source: Source, instant: datetime, deadline: datetime) -> str:
    """Rows of before an instant that arrived too late for it."""
    late = f"{quote_identifier(source.loaded_at_field)} > {quote_instant(deadline)}"
    return f"{late} and {quote_identifier(source.event_time)} < {quote_instant(instant)}" if source.event_time else late


def _clock_doubts(substitution: Substitution, source: Source, what: str, column: str) -> tuple[Unknown, ...]:
    if not column:
        return (
            Unknown(
                reason=f"{source.name} has no `{what}`, so nothing of it can be cut",
                remedy=f"declare `{what}: <column>`; a table that has none must be loaded as dated snapshots",
            ),
        )
    if substitution.exists(source, f"{quote_identifier(column)} is null"):
        return (
            Unknown(
                reason=f"{source.name} has rows whose `{what}` ({column}) is NULL: whether they lie in the future, "
                "nobody can say",
                remedy="load such rows when the instant is known, or give them one",
            ),
        )
    return ()
