"""Checks who is taken to serve which slot, and which key a command is sent by."""

from __future__ import annotations

from typing import Any

import pytest

from service.keyspace import slot_of
from service.topology import Topology, Unroutable, key_in

ASKED = ("h", 1)


def node(port: int, role: bytes = b"master", health: bytes = b"online", endpoint: bytes | None = b"10.0.0.1") -> list[Any]:
    return [b"id", b"x", b"port", port, b"tls-port", port + 1, b"endpoint", endpoint, b"role", role, b"health", health]


def shard(first: int, last: int, *nodes: list[Any]) -> list[Any]:
    return [b"slots", [first, last], b"nodes", list(nodes)]


def test_slots_belong_to_the_primaries_that_are_told() -> None:
    """Replicas serve none; a node that failed serves none; a node without a name is where it was asked."""
    topology = Topology()
    topology.take([shard(0, 99, node(7), node(8, b"replica")), shard(100, 16_383, node(9, endpoint=b"?"))], ASKED, False)
    assert topology.complete
    assert (topology.node_of(0), topology.node_of(99), topology.node_of(100)) == (("10.0.0.1", 7), ("10.0.0.1", 7), ("h", 9))
    assert (topology.primaries, topology.others) == ([("10.0.0.1", 7), ("h", 9)], [("10.0.0.1", 8)])
    before = topology.version
    topology.take([shard(0, 99, node(7, health=b"fail")), shard(100, 16_383, node(9))], ASKED, True)
    assert (topology.node_of(5), topology.node_of(100), topology.version) == (None, ("10.0.0.1", 10), before + 1)
    assert not topology.complete


def test_a_move_is_taken_in_once() -> None:
    """The number that says that something changed does not grow for what is known."""
    topology = Topology()
    topology.moved(7, ("a", 1))
    topology.moved(7, ("a", 1))
    assert (topology.node_of(7), topology.version) == (("a", 1), 1)


def test_a_command_goes_by_its_first_key() -> None:
    """Scripts name theirs behind their number; what needs none goes where what all share is; what asks all nodes is refused."""
    assert key_in(("GET", "a")) == "a"
    assert key_in(("EVALSHA", "sha", 2, "{t}k", "{t}l", "x")) == "{t}k"
    assert key_in(("TIME",)) is None
    assert slot_of("{t}k") == slot_of(b"{t}other")
    for refused in (("SCAN", 0), ("KEYS", "*"), ("EVAL", "return 1", 0), ("FLUSHALL",)):
        with pytest.raises(Unroutable):
            key_in(refused)
