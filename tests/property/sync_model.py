"""The sync protocol as a model with explicit states, small enough to look at every one of them.

One key of one view. A transition is one instant: a command that the server executes, a publish, a crash, a tick of the
clock, a loss. Between any two, anything else may happen and a client may read. What is modelled is what
`sync.writing`, `functions.lua` and `sync.push` do, not how: real commands run in test_sync_protocol.py and
test_push.py.

Rows are written in the three ways of `sync.writing`. A worker that crashes may leave behind what it had sent: those
commands arrive later, in their order, when the server gets to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

TTL = 2
NEVER = 0
"""Expiry of a key that is not there."""


class Row(NamedTuple):
    """What a plan asserts, and what a key holds."""

    position: int
    event: int
    """0: a tombstone."""
    batch: int
    until: int
    """The key's expiry."""


class Store(NamedTuple):
    """One server: its key, and where it says it is."""

    row: Row | None = None
    nonce: int = 0
    """0: it has no position yet."""
    position: int = 0
    run: int = 1


class Worker(NamedTuple):
    """A sync under way."""

    start: int
    head: int
    nonce: int
    run: int
    row: Row | None
    way: str
    step: str = "first"
    held: Row | None = None
    extended: bool = False


class State(NamedTuple):
    """Everything there is."""

    batches: tuple[tuple[int, int], ...] = ()
    """In the order of their publishes: partition, and event time of the entity's row (0: it has none)."""
    store: Store = Store()
    workers: tuple[Worker, ...] = ()
    late: tuple[tuple[Any, ...], ...] = ()
    """What a crashed worker had sent: commands, in order."""
    now: int = 0
    image: Store | None = None
    """What a replica has, if it was left behind."""
    begun: int = 0
    losses: int = 0
    nonces: int = 0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much may happen."""

    batches: tuple[tuple[int, int], ...]
    """Each publish is one of these."""
    publishes: int
    syncs: int
    ways: tuple[str, ...] = ("new", "known", "function")
    losses: tuple[str, ...] = ()
    ticks: int = 0
    copies: int = 1


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The protocol; every default is right, and every other value wrong."""

    new_checks: bool = True
    """A new key is written by SET NX, not SET."""
    known_compares: bool = True
    """An older value is replaced by SET IFEQ, not SET."""
    known_looks: bool = True
    """A later position is left alone."""
    known_extends: bool = True
    """The key's life is extended before its value changes."""
    known_keeps: bool = True
    """The value's new expiry is what the key has, not what the plan asks for."""
    refused_ask: bool = True
    """A row that another way refused goes through the function."""
    tombstones: bool = True
    """"None" is a value."""
    by_position: bool = True
    """The function compares positions, not event times."""
    expiry_grows: bool = True
    """The function never moves an expiry back."""
    superseded: bool = True
    """Superseded batches count for what a plan touches, and for how long its rows are kept."""
    asserts_all: bool = True
    """A plan asserts what it touches, also where the two states are the same."""
    nonce: bool = True
    """A store that was emptied does not advance."""
    run: bool = True
    """Another server process does not advance."""


def state_of(batches: tuple[tuple[int, int], ...], position: int) -> tuple[int, int]:
    """`state(k)`: event time and batch of the entity's row; (0, 0) if it has none."""
    active = {partition: (event, number) for number, (partition, event) in enumerate(batches[:position], 1)}
    return max(((event, number) for event, number in active.values() if event), default=(0, 0))


def plan(batches: tuple[tuple[int, int], ...], start: int, head: int, rules: Rules) -> Row | None:
    """What a sync from one position to another writes."""
    touched = list(batches[start:head])
    if rules.superseded:
        before = {partition: number for number, (partition, _) in enumerate(batches[:start])}
        after = {partition: number for number, (partition, _) in enumerate(batches[:head])}
        touched += [batches[number] for number in before.values() if number not in after.values()]
    events = [event for _, event in touched if event]
    if not events:
        return None
    event, batch = state_of(batches, head)
    if not rules.asserts_all and state_of(batches, start) == (event, batch):
        return None
    return Row(position=head, event=event, batch=batch, until=max(*events, event) + TTL)


# -- the server ---------------------------------------------------------------------------------------------------


def execute(store: Store, command: tuple[Any, ...], now: int, rules: Rules) -> tuple[Store, Any]:
    """One command, at one instant: the store after it, and its reply."""
    kind, *rest = command
    return _SERVER[kind](store, *rest, now=now, rules=rules)


def _get(store: Store, _: Row, *, now: int, rules: Rules) -> tuple[Store, Any]:
    return store, store.row


def _new(store: Store, row: Row, *, now: int, rules: Rules) -> tuple[Store, Any]:
    if store.row is not None and rules.new_checks:
        return store, False
    return _put(store, row, row.until, now), True


def _extend(store: Store, row: Row, *, now: int, rules: Rules) -> tuple[Store, Any]:
    held = store.row
    if held is None or row.until <= held.until:
        return store, False
    return store._replace(row=held._replace(until=row.until)), True


