"""Runs three RabbitMQ nodes on loopback as one cluster, of which a test may kill and restart single ones."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.servers import Process, RabbitMQ

NODES = 3
COOKIE = "tapeline-tests"  # loopback only, and as short-lived as the nodes


class Node(RabbitMQ):
    """One of them: its own name, ports, data and epmd port are those of any private node; it finds the others by one epmd."""

    def __init__(self, first: Node | None) -> None:
        super().__init__(settings="cluster_partition_handling = pause_minority\ncluster_keepalive_interval = 1000")
        self._first = first
        if first is not None:
            self._epmd_port = first._epmd_port

    def _env(self) -> dict[str, str]:
        cookie = f"-setcookie {COOKIE}"
        env = super()._env()
        env["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += f" {cookie} -kernel net_ticktime 8"
        return env | {"RABBITMQ_CTL_ERL_ARGS": cookie}

    def _spawn(self) -> Process:
        if self._first is not None:
            self._epmd = self._epmd or self._first._epmd  # one epmd tells all of them where the others are
        return super()._spawn()

    def join(self) -> None:
        """Become a node of the first one's cluster."""
        assert self._first is not None
        self.control("stop_app")
        self.control("join_cluster", self._first._node)
        self.control("start_app")

    def remove(self) -> None:
        if self._first is not None:
            self._epmd = None  # the first one's
        super().remove()


class RabbitCluster(RabbitMQ):
    """Three nodes; whoever wants one server gets the URL that names all of them. `pid` is the first node's."""

    def __init__(self) -> None:
        first = Node(None)
        self.nodes = [first, *(Node(first) for _ in range(NODES - 1))]

    @property
    def url(self) -> str:
        """The URL with every node in it."""
        return f"amqp://guest:guest@{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}/"

    @property
    def pid(self) -> int:
        return next(node.pid for node in self.nodes if node._process is not None)

    def start(self) -> None:
        """Start the nodes and join them."""
        for node in self.nodes:
            node.start()
        for node in self.nodes[1:]:
            node.join()

    def leaders(self) -> dict[str, Node]:
        """Return which node leads each quorum queue."""
        alive = next(node for node in self.nodes if node._process is not None)
        rows: list[dict[str, Any]] = json.loads(alive.control("list_queues", "name", "leader", "--formatter", "json", "--silent"))
        return {row["name"]: node for row in rows for node in self.nodes if node._node == row["leader"]}

    def remove(self) -> None:
        for node in reversed(self.nodes):
            node.remove()

    def _end(self, sig: int = signal.SIGTERM) -> None:
        for node in self.nodes:
            node._end(sig)
