"""What an online store held of a view, and for which instants that is known: derived from the ledger's records. Pure.

Rule: a store is *known* between two sightings of one incarnation (nonce and server process) whose position never fell,
from the first sighting that is at or past every position known to have been reached. Everything else is unknown:
between incarnations (the store was emptied, restarted or set back), after the last sighting, and while it held rows
that retention has deleted since. While it is known it
holds `state(d)`, d the greatest position whose sync has ended, or `state(j)` of a sync to j > d that has begun.

A store is read at some moment between asking it and recording what it said. A sighting therefore counts from its record
on, and until just before it was asked: what is called known errs towards unknown.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise, zip_longest

INSTANT = timedelta(microseconds=1)
"""The ledger's resolution: what holds up to an instant, it included, ends this much later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Just before a store was asked: the ledger's last number, and its clock."""

    sequence: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What a store said of one view."""

    nonce: str | None
    """Drawn when the store's position was created; None if it holds none."""
    position: int
    at_least: bool = False
    """The position is a lower bound: the store accepted to advance there, and may have been further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A recorded sighting."""

    ledger_seq: int
    asked: Asked
    observed_at: datetime
    good_until: datetime
    """Just before the last look that saw the very same."""
    server_run_id: str
    seen: Sighting
    sync_id: str | None

    @property
    def incarnation(self) -> tuple[str | None, str]:
        """Which store this was: another nonce is another data set, another run id another process."""
        return self.seen.nonce, self.server_run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSpan:
    """When a sync may have been writing."""

    sync_id: str
    began_seq: int
    began_at: datetime
    to_position: int
    ended_seq: int | None
    ended_at: datetime | None


class Loss(enum.StrEnum):
    """Why what a store holds was unknown for a while."""

    RESTARTED = "restarted"
    """Another server process; the data may have been kept."""
    EMPTIED = "emptied"
    """Another nonce, or none: the data was lost."""
    BEHIND = "set back"
    """The same process holds an earlier position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIncident:
    """A time for which nobody can say what the store held."""

    since: datetime
    """Just before the last sighting of the store as it was."""
    until: datetime | None
    """When it was known again; None if it is not yet."""
    loss: Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """From when until when, both included, the records say what the store held."""

    since: datetime | None
    """None: nothing had ever been written before."""
    until: datetime


class WindowKind(enum.StrEnum):
    """Why an instant has no plain answer."""

    UNKNOWN = "unknown"
    IN_FLIGHT = "in flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Instants from `since` until before `until` without a plain answer."""

    since: datetime
    until: datetime
    kind: WindowKind
    candidates: tuple[int, ...] = ()
    """Positions that syncs in flight may have written, besides the one that had ended."""


@dataclass(slots=True, kw_only=True)
class _Era:
    """Sightings of one incarnation, in the order in which they were recorded."""

    incarnation: tuple[str | None, str]
    first_seq: int
    last_good: datetime
    known_since: datetime | None = None
    is_known: bool = False
    is_virgin: bool = False
    loss: Loss | None = None
    """What ended the era before."""
    recorded: list[int] = field(default_factory=list)
    """Numbers of its sightings."""
    reached: list[int] = field(default_factory=list)
    """The greatest position up to each of them."""

    def add(self, seen: Observation) -> None:
        """Count a sighting in."""
        self.last_good = max(self.last_good, seen.good_until)
        self.recorded.append(seen.ledger_seq)
        self.reached.append(max(seen.seen.position, self.reached[-1] if self.reached else 0))

    def lost_what_it_had(self, seen: Observation) -> bool:
        """Whether a position that had been reached before the store was asked is gone."""
        before = bisect_right(self.recorded, seen.asked.sequence)
        return not seen.seen.at_least and before > 0 and seen.seen.position < self.reached[before - 1]


