"""Takes RabbitMQ and Redis from a stack that carries load, with clients connected, and puts a replica in Redis's place.

Nobody may be restarted, no client may meet a gap that nobody told, and every event is either processed or counted as lost.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import uvloop

from tests.containers import faults
from tests.containers.docker import Stack, run
from tests.containers.upgrade import Crowd, symbols
from tests.waiting import until_sync

CLIENTS = 500
OUTAGE_S = 15
SECRET = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli"


def all_of_them(stack: Stack) -> str:
    """One fault after the other, with the same clients."""
    return uvloop.run(_faults(stack))


async def _faults(stack: Stack) -> str:
    said = []
    async with Crowd(stack, await symbols(stack), CLIENTS) as crowd:
        for name, fault in (("rabbitmq", _cut), ("redis", _cut), ("a replica for redis", _promoted)):
            before, began_s = stack.counts(), time.monotonic()
            how = await asyncio.to_thread(fault, stack, name)
            found = await crowd.go_on()
            after = await asyncio.to_thread(stack.counts)
            assert not found["skipped"], f"{name}: {found['skipped']} gaps"
            said.append(
                f"{name}: {how}, prints at all clients {time.monotonic() - began_s:.1f} s after its begin, {_told(before, after, found)}"
            )
    return f"{CLIENTS} clients, load {os.getloadavg()[0]:.0f}; " + "; ".join(said)


def _told(before: dict[str, int], after: dict[str, int], found: dict[str, Any]) -> str:
    counts = {name: after[name] - before[name] for name in ("events", "expired", "dropped", "bad")}
    assert not counts["bad"]
    return f"{counts}, {found['declared']} prints declared lost, {sum(map(len, found['losses']))} connections lost"


def _cut(stack: Stack, service: str) -> str:
    return faults.cut_off(stack, service, OUTAGE_S)


def _promoted(stack: Stack, _: str) -> str:
    """The primary dies; its replica is promoted and takes its name, as an operator or a manager of failovers does."""
    (primary,), network = stack.containers("redis"), f"{stack.name}_inside"
    conf = stack.secrets / "replica.conf"
    password = (stack.secrets / "redis_password").read_text()
    conf.write_text((stack.secrets / "redis.conf").read_text() + f"replicaof redis 6379\nmasterauth {password}\n")
    conf.chmod(0o444)
    replica = run(
        "docker", "run", "-d", f"--name={stack.name}-replica", f"--network={network}", "--user=redis", "--read-only", "--cap-drop=ALL",
        "--tmpfs=/tmp:mode=1777", "-v", f"{conf}:/run/secrets/redis.conf:ro", "-v", f"{stack.secrets}/redis_password:/run/secrets/redis_password:ro",
        "redis:7", "redis-server", "/run/secrets/redis.conf", "--protected-mode", "no",
    ).strip()  # fmt: skip
    stack.replica = replica

    def ask(*words: str) -> str:
        return run("docker", "exec", replica, "sh", "-c", f"{SECRET} {' '.join(words)}")

    until_sync(lambda: "master_link_status:up" in ask("info", "replication"), 30, "the replica has a copy", every_s=0.2)
    pids = {one["Name"]: one["State"]["Pid"] for one in stack.inspect(*stack.containers()) if one["Id"] != primary}
    began_s = time.monotonic()
    run("docker", "kill", "--signal=KILL", primary)
    assert ask("replicaof", "no", "one").strip() == "OK"
    run("docker", "network", "disconnect", network, replica)
    run("docker", "network", "connect", "--alias", "redis", network, replica)
    until_sync(lambda: faults.ready(stack), 180, "everything ready with the replica", every_s=0.2)
    after = {one["Name"]: one["State"]["Pid"] for one in stack.inspect(*stack.containers())}
    assert after == pids, "a container was restarted"
    return f"ready again after {time.monotonic() - began_s:.1f} s, nobody restarted"
