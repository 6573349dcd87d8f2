"""Runs a private Redis Cluster on loopback: primaries, each with a replica when asked, on free ports, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

from mdc.connect import open_cache
from mdc.keys import OUT
from service.cluster import ClusterClient, ClusterPipeline
from service.sharded import ShardedPubSub
from tests.servers import Process, Redis, free_port

SLOTS = 16_384
NODE_TIMEOUT_MS = 5_000  # a busy test machine must not take a slow node for a dead one
FAST_MS = 1_000  # where one is killed
FORM_S_MAX = 60
PORTS_TRIED = 5


@dataclass(frozen=True)
class Door:
    """Who may enter: one user with a password (the default user may not), over TLS with a certificate and its key."""

    user: str = ""
    password: str = ""
    certificate: tuple[Path, Path] | None = None

    @property
    def arguments(self) -> list[str]:
        """Return the server's arguments."""
        given = []
        if self.user:
            given += ["--user", self.user, "on", f">{self.password}", "~*", "&*", "+@all", "--user", "default", "off"]
        if self.certificate:
            cert, key = map(str, self.certificate)
            given += ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no"]
            given += ["--tls-cluster", "yes"]
        return given

    @property
    def options(self) -> dict[str, Any]:
        """Return what redis-py's client needs to enter."""
        secure = {"ssl": True, "ssl_ca_certs": str(self.certificate[0])} if self.certificate else {}
        return ({"username": self.user, "password": self.password} if self.user else {}) | secure