@dataclass(frozen=True, kw_only=True)
class ServedHistory:
    """What one store held of one view over time, as of one ledger sequence."""

    known: tuple[Known, ...]
    incidents: tuple[StoreIncident, ...]
    ends: tuple[tuple[datetime, int], ...]
    """(instant, position) of each ended sync that reached further than all before it."""
    syncs: tuple[SyncSpan, ...]
    forgotten: tuple[tuple[datetime, datetime], ...] = ()
    """From when until before when the store held, or may have held, rows that were deleted since."""

    @property
    def live_since(self) -> datetime | None:
        """When the first sync had ended; None if none has."""
        return self.ends[0][0] if self.ends else None

    @property
    def confirmed_until(self) -> datetime | None:
        """After this instant nothing is known yet; None if nothing is."""
        return self.known[-1].until if self.known else None

    @property
    def outages(self) -> tuple[tuple[datetime, datetime | None], ...]:
        """The incidents as stretches without overlaps: known at the first instant, known again at the second."""
        merged: list[tuple[datetime, datetime | None]] = []
        for one in sorted(self.incidents, key=lambda incident: incident.since):
            since, until = merged[-1] if merged else (None, None)
            if since is not None and (until is None or one.since < until):
                merged[-1] = (since, None if until is None or one.until is None else max(until, one.until))
            else:
                merged.append((one.since, one.until))
        return tuple(merged)

    def outage_at(self, instant: datetime) -> tuple[datetime, datetime | None] | None:
        """The outage an instant falls into."""
        return next((o for o in self.outages if o[0] < instant and (o[1] is None or instant < o[1])), None)

    def settled_from(self, position: int) -> datetime | None:
        """From when on all that the view's first so many publishes say was in the store; None if it is not yet."""
        index = bisect_left(self._positions, position)
        return self.ends[index][0] if index < len(self.ends) else None

    def settled_at(self, instant: datetime) -> int:
        """The greatest position whose sync had ended."""
        index = bisect_right(self._instants, instant)
        return self.ends[index - 1][1] if index else 0

    def windows(self, oldest: datetime, newest: datetime) -> tuple[Window, ...]:
        """The instants of [oldest, newest] that have no plain answer, in order, without overlaps."""
        merged: list[Window] = []
        for window in self._windows(oldest, newest + INSTANT):
            last = merged[-1] if merged else None
            if last and last.until == window.since and (last.kind, last.candidates) == (window.kind, window.candidates):
                merged[-1] = Window(since=last.since, until=window.until, kind=last.kind, candidates=last.candidates)
            else:
                merged.append(window)
        return tuple(merged)

    def _windows(self, first: datetime, last: datetime) -> Iterator[Window]:
        edges = {first, last}
        for span in self.known:
            edges |= {first if span.since is None else span.since, span.until + INSTANT}
        edges |= {sync.began_at for sync in self.syncs} | {instant for instant, _ in self.ends}
        forgotten = _merged(self.forgotten)
        edges |= {edge for span in forgotten for edge in span}
        ordered = sorted(edge for edge in edges if first <= edge <= last)
        waiting = sorted(self.syncs, key=lambda sync: sync.began_at, reverse=True)
        begun: set[int] = set()
        known = lost = 0
        for since, until in pairwise(ordered):
            settled = self.settled_at(since)
            while waiting and waiting[-1].began_at <= since:
                begun.add(waiting.pop().to_position)
            begun = {position for position in begun if position > settled}
            while known < len(self.known) and self.known[known].until < since:
                known += 1
            here = self.known[known] if known < len(self.known) else None
            while lost < len(forgotten) and forgotten[lost][1] <= since:
                lost += 1
            is_forgotten = lost < len(forgotten) and forgotten[lost][0] <= since
            if is_forgotten or here is None or (here.since is not None and here.since > since):
                yield Window(since=since, until=until, kind=WindowKind.UNKNOWN)
            elif begun:
                yield Window(since=since, until=until, kind=WindowKind.IN_FLIGHT, candidates=tuple(sorted(begun)))

    @cached_property
    def _positions(self) -> list[int]:
        return [position for _, position in self.ends]

    @cached_property
    def _instants(self) -> list[datetime]:
        return [instant for instant, _ in self.ends]


