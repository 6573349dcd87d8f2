"""Builds the image, brings the stack up, replays a recorded day through it and reads the day's numbers through the door.

`make stack` runs it, `make faults-stack` adds kills, partitions and rescaling, `make stack ARGS=--recovery` does what deploy/README.md says
when something is lost, `ARGS=--upgrade` brings a stack with 2,000 clients to another image, `ARGS=--servers` takes RabbitMQ and Redis
from a stack under load. One line a check; the exit code is 1 when
one fails.
Without a Docker engine it says so: exit code 0, in CI 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.containers import checks, faults, recovery, servers, upgrade
from tests.containers.docker import IMAGE, ROOT, Stack, run
from tests.oracle import events

WITH_EXCHANGE = ("mdl", "mdp", "wds", "scp", "door", "engine", "bots", "oms", "prometheus")
TAPE = "es-2023-12-25.ndjson.gz"


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def main() -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser("python -m tests.containers")
    parser.add_argument("--faults", action="store_true", help="kills, partitions, rescaling: some minutes")
    parser.add_argument("--twice", action="store_true", help="build a second time without the cache and compare every file")
    parser.add_argument(
        "--exchange", action="store_true", help="with the exchange and Prometheus; no tape: bots and the simulator"
    )
    parser.add_argument("--tls", action="store_true", help="the same with amqps, rediss and one https origin")
    parser.add_argument(
        "--recovery", action="store_true", help="promotion of the standby, backup and restore: five minutes, no tape"
    )
    parser.add_argument("--upgrade", action="store_true", help="2,000 clients over `make upgrade`: three minutes, no tape")
    parser.add_argument(
        "--servers",
        action="store_true",
        help="RabbitMQ and Redis away, a replica promoted, with 500 clients and 2,000 events/s; no tape",
    )
    given = parser.parse_args()
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        say("stack: no Docker engine answers: nothing was tried (install one, or start dockerd)")
        return 1 if os.environ.get("CI") else 0
    data = Path(os.environ.get("TAPELINE_DATA") or ROOT.parent / "shared" / "data")
    drills = given.recovery or given.upgrade or given.servers
    if not (drills or (data / TAPE).is_file()):
        say(f"stack: the recorded tape {TAPE} is not in {data}: set TAPELINE_DATA")
        return 1
    run("sh", "tests/containers/stand-ins.sh")
    build(IMAGE)
    with tempfile.TemporaryDirectory(prefix="tapeline-stack-") as folder:
        if drills:
            return drill(given, Path(folder))
        return judge(given, Path(folder), data / TAPE)


def build(tag: str, *extra: str) -> None:
    """Build the image as deploy/Dockerfile says."""
    began_s = time.monotonic()
    run("docker", "build", "-q", *extra, "-f", "deploy/Dockerfile", "-t", tag, ".")
    say(f"built {tag} in {time.monotonic() - began_s:.0f} s")


class Report:
    """Runs checks, one line each, and counts those that failed."""

    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, name: str, body: Callable[[], str]) -> None:
        """Run a check; the next one runs in any case."""
        began_s = time.monotonic()
        try:
            say(f"ok    {name}: {body()} ({time.monotonic() - began_s:.0f} s)")
        except Exception:
            self.failed += 1
            say(f"FAIL  {name}\n{traceback.format_exc()}")


def drill(given: argparse.Namespace, folder: Path) -> int:
    """Run what needs no tape, on a stack that `make up` started; return 1 when something failed."""
    check, feed = Report(), {"FEED": "simulator+engine+news", "RATE": "100", "SYMBOLS": "100"}
    if given.servers:
        feed = {"FEED": "simulator+news", "RATE": "2000", "SYMBOLS": "500"}
    profiles = ("exchange", "standby") if given.recovery else () if given.servers else ("exchange",)
    stack = Stack(folder, profiles, own="" if given.recovery else upgrade.OWN, **feed)
    lasting = {"PROFILES": ",".join(profiles)} | ({"ENGINE_REPLICATION": "sync"} if given.recovery else {"SCALE": "wds=2 mdp=2"})
    try:
        check("make up", lambda: f"everything healthy after {stack.make_up(**lasting):.1f} s")
        if check.failed:
            pass  # nothing more can be said of a stack that does not start
        elif given.recovery:
            check("the standby is promoted", lambda: recovery.promotion(stack))
            check("a leader that had more", lambda: recovery.two_histories(stack))
            check("backup and restore", lambda: recovery.restores(stack))
        else:
            check("as `make run` shows it", lambda: asyncio.run(checks.simulated(stack)))
            if given.servers:
                check("servers away under load", lambda: servers.all_of_them(stack))
            else:
                check("make upgrade", lambda: upgrade.rolling(stack))
    finally:
        if check.failed:
            say(stack.compose("ps", "-a", check=False) + stack.compose("logs", "--tail", "20", check=False))
        stack.down()
    return 1 if check.failed else 0


def judge(given: argparse.Namespace, folder: Path, tape: Path) -> int:
    """Run every check on one stack; return 1 when one failed."""
    check = Report()
    check("image", checks.image)
    if given.twice:
        build(f"{IMAGE}:again", "--no-cache")
        check("two builds hold the same files", lambda: checks.same_files(IMAGE, f"{IMAGE}:again"))
    total = sum(1 for _ in events(tape))
    profiles = ("exchange", "metrics") if given.exchange else ()
    feed = "simulator+engine" if given.exchange else "replay"
    stack = Stack(
        folder, (*profiles, "tls") if given.tls else profiles, FEED=feed, TAPES=str(tape.parent), TAPE=f"/tapes/{tape.name}",
        SPEED="100" if given.faults else "max",
    )  # fmt: skip
    try:
        stack.make_secrets()
        if given.exchange:
            check("start", lambda: f"healthy after {stack.up(*WITH_EXCHANGE):.1f} s")
            check("the exchange's prices at a client", lambda: asyncio.run(checks.prices(stack)))
            check("every panel is answered", lambda: checks.panels(stack))
        else:
            check("start", lambda: checks.start(stack))
        if not (given.faults or given.exchange):
            check("numbers", lambda: asyncio.run(checks.numbers(stack, tape, total, allow_losses=False)))
        if given.faults:
            check("scale 1, 4, 2", lambda: faults.rescale(stack, tape, total))
            check("a feed without end", lambda: faults.without_end(stack))
            for service in ("mdp", "mdl", "wds", "scp", "redis", "rabbitmq"):
                check(f"kill -9 {service}", lambda service=service: faults.kill(stack, service))  # type: ignore[misc]
            for service in ("rabbitmq", "redis"):
                check(f"{service} unreachable for 15 s", lambda service=service: faults.cut_off(stack, service))  # type: ignore[misc]
        check("hardened", lambda: checks.hardened(stack))
        check("no secret is told", lambda: checks.no_secret_told(stack))
        check("a stranger meets the door only", lambda: checks.stranger(stack))
        check("stop", lambda: checks.stop(stack))
    finally:
        if check.failed:
            say(stack.compose("ps", "-a", check=False) + stack.compose("logs", "--tail", "20", check=False))
        stack.down()
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
