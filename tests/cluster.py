"""Runs a private Redis Cluster on loopback: primaries, each with a replica when asked, on free ports, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import redis

from tests.servers import Process, Redis, free_port

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_500
FORM_S_MAX = 60


class ClusterNode(Redis):
    """One server of a cluster."""

    def __init__(self, node_timeout_ms: int) -> None:
        super().__init__()
        self.bus_port = free_port()
        self._timeout_ms = node_timeout_ms

    def _spawn(self) -> Process:
        argv = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        argv += ["--dir", str(self.dir), "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        argv += ["--cluster-config-file", "nodes.conf", "--cluster-node-timeout", str(self._timeout_ms)]
        argv += ["--cluster-require-full-coverage", "no", "--cluster-announce-ip", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
        return Process(argv, dict(os.environ), self.dir, self.dir / "redis.log")

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)


class Cluster:
    """`primaries` servers that share the slots evenly, each with `replicas` of its own."""

    def __init__(self, primaries: int = 3, replicas: int = 0, node_timeout_ms: int = NODE_TIMEOUT_MS) -> None:
        self.primaries = [ClusterNode(node_timeout_ms) for _ in range(primaries)]
        self.replicas = [ClusterNode(node_timeout_ms) for _ in range(primaries * replicas)]

    @property
    def nodes(self) -> list[ClusterNode]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        return "redis-cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])

    def start(self) -> None:
        """Start all and make them one cluster."""
        for node in self.nodes:
            node.start()
        first, n = self.primaries[0], len(self.primaries)
        for at, node in enumerate(self.primaries):
            with node.client() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS * at // n, SLOTS * (at + 1) // n - 1)
        for node in self.nodes[1:]:
            with node.client() as client:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        _until(lambda: all(self._knows_all(node) for node in self.nodes), "know each other")
        for at, node in enumerate(self.replicas):
            with self.primaries[at % n].client() as client:
                name = client.execute_command("CLUSTER", "MYID")
            with node.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", name)
        _until(lambda: all(self._in_step(node) for node in self.nodes), "serve all slots")

    def remove(self) -> None:
        """Stop all and delete their data."""
        for node in self.nodes:
            node.remove()

    def empty(self) -> None:
        """Delete everything, also what scripts are known."""
        for node in self.primaries:
            with node.client() as client, contextlib.suppress(redis.ReadOnlyError):
                client.flushall()
                client.script_flush()

    def node_of(self, key: str) -> ClusterNode:
        """Return the server that has been given the slot of `key` at the start."""
        slot = redis.crc.key_slot(key.encode())
        return self.primaries[slot * len(self.primaries) // SLOTS]

    def _knows_all(self, node: ClusterNode) -> bool:
        with node.client() as client:
            return int(client.execute_command("CLUSTER INFO")["cluster_known_nodes"]) == len(self.nodes)

    def _in_step(self, node: ClusterNode) -> bool:
        with node.client() as client:
            told = client.execute_command("CLUSTER INFO")
            if told["cluster_slots_ok"] != str(SLOTS) or told["cluster_state"] != "ok":
                return False
            facts = client.info("replication")
            return node in self.primaries or facts.get("master_link_status") == "up"


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + FORM_S_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the nodes of the cluster do not {what}")
        time.sleep(0.05)