class ClusterNode(Redis):
    """One server of a cluster."""

    def __init__(self, node_timeout_ms: int, door: Door) -> None:
        super().__init__()
        self.bus_port = free_port()
        self._timeout_ms = node_timeout_ms
        self._door = door

    def _spawn(self) -> Process:
        ports = ["--port", "0", "--tls-port", str(self.port)] if self._door.certificate else ["--port", str(self.port)]
        argv = [self._program, *ports, *self._door.arguments, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        argv += ["--dir", str(self.dir), "--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        argv += ["--cluster-config-file", "nodes.conf", "--cluster-node-timeout", str(self._timeout_ms)]
        argv += ["--cluster-require-full-coverage", "no", "--cluster-announce-ip", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
        return Process(argv, dict(os.environ), self.dir, self.dir / "redis.log")

    def start_somewhere(self) -> None:
        """Start it on ports that are free: between looking for one and taking it another program may have taken it."""
        for left in reversed(range(PORTS_TRIED)):
            try:
                self.start()
                return
            except RuntimeError as error:
                if "Address already in use" not in str(error) or not left:
                    raise
                self.kill()
                self.port, self.bus_port = free_port(), free_port()

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5, **self._door.options)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


class Cluster:
    """`primaries` servers that share the slots evenly, each with `replicas` of its own."""

    def __init__(
        self, primaries: int = 3, replicas: int = 0, node_timeout_ms: int = NODE_TIMEOUT_MS, door: Door | None = None
    ) -> None:
        self.door = door or Door()
        self.primaries = [ClusterNode(node_timeout_ms, self.door) for _ in range(primaries)]
        self.replicas = [ClusterNode(node_timeout_ms, self.door) for _ in range(primaries * replicas)]

    @property
    def nodes(self) -> list[ClusterNode]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        door = self.door
        enter = f"{quote(door.user, safe='')}:{quote(door.password, safe='')}@" if door.user else ""
        nodes = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        return (
            f"rediss-cluster://{enter}{nodes}?ssl_ca_certs={door.certificate[0]}"
            if door.certificate
            else (f"redis-cluster://{enter}{nodes}")
        )

    def start(self) -> None:
        """Start all and make them one cluster."""
        for node in self.nodes:
            node.start_somewhere()
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

    def revive(self) -> None:
        """Start what a test has killed, and wait until all slots are served again."""
        for node in self.nodes:
            if not node.running:
                node.start()
        _until(lambda: all(self._in_step(node) for node in self.nodes), "serve all slots")

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


# What belongs to no partition: the rest of the keys in a test are of the partition in its hand, unless they name another.
SHARED = re.compile(
    r"mdp:|lease:|components$|scp:|watched:|mdc:(partitions|watched_news|reader)|(ch|seq):(board|alerts|status|news:latest)"
    r"|idx:board|up:shared"
)
NAMED = re.compile(r"(?:fence:partition|cp|up:[a-z]+|facts:[^:]+):(\d+)$")
EVERY_KEY = {"EXISTS", "DEL", "UNLINK", "MGET", "PUBSUB NUMSUB"}


class PlainNames(ClusterClient):
    """A cluster's client that takes the names that keys have on a single server: the contract's tests are the same for both.

    Names that already have a hash tag, and scripts, are passed on as they are. `partition` is whose keys are meant.
    """

    partition = 0
    leases = False  # whether a fence is the one beside its lease, which belongs to all, or the one beside its partition's keys

    @classmethod
    def open(cls, url: str) -> PlainNames:
        real = open_cache(url)
        return cls(url, real._make)

    def spelled(self, name: Any) -> Any:
        """Return the key as it is in the cluster."""
        text = name.decode() if isinstance(name, bytes) else str(name)
        if text.startswith("{"):
            return text
        if SHARED.match(text) or (self.leases and text.startswith("fence:")):
            return self.space.shared + text
        named = NAMED.match(text)
        return self.space.of(int(named[1]) if named else self.partition) + text

    def translated(self, command: tuple[Any, ...]) -> tuple[Any, ...]:
        name, *rest = command
        if name == "SCRIPT LOAD" or not rest:
            return command
        if name in ("EVAL", "EVALSHA"):
            count = int(rest[1])
            return (name, *rest[:2], *(self.spelled(key) for key in rest[2 : 2 + count]), *rest[2 + count :])
        if name == "PUBLISH":
            name = "SPUBLISH"
        count = len(rest) if name in EVERY_KEY else 1
        spelled = [self.spelled(one) for one in rest[:count]]
        return ("PUBSUB SHARDNUMSUB" if name == "PUBSUB NUMSUB" else name, *spelled, *rest[count:])

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        if command[0] == "KEYS":
            return await self._keys()
        if command[0] in ("FLUSHDB", "SCRIPT FLUSH"):
            return [await self.node(one).execute_command(*command) for one in self.topology.primaries]
        if command[0] == "HSET" and str(command[1]).startswith("part:"):
            return [await self._share(command[1], *command[at : at + 2]) for at in range(2, len(command), 2)]
        return await super().execute_command(*self.translated(command), **options)

    async def _share(self, key: str, field: Any, value: Any) -> Any:
        """Write a partition's share: one hash of all partitions on a single server, one of each in a cluster."""
        number = str(field).split(" ")[0]
        return await super().execute_command("HSET", self.space.of(int(number) if number.isdigit() else 0) + key, field, value)

    async def _keys(self) -> list[bytes]:
        found = [key for one in self.topology.primaries for key in await self.node(one).keys("*")]
        plain = {key.rpartition(b"}")[2] for key in found}
        return sorted(plain - {OUT.encode()})

    def pipeline(self, transaction: bool = True) -> ClusterPipeline:
        return PlainPipeline(self, transaction)

    def pubsub(self) -> ShardedPubSub:
        return PlainPubSub(self)


class PlainPipeline(ClusterPipeline):
    def execute_command(self, *command: Any, **options: Any) -> ClusterPipeline:
        assert isinstance(self._client, PlainNames)
        return super().execute_command(*self._client.translated(command), **options)


class PlainPubSub(ShardedPubSub):
    async def subscribe(self, *channels: str) -> None:
        await super().subscribe(*(self._client.spelled(channel) for channel in channels))


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + FORM_S_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the nodes of the cluster do not {what}")
        time.sleep(0.05)
