"""Runs three RabbitMQ nodes on loopback as one cluster, of which a test may kill and restart single ones."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.servers import Process, RabbitMQ

NODES = 3
COOKIE = "tapeline-tests"  # loopback only, and as short-lived as the nodes


class Node(RabbitMQ):
    """One of them, with a name, ports and data of its own; one epmd tells each where the others are."""

    def __init__(self, first: Node | None) -> None:
        self._first = first
        super().__init__(settings="cluster_partition_handling = pause_minority")
        if first is not None:
            self._epmd_port = first._epmd_port

    def _write_config(self, plugins: tuple[str, ...], settings: str) -> None:
        if self._first is not None:  # at its first start it joins the node that is there
            settings += "\ncluster_formation.peer_discovery_backend = classic_config"
            for number, node in enumerate((self._first, self), 1):
                settings += f"\ncluster_formation.classic_config.nodes.{number} = {node._node}"
        super()._write_config(plugins, settings)

    def _env(self) -> dict[str, str]:
        cookie = f"-setcookie {COOKIE}"
        env = super()._env()
        env["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += f" {cookie} -kernel net_ticktime 8"
        return env | {"RABBITMQ_CTL_ERL_ARGS": cookie}

    def _spawn(self) -> Process:
        if self._first is not None:
            self._epmd = self._first._epmd
        return super()._spawn()

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
    def alive(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes if node._process is not None]

    @property
    def pid(self) -> int:
        return self.alive[0].pid

    def start(self) -> None:
        """Start those that do not run: the first one alone, which the others then join side by side."""
        first, *others = [node for node in self.nodes if node._process is None]
        if first is self.nodes[0] and not (first.dir / "data").exists():
            first.start()
        else:
            others.insert(0, first)
        with ThreadPoolExecutor(NODES) as threads:
            list(threads.map(Node.start, others))

    def leaders(self) -> dict[str, Node]:
        """Return which node leads each quorum queue."""
        said = self.alive[0].control("list_queues", "name", "leader", "--formatter", "json", "--silent")
        rows: list[dict[str, Any]] = json.loads(said)
        return {row["name"]: node for row in rows for node in self.nodes if node._node == row["leader"]}

    def remove(self) -> None:
        for node in reversed(self.nodes):
            node.remove()

    def _end(self, sig: int = signal.SIGTERM) -> None:
        for node in self.nodes:
            node._end(sig)