def _merged(spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The same instants, as spans in order that do not overlap."""
    merged: list[tuple[datetime, datetime]] = []
    for since, until in sorted(spans):
        if merged and since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(until, merged[-1][1]))
        else:
            merged.append((since, until))
    return merged


def derive_history(observations: Iterable[Observation], syncs: Iterable[SyncSpan]) -> ServedHistory:
    """What the records of one view in one store say.

    Args:
        observations: in the order of their numbers.
        syncs: all that began.
    """
    syncs = tuple(syncs)
    ended = {sync.sync_id: sync for sync in syncs if sync.ended_seq is not None}
    void: set[str] = set()
    eras: list[_Era] = []
    for seen in observations:
        era = _stale(eras, seen)
        if era is not None:
            # a sync that ended in a store that was gone by then reached nothing in the one that is there now
            era.last_good = max(era.last_good, seen.good_until)
            void |= {seen.sync_id} if seen.sync_id and seen.seen.at_least else set()
            continue
        _record(eras, seen, syncs)
        era = eras[-1]
        if not era.is_known and seen.seen.position >= _reached(ended, void, seen.ledger_seq):
            era.is_known, era.known_since = True, seen.observed_at
    known = _known(eras)
    return ServedHistory(known=known, incidents=_incidents(eras), ends=_record_highs(ended.values(), void), syncs=syncs)


def _stale(eras: Sequence[_Era], seen: Observation) -> _Era | None:
    """The earlier era that a sighting belongs to, if it was asked for before the present one was first recorded."""
    if not eras or seen.incarnation == eras[-1].incarnation or seen.asked.sequence >= eras[-1].first_seq:
        return None
    return next((era for era in reversed(eras[:-1]) if era.incarnation == seen.incarnation), None)


def _record(eras: list[_Era], seen: Observation, syncs: Sequence[SyncSpan]) -> None:
    """Put a sighting into the present era, or begin the next one with it."""
    era = eras[-1] if eras else None
    untouched = not any(sync.began_seq < seen.ledger_seq and sync.sync_id != seen.sync_id for sync in syncs)
    if era is not None and era.is_virgin and untouched:
        era.incarnation = seen.incarnation  # nothing was ever written: whichever store it is, it holds nothing
    elif era is None or era.incarnation != seen.incarnation or era.lost_what_it_had(seen):
        virgin = era is None and untouched and not seen.seen.position
        eras.append(
            _Era(
                incarnation=seen.incarnation,
                first_seq=seen.ledger_seq,
                last_good=seen.good_until,
                is_virgin=virgin,
                is_known=virgin,
                loss=_loss(era.incarnation, seen) if era else None,
            )
        )
    eras[-1].add(seen)


def _loss(before: tuple[str | None, str], seen: Observation) -> Loss:
    nonce, run_id = before
    if nonce != seen.seen.nonce:
        return Loss.EMPTIED
    return Loss.BEHIND if run_id == seen.server_run_id else Loss.RESTARTED


def _reached(ended: dict[str, SyncSpan], void: set[str], through: int) -> int:
    """The greatest position whose end had been recorded."""
    return max(
        (
            sync.to_position
            for sync in ended.values()
            if sync.sync_id not in void and sync.ended_seq is not None and sync.ended_seq <= through
        ),
        default=0,
    )


def _record_highs(ended: Iterable[SyncSpan], void: set[str]) -> tuple[tuple[datetime, int], ...]:
    ends = sorted(
        (sync.ended_at, sync.to_position) for sync in ended if sync.ended_at is not None and sync.sync_id not in void
    )
    highs: list[tuple[datetime, int]] = []
    for instant, position in ends:
        if not highs or position > highs[-1][1]:
            highs.append((instant, position))
    return tuple(highs)


def _known(eras: Sequence[_Era]) -> tuple[Known, ...]:
    spans: list[Known] = []
    for era, following in zip_longest(eras, eras[1:]):
        until = era.last_good
        if following is not None and following.known_since is not None:
            until = min(until, following.known_since - INSTANT)
        if era.is_known and (era.known_since is None or era.known_since <= until):
            spans.append(Known(since=era.known_since, until=until))
    return tuple(spans)


def _incidents(eras: Sequence[_Era]) -> tuple[StoreIncident, ...]:
    """The times between eras; eras in which the store never became known belong to the incident around them."""
    incidents: list[StoreIncident] = []
    last_good: datetime | None = None
    loss: Loss | None = None
    for era in eras:
        if last_good is not None:
            loss = loss or era.loss or Loss.RESTARTED
            if era.is_known:
                since = era.known_since or last_good
                incidents.append(StoreIncident(since=last_good, until=since, loss=loss))
        if era.is_known:
            last_good, loss = era.last_good, None
    if loss is not None and last_good is not None:
        incidents.append(StoreIncident(since=last_good, until=None, loss=loss))
    return tuple(incidents)