def _exchange(store: Store, row: Row, expected: Row, *, now: int, rules: Rules) -> tuple[Store, Any]:
    held = store.row
    if rules.known_compares and (held is None or held[:3] != expected[:3]):
        return store, False
    kept = held.until if held is not None and rules.known_keeps else row.until
    return _put(store, row, kept, now), True


def _call(store: Store, row: Row, *, now: int, rules: Rules) -> tuple[Store, Any]:
    held = store.row
    if held is not None and _refuses(held, row, rules):
        return store, False
    until = max(row.until, held.until) if held is not None and rules.expiry_grows else row.until
    if not row.event and not rules.tombstones:
        return store._replace(row=None), True
    return _put(store, row, until, now), True


_SERVER = {"get": _get, "new": _new, "extend": _extend, "replace": _exchange, "call": _call}


def _refuses(held: Row, row: Row, rules: Rules) -> bool:
    return held.position > row.position if rules.by_position else held.event > row.event


def _put(store: Store, row: Row, until: int, now: int) -> Store:
    return store._replace(row=row._replace(until=until) if until > now else None)


# -- workers ------------------------------------------------------------------------------------------------------


def next_command(worker: Worker) -> tuple[Any, ...] | None:
    """What it sends next; None: nothing, it asks to advance."""
    row, step = worker.row, worker.step
    if row is None or step == "done":
        return None
    if step == "first":
        first = {"new": "new", "known": "get", "function": "call"}[worker.way]
        return (first, row)
    if step == "replace":
        return ("replace", row, worker.held)
    return (step, row)


def after_reply(worker: Worker, reply: Any, rules: Rules) -> Worker:
    """The worker, knowing the reply."""
    row, kind = worker.row, (next_command(worker) or ("",))[0]
    assert row is not None
    if kind == "get":
        return _after_looking(worker, row, reply, rules)
    if kind == "extend":
        return worker._replace(step="replace", extended=reply)
    written = kind == "call" or (reply and (kind == "new" or worker.extended))
    step = "done" if written or not rules.refused_ask else "call"
    return worker._replace(step=step, held=None, extended=False)


def _after_looking(worker: Worker, row: Row, held: Row | None, rules: Rules) -> Worker:
    if held is None:
        return worker._replace(step="new")
    if rules.known_looks and held.position > row.position:
        return worker._replace(step="done")
    if rules.known_extends:
        return worker._replace(step="extend", held=held)
    return worker._replace(step="replace", held=held, extended=True)


def left_behind(worker: Worker) -> tuple[tuple[Any, ...], ...]:
    """What may still arrive of a worker that crashes: what one write to its socket held."""
    command = next_command(worker)
    if command is None:
        return ()
    if command[0] == "extend":
        return (command, ("replace", worker.row, worker.held))
    return (command,)


def begin(state: State, way: str, rules: Rules, *, rebuild: bool = False) -> State:
    """A worker asks the store where it is, and plans."""
    store, nonces = state.store, state.nonces
    if not store.nonce:
        nonces += 1
        store = store._replace(nonce=nonces, position=0)
    head = len(state.batches)
    start = 0 if rebuild else store.position
    row = plan(state.batches, start, head, rules)
    direct = row is not None and row.event and row.until > state.now
    worker = Worker(start, head, store.nonce, store.run, row, way if direct else "function")
    return state._replace(store=store, nonces=nonces, workers=(*state.workers, worker), begun=state.begun + 1)


def step(state: State, number: int, rules: Rules) -> State:
    """A worker's next command is executed, or its end recorded."""
    worker = state.workers[number]
    others = (*state.workers[:number], *state.workers[number + 1 :])
    command = next_command(worker)
    if command is None:
        store = state.store
        known = store.nonce == worker.nonce or not rules.nonce
        same = store.run == worker.run or not rules.run
        if known and same and worker.head > store.position:
            store = store._replace(position=worker.head, nonce=store.nonce or worker.nonce)
        return state._replace(store=store, workers=others)
    store, reply = execute(state.store, command, state.now, rules)
    after = after_reply(worker, reply, rules)
    return state._replace(store=store, workers=(*state.workers[:number], after, *state.workers[number + 1 :]))


def successors(state: State, bounds: Bounds, rules: Rules) -> Iterator[State]:
    """Everything that may happen next; which of two workers came first is forgotten."""
    for following in _following(state, bounds, rules):
        if len(following.workers) > 1 or len(following.late) > 1:
            yield following._replace(
                workers=tuple(sorted(following.workers, key=hash)), late=tuple(sorted(following.late, key=hash))
            )
        else:
            yield following


