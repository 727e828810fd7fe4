"""Hash slots, the map of them, and redirections, as the cluster specification has them."""

from __future__ import annotations

import pytest

from feature_platform.errors import CorruptValueError
from feature_platform.online.hot import SAMPLE_EVERY, HotKeys
from feature_platform.online.slots import SLOTS, Shard, key_slot, parse_redirection, parse_slots


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 0x31C3),
        (b"delays@1:{123456789}", 0x31C3),
        (b"{}123456789", key_slot(b"{}123456789")),
        (b"a{123456789}{b}", 0x31C3),
        (b"", 0),
    ],
)
def test_slots_of_keys(key, slot) -> None:
    assert key_slot(key) == slot
    assert 0 <= key_slot(key) < SLOTS


def test_the_map() -> None:
    reply = [
        [0, 8191, [b"10.0.0.1", 7000, b"a", []], [b"10.0.0.2", 7001, b"b", []]],
        [8192, 16382, [b"", 7002, b"c", []]],
    ]
    slots = parse_slots(reply, "10.0.0.9:7002")
    assert slots.shards[0] == slots.shards[8191] == Shard("10.0.0.1:7000", ("10.0.0.2:7001",))
    assert slots.shards[8192] == Shard("10.0.0.9:7002"), "a node that does not know its name is the one asked"
    assert slots.shards[16383] is None
    assert slots.nodes == ("10.0.0.1:7000", "10.0.0.9:7002", "10.0.0.2:7001")
    moved = slots.with_moved(16383, "10.0.0.1:7000")
    assert moved.shards[16383] == slots.shards[0], "with the replicas that are known"
    assert slots.shards[16383] is None


@pytest.mark.parametrize("reply", [None, [[0, 1]], [[0, 16384, [b"a", 1]]], [[0, 1, [b"a", b"x"]]], 7])
def test_what_is_no_map(reply) -> None:
    with pytest.raises(CorruptValueError, match="slots"):
        parse_slots(reply, "a:1")


def test_redirections() -> None:
    moved = parse_redirection("MOVED 3999 10.0.0.1:7001", "x:1")
    assert (moved.slot, moved.node, moved.once) == (3999, "10.0.0.1:7001", False)
    asked = parse_redirection("ASK 1 ::1:7001", "x:1")
    assert (asked.node, asked.once) == ("::1:7001", True)
    for message in ("ERR no", "MOVED", "MOVED x y:1", "MOVED 99999 a:1", "MOVED 1 a:b"):
        assert parse_redirection(message, "x:1") is None


def test_every_key_has_the_same_chance_to_be_sampled() -> None:
    """Requests of one size always, as a service makes them."""
    for size in (1, 2, 3, 100, 1000):
        hot = HotKeys()
        keys = [b"v@1:{%d}" % (i % 5) for i in range(size)]
        for _ in range(6000 // size):
            hot.observe(keys)
        found = hot.report("v@1")
        assert len(found) == min(size, 5), size
        assert sum(one.share for one in found) == pytest.approx(1)
        assert max(one.share for one in found) < 2.5 / min(size, 5), (size, SAMPLE_EVERY)
