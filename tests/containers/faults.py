"""What the stack survives: rescaling in mid-replay, kills, and servers that cannot be reached for a while."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.containers import checks
from tests.containers.docker import Stack, run
from tests.waiting import until_sync


def rescale(stack: Stack, tape: Path, total: int) -> str:
    """Processors go from one to four to two while the day is replayed, and no number changes."""
    seen = []
    until_sync(lambda: stack.counts()["events"] > total * 0.1, 60, "a tenth of the tape", every_s=0.5)
    for workers in (4, 2):
        before = stack.counts()["events"]
        stack.compose("up", "-d", "--no-recreate", f"--scale=mdp={workers}", "mdp")
        until_sync(lambda workers=workers: shares(stack) == workers, 60, f"{workers} processors own partitions", every_s=0.5)
        seen.append(f"{workers} within {stack.counts()['events'] - before} events")
    assert stack.counts()["events"] < total, "the tape was over before the last change"
    return "; ".join([*seen, asyncio.run(checks.numbers(stack, tape, total, allow_losses=False))])


def shares(stack: Stack) -> int:
    """Return how many running processors own partitions, by their metrics."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9102/metrics', timeout=3).read().decode())"
    told = (run("docker", "exec", one, "python", "-IS", "-c", ask, check=False) for one in stack.containers("mdp"))
    return sum("\ntapeline_mdp_partitions " in text and "\ntapeline_mdp_partitions 0.0" not in text for text in told)


def without_end(stack: Stack) -> str:
    """A feed that does not end takes the tape's place, so that everything can be ready."""
    stack.variables["FEED"] = "simulator"
    return f"healthy after {stack.up('mdl'):.1f} s"


def kill(stack: Stack, service: str) -> str:
    """A killed container is back by itself, and everything is ready again."""
    victim = stack.containers(service)[0]
    run("docker", "kill", "--signal=KILL", victim)
    began_s = time.monotonic()
    run("docker", "start", victim, check=False)  # an operator's kill is not restarted by the engine, a crash is
    until_sync(lambda: ready(stack), 60, f"everything ready after the kill of {service}", every_s=0.2)
    return f"ready again after {time.monotonic() - began_s:.1f} s"


def cut_off(stack: Stack, service: str, seconds: float = 15) -> str:
    """A server leaves the network for a while; who needs it says so, stays up, and is ready again by itself."""
    victim, network = stack.containers(service)[0], f"{stack.name}_inside"
    pids = {one["Name"]: one["State"]["Pid"] for one in stack.inspect(*stack.containers())}
    run("docker", "network", "disconnect", network, victim)
    until = time.monotonic() + seconds
    until_sync(lambda: not ready(stack), seconds, "somebody says that it is gone", every_s=0.2)
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))  # the fault's length, not a guess
    run("docker", "network", "connect", "--alias", service, network, victim)
    began_s = time.monotonic()
    until_sync(lambda: ready(stack), 60, f"everything ready after {service} is back", every_s=0.2)
    after = {one["Name"]: one["State"]["Pid"] for one in stack.inspect(*stack.containers())}
    assert after == pids, "a container was restarted"
    return f"ready again after {time.monotonic() - began_s:.1f} s, nobody restarted"


def ready(stack: Stack) -> bool:
    """Return whether every component says that it is ready, asked at its own admin port now."""
    for service in ("mdl", "mdp", "wds", "scp"):
        for one in stack.containers(service):
            if "200" not in run("docker", "exec", one, "python", "-IS", "/app/deploy/health.py", check=False)[:4]:
                return False
    return True
