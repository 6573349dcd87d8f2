"""Does what deploy/README.md says when something is lost: its own commands, read from it and pasted into a shell.

The exchange's leader is killed under orders and its standby promoted; the exchange and the control plane's database are backed
up, everything is forgotten, and both are put back.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.containers import checks
from tests.containers.docker import ROOT, Stack, run
from tests.signing import ADMIN
from tests.waiting import until_sync

README = ROOT / "deploy" / "README.md"
ORDERS = Path(__file__).with_name("orders.py")
ENOUGH = 40  # orders before and after a promotion


def block(heading: str, number: int = 0) -> str:
    """Return the commands in the given code block below a heading of deploy/README.md."""
    section = README.read_text().split(f"### {heading}\n")[1].split("\n### ")[0]
    return re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[number]


def shell(stack: Stack, commands: str) -> tuple[int, str]:
    """Run commands as they stand in the README, for this stack's project, secrets and files; return exit code and output."""
    own = {"deploy/settings/stack.env": str(stack.lasting), "deploy/secrets": str(stack.secrets)}
    for theirs, ours in own.items():
        commands = commands.replace(theirs, ours)
    commands = re.sub(r"\b(exchange|scp|secrets)-\$DAY", rf"{stack.folder}/\1-$DAY", commands).replace(
        "tapeline_", f"{stack.name}_"
    )
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=ROOT, env=stack.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    return done.returncode, done.stdout


def paste(stack: Stack, commands: str) -> str:
    """Run commands as they stand in the README, which have to succeed; return what they print."""
    code, said = shell(stack, commands)
    assert code == 0, f"{commands}\n{said[-3000:]}"
    return said


class Orders:
    """Orders that go on in the background, from a container beside the exchange; `end` returns what was acknowledged."""

    def __init__(self, stack: Stack) -> None:
        self._name = f"{stack.name}-orders"
        secret = f"{stack.secrets}/engine_token:/run/secrets/engine_token:ro"
        self._process = subprocess.Popen(
            ["docker", "run", "--rm", "-i", "--no-healthcheck", f"--name={self._name}", f"--network={stack.name}_inside", "-v", secret,
             stack.variables["TAPELINE_IMAGE"], "python", "-c", ORDERS.read_text()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> dict[str, Any]:
        """Stop ordering and return what the client printed."""
        out, _ = self._process.communicate("", timeout=180)
        assert self._process.returncode == 0
        return dict(json.loads(out))

    def kill(self) -> None:
        """End it however it is."""
        run("docker", "rm", "-f", self._name, check=False)
        self._process.wait(20)


def accepted(stack: Stack, service: str) -> dict[str, list[str]]:
    """Return client id → order ids of the drill's orders in the journal of an exchange."""
    ask = 'python -m engine journal dump | grep -o \'"order.accepted","order_id":[0-9]*,.*"cl_ord_id":"drill-[-0-9]*"\' || true'
    found: dict[str, list[str]] = {}
    for line in stack.compose("exec", "-T", service, "sh", "-c", ask).splitlines():
        order, name = re.search(r"\d+", line), re.search(r"drill-[-0-9]+", line)
        assert order is not None, line
        assert name is not None, line
        found.setdefault(name[0], []).append(order[0])
    return found


def promotion(stack: Stack) -> str:
    """The leader's container is killed under orders; the README's commands make the standby the leader, the other one its standby."""
    orders = Orders(stack)
    try:
        until_sync(lambda: len(accepted(stack, "standby")) >= ENOUGH, 60, "orders on the standby's disk", every_s=0.5)
        started = stack.inspect(*stack.containers("standby"))[0]["State"]["StartedAt"]
        run("docker", "kill", "--signal=KILL", *stack.containers("engine"))
        code, told = shell(stack, block("A standby of the exchange"))
        if code:
            empty_what_differs(stack, "engine")
        before = len(accepted(stack, "standby"))
        until_sync(lambda: len(accepted(stack, "standby")) >= before + ENOUGH, 60, "orders of the new leader", every_s=0.5)
        done = orders.end()
    finally:
        orders.kill()
    assert stack.inspect(*stack.containers("standby"))[0]["State"]["StartedAt"] == started, "the new leader was started anew"
    assert '"missing": 0' in told, told
    journal = accepted(stack, "standby")
    assert {name: [order] for name, order in done["acknowledged"].items()}.items() <= journal.items()
    one_history(stack)
    how = "with an emptied volume" if code else "with its volume"
    count = len(done["acknowledged"])
    return f"{count} orders, each once in both journals; {done['gap_s']} s between two answers; the earlier leader follows {how}"


def two_histories(stack: Stack) -> str:
    """`async`: the leader has orders that the standby never got. It is told so and stays out until it is emptied as the README says."""
    stack.make_up(ENGINE_REPLICATION="async", SCALE="oms=0")  # the OMS would rightly refuse to follow an exchange that forgot
    stack.compose("pause", "engine")  # the standby, since the promotion
    orders, before = Orders(stack), len(accepted(stack, "standby"))
    try:
        until_sync(lambda: len(accepted(stack, "standby")) >= before + ENOUGH, 60, "orders on one disk", every_s=0.5)
        orders.end()
    finally:
        orders.kill()
    stack.compose("kill", "standby")
    stack.compose("unpause", "engine")
    stack.compose("exec", "-T", "engine", "python", "-m", "engine", "promote")
    code, said = shell(stack, "echo ENGINE_LEADER=engine >> deploy/settings/stack.env; make up")
    assert code, said
    paste(stack, block("A standby of the exchange", 3))  # the streams have what is lost
    empty_what_differs(stack, "standby")
    one_history(stack)
    return "refused with what to do, and a copy again after it"


def empty_what_differs(stack: Stack, service: str) -> None:
    """Do what the README advises when an earlier leader has what the new one has not, and says so."""
    assert "tell two histories" in stack.compose("logs", "--no-log-prefix", service)
    paste(stack, re.sub(r"(?<=-sf )engine|(?<=tapeline_)engine", service, block("A standby of the exchange", 2)))


def one_history(stack: Stack) -> None:
    """Both exchanges have the same orders, in journals that are whole."""
    both = ("engine", "standby")
    until_sync(lambda: accepted(stack, "engine") == accepted(stack, "standby") != {}, 60, "one history", every_s=0.5)
    for one in both:
        assert json.loads(stack.compose("exec", "-T", one, "python", "-m", "engine", "journal", "verify"))["records"]


def restores(stack: Stack) -> str:
    """What the README's commands take while everything runs comes back by them after everything was forgotten."""
    stack.stream_token()  # makes an administrator
    taken = paste(stack, block("Backup and restore"))
    told = json.loads(next(line for line in taken.splitlines() if line.startswith("{")))
    stack.down()
    with stack.lasting.open("a") as file:
        file.write("SCALE=\n")
    back = paste(
        stack, f'C="docker compose -f deploy/compose.yaml --profile exchange" DAY=$(date +%F)\n{block("Backup and restore", 1)}'
    )
    given = json.loads(next(line for line in back.splitlines() if line.startswith("{")))
    assert (given["index"], given["digest"]) == (told["index"], told["digest"]), (told, given)
    stack.compose("exec", "-T", "scp", "python", "-m", "scp", "audit", "verify")
    stack.sign_out()
    found = asyncio.run(checks.prices(stack))
    return f"index {told['index']}, the same digest; {ADMIN} signs in again; prices {found}"
