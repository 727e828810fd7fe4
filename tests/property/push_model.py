"""Pushes as a model with explicit states (see `sync_model`): one key of one view's pushed rows, and its ledger.

A pusher logs, writes, asks whether the store is still the one it met, and records the acknowledgement; a replay does
the same with whatever this incarnation of the store has not acknowledged. Each is an instant of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, NamedTuple


class Pushed(NamedTuple):
    """What a push brings, and what the key holds."""

    event: int
    number: int


class PushStore(NamedTuple):
    """One server."""

    row: Pushed | None = None
    nonce: int = 0
    run: int = 1


class Writer(NamedTuple):
    """A pusher or a replay."""

    nonce: int
    run: int
    todo: tuple[Pushed, ...]
    """Not written yet."""
    done: tuple[int, ...] = ()
    still_holds: bool | None = None


class PushState(NamedTuple):
    """Everything there is."""

    logged: tuple[Pushed, ...] = ()
    acknowledged: frozenset[tuple[int, int, int]] = frozenset()
    """Number, and the store's nonce and run."""
    store: PushStore = PushStore()
    writers: tuple[Writer, ...] = ()
    late: tuple[Pushed, ...] = ()
    image: PushStore | None = None
    losses: int = 0
    nonces: int = 0
    replays: int = 0


@dataclass(frozen=True, kw_only=True)
class PushRules:
    """The protocol; every default is right, and every other value wrong."""

    numbers: bool = True
    """Of equal event times the greater number counts."""
    compares: bool = True
    """A row replaces another only if it is not smaller."""
    asks_again: bool = True
    """An acknowledgement is recorded only if the store is still the one that was met."""
    nonce: bool = True
    """Acknowledgements of an emptied store do not count."""
    run: bool = True
    """Acknowledgements of another server process do not count."""
    logs_first: bool = True
    """A push is logged before it is written."""


def write(store: PushStore, row: Pushed, rules: PushRules) -> PushStore:
    """The server's function."""
    held = store.row
    if held is not None and rules.compares:
        later = held > row if rules.numbers else held.event >= row.event
        if later:
            return store
    return store._replace(row=row)


def begin(state: PushState, todo: tuple[Pushed, ...]) -> PushState:
    """A writer asks which store this is."""
    store, nonces = state.store, state.nonces
    if not store.nonce:
        nonces += 1
        store = store._replace(nonce=nonces)
    return state._replace(store=store, nonces=nonces, writers=(*state.writers, Writer(store.nonce, store.run, todo)))


def missing(state: PushState, rules: PushRules) -> tuple[Pushed, ...]:
    """What a replay writes."""
    store = state.store

    def counts(number: int, nonce: int, run: int, push: Pushed) -> bool:
        of_this = (nonce == store.nonce or not rules.nonce) and (run == store.run or not rules.run)
        return number == push.number and of_this

    return tuple(push for push in state.logged if not any(counts(*ack, push) for ack in state.acknowledged))


def begin_replay(state: PushState, rules: PushRules) -> PushState:
    """A replay asks which store this is, then what is missing there."""
    begun = begin(state, ())
    writer = begun.writers[-1]
    return begun._replace(writers=(*begun.writers[:-1], writer._replace(todo=missing(begun, rules))))


def step(state: PushState, at: int, rules: PushRules) -> PushState:
    """A writer's next instant."""
    writer = state.writers[at]
    others = (*state.writers[:at], *state.writers[at + 1 :])

    def now(changed: Writer) -> tuple[Writer, ...]:
        return (*state.writers[:at], changed, *state.writers[at + 1 :])

    if writer.todo:
        row, *rest = writer.todo
        changed = writer._replace(todo=tuple(rest), done=(*writer.done, row.number))
        logged = state.logged if row in state.logged else (*state.logged, row)
        return state._replace(store=write(state.store, row, rules), writers=now(changed), logged=logged)
    if writer.still_holds is None and rules.asks_again:
        holds = (writer.nonce, writer.run) == (state.store.nonce, state.store.run)
        return state._replace(writers=now(writer._replace(still_holds=holds)))
    if rules.asks_again and not writer.still_holds:
        return state._replace(writers=others)
    # without asking again, whoever answers is thought to be the one that was met
    store = state.store
    nonce, run = (writer.nonce, writer.run) if rules.asks_again else (store.nonce, store.run)
    acks = state.acknowledged | {(number, nonce, run) for number in writer.done}
    return state._replace(writers=others, acknowledged=acks)


