"""Runs the pipeline's real processes on a RabbitMQ and a Redis Cluster of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis
from redis.exceptions import ClusterDownError, RedisClusterException

from service.keyspace import CLUSTERED
from tests.clusters.redis import Cluster
from tests.servers import RabbitMQ
from tests.stack import Stack

PARTITIONS = 8
AWAY = (redis.ConnectionError, redis.TimeoutError, ClusterDownError, RedisClusterException, OSError)


class ClusterStack(Stack):
    """As `Stack`; `redis` takes the keys as they are spelled in a cluster."""

    def __init__(self, folder: Path, rabbitmq: RabbitMQ, cluster: Cluster) -> None:
        self.folder, self.rabbitmq, self.cluster = folder, rabbitmq, cluster
        self.cache: Any = cluster
        self.processes, self.ports = {}, {}
        self.redis = self.connect()

    def connect(self) -> Any:
        nodes = [redis.cluster.ClusterNode("127.0.0.1", node.port) for node in self.cluster.nodes]  # type: ignore[no-untyped-call]
        return redis.RedisCluster(startup_nodes=nodes, socket_timeout=1, require_full_coverage=False)

    def pids(self) -> dict[str, int]:
        nodes = {f"redis{at}": node.pid for at, node in enumerate(self.cluster.primaries)}
        return {name: process.pid for name, process in self.processes.items()} | {"rabbitmq": self.rabbitmq.pid} | nodes

    def owners(self) -> dict[int, str]:
        keys = (f"{CLUSTERED.shared}lease:partition:{number}" for number in range(PARTITIONS))
        holders = {number: self.redis.hget(key, "holder") for number, key in enumerate(keys)}
        return {number: holder.decode() for number, holder in holders.items() if holder}

    def _bodies_of_counts(self) -> list[bytes]:
        return [body for home in CLUSTERED.homes(PARTITIONS) for body in self.redis.hvals(f"{home}part:counts")]
