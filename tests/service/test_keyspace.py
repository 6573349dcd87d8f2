"""Checks how keys are spelled: plain on one server, with tags that spread over the nodes in a cluster."""

from __future__ import annotations

from collections import Counter

import pytest
from redis.crc import key_slot

from service.keyspace import CLUSTERED, SINGLE, slot_of, space_of


def test_a_single_server_keeps_the_names_it_has() -> None:
    """Nothing stands before a key, and all partitions are at home in one place."""
    assert (SINGLE.shared, SINGLE.of(5), SINGLE.homes(8)) == ("", "", [""])
    assert space_of(object()) is SINGLE


@pytest.mark.parametrize("key", ["a", "{a}b", "x{a}b", "{}b", "{a", "a}b{c}", "{{a}}", "", "ü{p0w}"])
def test_a_slot_is_the_one_that_redis_says(key: str) -> None:
    """Also where braces are empty, open or doubled."""
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


@pytest.mark.parametrize(("partitions", "nodes", "most"), [(8, 2, 4), (8, 3, 3), (32, 3, 11), (64, 4, 17), (64, 6, 13)])
def test_partitions_are_spread_over_the_nodes(partitions: int, nodes: int, most: int) -> None:
    """No node has many more than its share; no two partitions have one tag."""
    homes = CLUSTERED.homes(partitions)
    assert len(set(homes)) == partitions
    assert max(Counter(key_slot(home.encode()) * nodes // 16_384 for home in homes).values()) == most
    assert CLUSTERED.shared not in homes
