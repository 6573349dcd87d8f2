"""Knows which node of a Redis Cluster serves which slot; pure.

Invariant: a slot has one node at a time here: the one that was named last, by the cluster's own list or by a node's MOVED.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from service.keyspace import SLOTS

Address = tuple[str, int]
FIRST_KEY = {"EVAL": 3, "EVALSHA": 3, "EVAL_RO": 3, "EVALSHA_RO": 3, "MEMORY USAGE": 1, "XGROUP CREATE": 1}
KEYLESS = {"PING", "TIME"}  # asked of the node that holds what all share
ALL_KEYS = {"SCAN", "KEYS", "FLUSHDB", "FLUSHALL", "INFO", "DBSIZE", "SAVE", "SCRIPT FLUSH"}


class Unroutable(Exception):
    """A command that no single node can answer."""


def key_in(command: tuple[Any, ...]) -> Any:
    """Return the first key of a command, None for one that needs no key.  Raises: Unroutable."""
    name = str(command[0]).upper()
    if name in KEYLESS:
        return None
    at = FIRST_KEY.get(name, 1)
    if name in ALL_KEYS or len(command) <= at or (at == 3 and int(command[2]) == 0):
        raise Unroutable(f"{name} is not about one node of a cluster")
    return command[at]


class Topology:
    """The cluster as it was told last."""

    def __init__(self) -> None:
        self.version = 0  # grows with every change of a slot's node
        self.primaries: list[Address] = []
        self.others: list[Address] = []  # replicas: they know the cluster, too
        self._slots: list[Address | None] = [None] * SLOTS

    def node_of(self, slot: int) -> Address | None:
        """Return who serves a slot, None when nobody is known to."""
        return self._slots[slot]

    def take(self, shards: Any, asked: Address, secure: bool) -> None:
        """Take the answer to CLUSTER SHARDS in, from the node `asked`."""
        slots: list[Address | None] = [None] * SLOTS
        primaries, others = [], []
        for shard in map(_fields, shards):
            nodes = [_fields(node) for node in shard.get("nodes", ())]
            for node in nodes:
                if (address := _address(node, asked, secure)) is None or node.get("health") == b"fail":
                    continue
                if node.get("role") != b"master":
                    others.append(address)
                    continue
                primaries.append(address)
                for first, last in _ranges(shard.get("slots", ())):
                    slots[first : last + 1] = [address] * (last + 1 - first)
        self.primaries, self.others = primaries, others
        if slots != self._slots:
            self._slots = slots
            self.version += 1

    def moved(self, slot: int, address: Address) -> None:
        """Take in what a node said of a slot that is not its own any more."""
        if self._slots[slot] != address:
            self._slots[slot] = address
            self.version += 1

    @property
    def complete(self) -> bool:
        """Whether each slot has a node."""
        return None not in self._slots


def _fields(row: Any) -> dict[str, Any]:
    if isinstance(row, dict):  # RESP3
        return {bytes(name).decode(): value for name, value in row.items()}
    return {bytes(name).decode(): value for name, value in zip(row[::2], row[1::2], strict=True)}


def _ranges(flat: Any) -> Iterator[tuple[int, int]]:
    pairs = list(pairwise(flat))[::2]
    yield from ((int(first), int(last)) for first, last in pairs)


def _address(node: dict[str, Any], asked: Address, secure: bool) -> Address | None:
    """Return where a node is; one that does not know its own name is where it was asked."""
    port = node.get("tls-port" if secure else "port") or node.get("port")
    host = bytes(node.get("endpoint") or b"").decode()
    if host in ("", "?"):
        host = bytes(node.get("ip") or b"").decode() or asked[0]
    return (host, int(port)) if port else None