def successors(
    state: PushState, rules: PushRules, *, events: tuple[int, ...], pushes: int, replays: int, losses: tuple[str, ...]
) -> Iterator[PushState]:
    """Everything that may happen next; which of two writers came first is forgotten."""
    begun = _beginnings(state, rules, events, pushes, replays)
    for following in chain(begun, _steps(state, rules), _losses(state, losses)):
        if len(following.writers) > 1:
            yield following._replace(writers=tuple(sorted(following.writers, key=hash)))
        else:
            yield following


def _beginnings(
    state: PushState, rules: PushRules, events: tuple[int, ...], pushes: int, replays: int
) -> Iterator[PushState]:
    if len(state.logged) < pushes:
        for event in events:
            push = Pushed(event, len(state.logged) + 1)
            if rules.logs_first:
                yield begin(state._replace(logged=(*state.logged, push)), (push,))
            elif not any(writer.todo for writer in state.writers):
                yield begin(state, (push,))
    if state.replays < replays:
        yield begin_replay(state._replace(replays=state.replays + 1), rules)


def _steps(state: PushState, rules: PushRules) -> Iterator[PushState]:
    for at, writer in enumerate(state.writers):
        yield step(state, at, rules)
        others = (*state.writers[:at], *state.writers[at + 1 :])
        yield state._replace(writers=others)
        if writer.todo and not state.late:
            yield state._replace(writers=others, late=(writer.todo[0],))
    for at, row in enumerate(state.late):
        late = (*state.late[:at], *state.late[at + 1 :])
        yield state._replace(store=write(state.store, row, rules), late=late)


def _losses(state: PushState, losses: tuple[str, ...]) -> Iterator[PushState]:
    if state.losses == len(losses):
        return
    if losses[state.losses] == "flush":
        yield state._replace(store=PushStore(run=state.store.run), losses=state.losses + 1)
    elif state.image is None:
        yield state._replace(image=state.store)
    else:
        lost = state.image._replace(run=state.store.run + 1)
        yield state._replace(store=lost, image=None, losses=state.losses + 1)


def wrong(state: PushState, rules: PushRules) -> str | None:
    """What is wrong in a state, or after one replay that nothing disturbs, if something is."""
    store = state.store
    by_number: dict[int, Any] = {push.number: push for push in state.logged}
    for number, nonce, run in state.acknowledged:
        has = store.row is not None and store.row >= by_number[number]
        if (nonce, run) == (store.nonce, store.run) and not has:
            return "the ledger says that the store has a push, and it has not"
    if store.row is not None and store.row not in state.logged:
        return "the store has what nobody logged"
    # what a replay finds: most states have it in common with others, and are then looked up
    found = PushState(logged=state.logged, acknowledged=state.acknowledged, store=store, nonces=state.nonces)
    rested = _at_rest(found, rules)
    best = max(state.logged, default=None)
    if rested.row != best:
        return "no parity after a replay"
    if not all(_is_best_after(rested, state.logged, writer, rules) for writer in state.writers):
        return "an old writer that goes on changes what is read"
    if any(write(rested, row, rules).row != best for row in state.late):
        return "a row that arrives late changes what is read"
    return None


@cache
def _at_rest(state: PushState, rules: PushRules) -> PushStore:
    rested = begin_replay(state, rules)
    while rested.writers:
        rested = step(rested, 0, rules)
    return rested.store


@cache
def _is_best_after(rested: PushStore, logged: tuple[Pushed, ...], writer: Writer, rules: PushRules) -> bool:
    arriving = PushState(logged=logged, store=rested, writers=(writer,))
    while arriving.writers:
        arriving = step(arriving, 0, rules)
    return arriving.store.row == max(arriving.logged, default=None)
