"""Every state of the small models is looked at; each rule of the protocol, left out, is caught."""

from __future__ import annotations

import dataclasses

import push_model
import pytest
import sync_model
from sync_model import Bounds, Found, Rules, State, search
from thoroughness import examples

MOST = examples(100_000)
"""States of one search: more are an error, so that no search is silently cut."""
DEEP = MOST > 100_000
"""In a nightly run there are more syncs and replays, and up to 290,000 states."""
SYNCS = 3 if DEEP else 2
BOUNDS = {
    "two batches": Bounds(batches=((0, 1), (0, 0), (1, 2)), publishes=2, syncs=SYNCS),
    "three batches": Bounds(batches=((0, 2), (0, 1), (0, 0)), publishes=3, syncs=2),
    "while time passes": Bounds(batches=((0, 1), (0, 0), (1, 2)), publishes=2, syncs=2, ticks=3, copies=int(DEEP)),
    "emptied": Bounds(batches=((0, 1), (0, 0)), publishes=2, syncs=SYNCS, losses=("flush",)),
    "emptied twice, three syncs": Bounds(
        batches=((0, 1), (0, 0)), publishes=1, syncs=3, losses=("flush", "flush"), copies=0
    ),
    "failed over": Bounds(batches=((0, 1), (0, 0)), publishes=2, syncs=2, losses=("failover",)),
}
CAUGHT_BY = {"three batches": ("known_keeps", "expiry_grows"), "emptied": ("nonce",), "failed over": ("run",)}
REPLAYS = 2 if DEEP else 1
PUSHES = {
    "two pushes": {"events": (1, 2), "pushes": 2, "replays": 2, "losses": ()},
    "emptied": {"events": (1, 2), "pushes": 2, "replays": REPLAYS, "losses": ("flush",)},
    "failed over": {"events": (1, 2), "pushes": 2, "replays": REPLAYS, "losses": ("failover",)},
}


def look(bounds: Bounds, rules: Rules) -> Found:
    def wrong(state: State) -> str | None:
        return sync_model.wrong_now(state) or sync_model.wrong_at_rest(state, rules, hours=3)

    return search(State(), lambda state: sync_model.successors(state, bounds, rules), wrong, most=MOST)


@pytest.mark.parametrize("name", BOUNDS)
def test_no_state_is_wrong(name: str) -> None:
    found = look(BOUNDS[name], Rules())
    assert found.problem is None, "\n".join(map(str, (found.problem, *found.trace)))
    assert found.complete, f"more than {MOST} states"


@pytest.mark.parametrize("rule", [field.name for field in dataclasses.fields(Rules)])
def test_each_rule_is_needed(rule: str) -> None:
    name = next((name for name, rules in CAUGHT_BY.items() if rule in rules), "two batches")
    found = look(BOUNDS[name], dataclasses.replace(Rules(), **{rule: False}))
    assert found.problem is not None, f"nothing is wrong in {found.states} states without it"


def look_at_pushes(case: str, rules: push_model.PushRules) -> Found:
    return search(
        push_model.PushState(),
        lambda state: push_model.successors(state, rules, **PUSHES[case]),
        lambda state: push_model.wrong(state, rules),
        most=MOST,
    )


@pytest.mark.parametrize("case", PUSHES)
def test_no_state_of_pushes_is_wrong(case: str) -> None:
    found = look_at_pushes(case, push_model.PushRules())
    assert found.problem is None, "\n".join(map(str, (found.problem, *found.trace)))
    assert found.complete, f"more than {MOST} states"


@pytest.mark.parametrize("rule", [field.name for field in dataclasses.fields(push_model.PushRules)])
def test_each_rule_of_pushes_is_needed(rule: str) -> None:
    without = dataclasses.replace(push_model.PushRules(), **{rule: False})
    found = [look_at_pushes(case, without) for case in PUSHES]
    assert any(one.problem for one in found), f"nothing is wrong in {[one.states for one in found]} states without it"