def _following(state: State, bounds: Bounds, rules: Rules) -> Iterator[State]:
    if len(state.batches) < bounds.publishes:
        for batch in bounds.batches:
            yield state._replace(batches=(*state.batches, batch))
    if state.begun < bounds.syncs and state.batches:
        for way in bounds.ways:
            yield begin(state, way, rules)
    for number, worker in enumerate(state.workers):
        yield step(state, number, rules)
        others = (*state.workers[:number], *state.workers[number + 1 :])
        sent = left_behind(worker)
        if sent and len(state.late) < bounds.copies:
            yield state._replace(workers=others, late=(*state.late, sent))
    for number, (command, *rest) in enumerate(state.late):
        store, _ = execute(state.store, command, state.now, rules)
        late = (*state.late[:number], *([tuple(rest)] if rest else []), *state.late[number + 1 :])
        yield state._replace(store=store, late=late)
    if state.now < bounds.ticks:
        yield tick(state)
    if len(bounds.losses) > state.losses:
        kind = bounds.losses[state.losses]
        if kind == "flush":
            yield state._replace(store=Store(run=state.store.run), losses=state.losses + 1)
        elif state.image is None:
            yield state._replace(image=state.store)
        else:
            lost = state.image._replace(run=state.store.run + 1)
            yield state._replace(store=lost, image=None, losses=state.losses + 1)


def tick(state: State) -> State:
    """An hour passes; what has expired goes, on the replica too."""
    now = state.now + 1

    def at(store: Store) -> Store:
        return store._replace(row=None) if store.row is not None and store.row.until <= now else store

    return state._replace(now=now, store=at(state.store), image=None if state.image is None else at(state.image))


# -- what must hold -----------------------------------------------------------------------------------------------


def visible(event: int, batch: int, now: int) -> tuple[int, int]:
    """What a client is answered: a row that is alive, or (0, 0)."""
    return (event, batch) if event and event + TTL > now else (0, 0)


def answered(state: State) -> tuple[int, int]:
    """What a client reads now."""
    row = state.store.row
    return (0, 0) if row is None else visible(row.event, row.batch, state.now)


def wrong_now(state: State) -> str | None:
    """What is wrong in a state, if something is."""
    row = state.store.row
    if row is not None and (row.event, row.batch) != state_of(state.batches, row.position):
        return "a value is not what its position says"
    head = len(state.batches)
    if state.store.nonce:
        truths = {visible(*state_of(state.batches, k), state.now) for k in range(state.store.position, head + 1)}
        if answered(state) not in truths:
            return "the store claims more than it holds"
    return None


def wrong_at_rest(state: State, rules: Rules, *, hours: int) -> str | None:
    """What is wrong after one sync that nothing disturbs, and when all that is under way has arrived after it."""
    # what a sync finds: most states have it in common with others, and are then looked up
    found = State(batches=state.batches, store=state.store, now=state.now, nonces=state.nonces)
    for way in ("new", "known", "function"):
        for waited, rested in enumerate(_at_rest(found, way, rules, hours)):
            if problem := _disturbed(rested, state, rules):
                return f"{problem}, {waited} hours after a sync by the way {way!r}"
    return None


@cache
def _at_rest(state: State, way: str, rules: Rules, hours: int) -> tuple[State, ...]:
    rested = begin(state, way, rules)
    while rested.workers:
        rested = step(rested, 0, rules)
    waited = [rested]
    for _ in range(hours):
        waited.append(tick(waited[-1]))
    return tuple(waited)


def _disturbed(rested: State, state: State, rules: Rules) -> str | None:
    if not _is_in_parity(rested):
        return "no parity"
    if not all(_is_in_parity_after(rested, worker, rules) for worker in state.workers):
        return "an old sync that goes on changes what is read"
    if not all(_is_in_parity_after_late(rested, sent, rules) for sent in state.late):
        return "commands that arrive late change what is read"
    return None


def _is_in_parity(state: State) -> bool:
    return answered(state) == visible(*state_of(state.batches, len(state.batches)), state.now)


@cache
def _is_in_parity_after(rested: State, worker: Worker, rules: Rules) -> bool:
    arriving = rested._replace(workers=(worker,))
    while arriving.workers:
        arriving = step(arriving, 0, rules)
    return _is_in_parity(arriving)


@cache
def _is_in_parity_after_late(rested: State, sent: tuple[Any, ...], rules: Rules) -> bool:
    store = rested.store
    for command in sent:
        store, _ = execute(store, command, rested.now, rules)
    return _is_in_parity(rested._replace(store=store))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to."""

    states: int
    complete: bool
    problem: str | None = None
    trace: tuple[Any, ...] = ()


def search(
    first: Any,
    successors: Callable[[Any], Iterator[Any]],
    wrong: Callable[[Any], str | None],
    *,
    most: int,
) -> Found:
    """Breadth first through all states, until one is wrong or `most` were seen.

    Args:
        first: the state to begin with; states are hashable.
        successors: what may follow.
        wrong: what is wrong in a state, if something is.
        most: so many states at the most.
    """
    parents: dict[Any, Any] = {first: None}
    waiting = deque([first])
    number = 0
    while waiting:
        state = waiting.popleft()
        number += 1
        if (problem := wrong(state)) is not None:
            trace = [state]
            while (state := parents[state]) is not None:
                trace.append(state)
            return Found(states=number, complete=False, problem=problem, trace=tuple(reversed(trace)))
        if len(parents) >= most:
            continue
        for following in successors(state):
            if following not in parents:
                parents[following] = state
                waiting.append(following)
    return Found(states=number, complete=len(parents) < most)
