"""What an audit says: a verdict per feature, with the rows that show it.

Rule: the verdict follows from counts alone, in this order: two full rebuilds disagree → unknown; a row changes when the
future is cut → leaks; something escaped the cut, or nothing was tried → unknown; else clean. Arrival is judged apart,
because a late-informed row is no error of the model but a difference between training and serving.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from feature_platform.domain.feature_view import FeatureView


class Verdict(enum.StrEnum):
    """Does a row use facts that were not knowable at its `event_timestamp`?"""

    CLEAN = "clean"
    LEAKS = "leaks"
    UNKNOWN = "unknown"


class Arrival(enum.StrEnum):
    """Does a row use facts that had not arrived at `event_timestamp + availability_delay`?"""

    IN_TIME = "in time"
    LATE_INFORMED = "late-informed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Why something cannot be judged, and what makes it known."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row that changes when its sources are cut. Values are as DuckDB prints them; None is NULL."""

    keys: Mapping[str, str | None]
    event_timestamp: str
    instant: datetime
    """Where the sources were cut."""
    with_later: str | None
    """The value while rows after the cut are there."""
    without_later: str | None
    exists: str
    """`always`; `only with later rows`; `only without later rows`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rows of one rebuild against those of another."""

    rows: int
    differing: Mapping[str, int]
    """Per feature, rows whose value differs or that only one of the two has."""
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Per feature, the sources that make the difference when cut alone; empty if only several together do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One cut: all sources at one instant."""

    instant: datetime
    cut: tuple[str, ...]
    """Sources that have rows at or after the instant."""
    late: tuple[str, ...]
    """Sources that have rows of before the instant which arrived too late for it."""
    event_time: Comparison
    arrival: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureAudit:
    """What is known of one feature."""

    feature: str
    verdict: Verdict
    unknown: tuple[Unknown, ...]
    """Why the verdict is unknown; empty otherwise."""
    rows_compared: int
    rows_leaking: int
    leaking_sources: tuple[str, ...]
    examples: tuple[Example, ...]
    arrival: Arrival
    arrival_unknown: tuple[Unknown, ...]
    rows_late_informed: int
    late_sources: tuple[str, ...]
    late_examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakageReport:
    """The audit of one view, on a sample."""

    view: str
    code_version: str
    snapshot: int
    """DuckLake's snapshot: every rebuild read exactly this."""
    seed: int
    instants: tuple[datetime, ...]
    features: tuple[FeatureAudit, ...]
    untouched: tuple[str, ...]
    """Sources with an event time of which nothing lay after any instant, so nothing of them was cut."""
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The worst of the features'."""
        found = {feature.verdict for feature in self.features}
        return next((one for one in (Verdict.LEAKS, Verdict.UNKNOWN) if one in found), Verdict.CLEAN)

    @property
    def arrival(self) -> Arrival:
        """The worst of the features'."""
        found = {feature.arrival for feature in self.features}
        return next((one for one in (Arrival.LATE_INFORMED, Arrival.UNKNOWN) if one in found), Arrival.IN_TIME)

    def having(self, verdict: Verdict) -> tuple[str, ...]:
        """Names of the features with this verdict."""
        return tuple(feature.feature for feature in self.features if feature.verdict is verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What keeps a view from being judged."""

    event_time: tuple[Unknown, ...] = ()
    arrival: tuple[Unknown, ...] = ()
    noisy: Mapping[str, int] = field(default_factory=dict)
    """Features whose values two full rebuilds did not agree on, with the rows."""


def conclude(view: FeatureView, trials: Sequence[Trial], doubts: Doubts) -> tuple[FeatureAudit, ...]:
    """The verdict of each feature."""
    nothing = _nothing_tried(trials)
    return tuple(_feature(name, trials, doubts, nothing) for name in view.feature_names)


def _nothing_tried(trials: Sequence[Trial]) -> tuple[Unknown, ...]:
    if not any(trial.event_time.rows for trial in trials):
        return (
            Unknown(
                reason="no row of the sample has an event_timestamp by then",
                remedy="load the sources, or choose instants with --at where the view has rows",
            ),
        )
    if not any(trial.cut for trial in trials):
        return (
            Unknown(
                reason="no source has a row at or after any of the instants, so nothing was cut",
                remedy="choose earlier instants with --at",
            ),
        )
    return ()


def _feature(name: str, trials: Sequence[Trial], doubts: Doubts, nothing: tuple[Unknown, ...]) -> FeatureAudit:
    noise = _noise(name, doubts)
    leaking = 0 if noise else sum(trial.event_time.differing.get(name, 0) for trial in trials)
    late = 0 if noise else sum(trial.arrival.differing.get(name, 0) for trial in trials)
    unknown = () if leaking else (*noise, *doubts.event_time, *nothing)
    arrival_unknown = () if late else (*noise, *doubts.arrival, *nothing[:1])
    return FeatureAudit(
        feature=name,
        verdict=Verdict.LEAKS if leaking else Verdict.UNKNOWN if unknown else Verdict.CLEAN,
        unknown=unknown,
        rows_compared=sum(trial.event_time.rows for trial in trials),
        rows_leaking=leaking,
        leaking_sources=_sources(name, (trial.event_time for trial in trials)) if leaking else (),
        examples=_examples(name, (trial.event_time for trial in trials)) if leaking else (),
        arrival=Arrival.LATE_INFORMED if late else Arrival.UNKNOWN if arrival_unknown else Arrival.IN_TIME,
        arrival_unknown=arrival_unknown,
        rows_late_informed=late,
        late_sources=_sources(name, (trial.arrival for trial in trials)) if late else (),
        late_examples=_examples(name, (trial.arrival for trial in trials)) if late else (),
    )


def _noise(name: str, doubts: Doubts) -> tuple[Unknown, ...]:
    if not (rows := doubts.noisy.get(name, 0)):
        return ()
    return (
        Unknown(
            reason=f"two full rebuilds from the same source rows differ in {rows} row(s)",
            remedy="make the value depend on nothing but the rows: no now() or random(), and an order without ties in "
            "first(), latest(), row_number(), limit",
        ),
    )


def _sources(name: str, comparisons: Iterable[Comparison]) -> tuple[str, ...]:
    return tuple(sorted({source for one in comparisons for source in one.sources.get(name, ())}))


def _examples(name: str, comparisons: Iterable[Comparison], *, most: int = 3) -> tuple[Example, ...]:
    found = [example for one in comparisons for example in one.examples.get(name, ())]
    return tuple(found[:most])
